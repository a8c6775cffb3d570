//! Threads that run one at a time, so that a schedule can be repeated: each call of the disk is a point where another
//! one may go on, and a schedule chooses which.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use crate::lock::turns;

/// Maximum steps of a schedule; more mean that it does not end.
const LONGEST: usize = 10_000;

/// Chooses the next thread, from the threads, the number of steps, and the last thread.
pub(super) type Order = Box<dyn FnMut(&[usize], usize, usize) -> usize + Send>;

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// A thread's part in a schedule.
#[derive(Clone)]
struct Seat {
    number: usize,
    turns: Arc<Turns>,
}

struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    current: usize,
    steps: usize,
    live: Vec<usize>,
    /// Threads that wait for another one, without a step of another since.
    waiting: Vec<usize>,
    schedule: Order,
}

/// A schedule that only the seed decides.
pub(super) fn seeded(seed: u64) -> Order {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    Box::new(move |threads, _, _| {
        let bound = threads.len() as u64;
        threads[usize::try_from(random(&mut state) % bound).unwrap()]
    })
}

/// A schedule that switches threads only when it must, and after each of the given steps.
pub(super) fn switching(at: Vec<usize>) -> Order {
    Box::new(move |threads, steps, last| {
        let others = || threads.iter().copied().find(|&thread| thread != last);
        let goes_on = threads.contains(&last) && !at.contains(&steps);
        let next = if goes_on { Some(last) } else { others() };
        next.unwrap_or(threads[0])
    })
}

/// The next number of a sequence (xorshift64*).
pub(super) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}

/// Runs the jobs, each in a thread, and returns the number of steps that they took.
pub(super) fn run<'s>(schedule: Order, jobs: Vec<Box<dyn FnOnce() + Send + 's>>) -> usize {
    let mut state = State {
        current: 0,
        steps: 0,
        live: (0..jobs.len()).collect(),
        waiting: Vec::new(),
        schedule,
    };
    state.choose();
    let turns = Arc::new(Turns {
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    thread::scope(|scope| {
        for (number, job) in jobs.into_iter().enumerate() {
            let turns = Arc::clone(&turns);
            scope.spawn(move || {
                let seat = Seat { number, turns };
                drop(seat.await_turn(seat.turns.state.lock().unwrap()));
                let waiting = seat.clone();
                turns::take(Box::new(move || waiting.pause(true)));
                SEAT.set(Some(seat.clone()));
                let _left = Leaves(seat);
                job();
            });
        }
    });
    turns.state.lock().unwrap().steps
}

/// A point where another thread may go on; nothing in a thread that takes no turns.
pub(super) fn pause() {
    if let Some(seat) = SEAT.with_borrow(Option::clone) {
        seat.pause(false);
    }
}

impl Seat {
    /// Lets the schedule choose, and returns once it chooses this thread. A thread that waits is not chosen before
    /// another one has taken a step.
    fn pause(&self, waits: bool) {
        let mut state = self.turns.state.lock().unwrap();
        if waits {
            state.waiting.push(self.number);
        } else {
            state.waiting.clear();
        }
        state.choose();
        self.turns.changed.notify_all();
        drop(self.await_turn(state));
    }

    fn await_turn<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.current != self.number {
            state = self.turns.changed.wait(state).unwrap();
        }
        state
    }
}

impl State {
    fn choose(&mut self) {
        self.steps += 1;
        assert!(self.steps < LONGEST, "nobody comes to an end");
        let ready = |thread: &usize| !self.waiting.contains(thread);
        let ready: Vec<usize> = self.live.iter().copied().filter(ready).collect();
        assert!(!ready.is_empty(), "all wait for each other");
        self.current = (self.schedule)(&ready, self.steps, self.current);
    }
}

/// The end of a thread's part, also by a panic.
struct Leaves(Seat);

impl Drop for Leaves {
    fn drop(&mut self) {
        let Ok(mut state) = self.0.turns.state.lock() else {
            return;
        };
        state.live.retain(|&thread| thread != self.0.number);
        state.waiting.clear();
        if !state.live.is_empty() {
            state.choose();
        }
        self.0.turns.changed.notify_all();
    }
}
