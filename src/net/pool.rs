//! A bounded pool of threads: it starts empty, grows on demand and lets idle threads go after
//! a while. A panic ends one job and nothing else.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// No thread is free, and no further one can be had.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    max: usize,
    stack: usize,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    keep: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Shared {
    /// No job runs under the lock, so that a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// At most `max` threads with stacks of `stack` octets, kept idle for `keep`.
    pub fn new(max: usize, stack: usize, keep: Duration) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            keep,
        };
        Self {
            shared: Arc::new(shared),
            max,
            stack,
        }
    }

    /// Hands a job to an idle thread or to a new one.
    ///
    /// # Errors
    /// [`Full`] where all threads are busy, or the system gives no more.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let mut state = self.shared.lock();
        let begun = state.idle <= state.jobs.len();
        if begun {
            if state.threads >= self.max {
                return Err(Full);
            }
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().stack_size(self.stack);
            builder.spawn(move || work(&shared)).map_err(|_| Full)?;
            state.threads += 1;
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        // A new thread looks by itself.
        if !begun {
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("a connection ended in a panic");
            }
            state = shared.lock();
            continue;
        }
        state.idle += 1;
        let (woken, timeout) = shared
            .wake
            .wait_timeout(state, shared.keep)
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if timeout.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "the test is about one")]
    use super::*;
    use std::sync::mpsc;

    /// F13, F14: full is an answer, and a panic costs one job.
    #[test]
    fn bounded_and_panic_proof() {
        let pool = Pool::new(1, 64 * 1024, Duration::from_secs(5));
        let (send, receive) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel::<()>();
        assert_eq!(
            pool.run(move || {
                let _ = receive.recv();
            }),
            Ok(())
        );
        assert_eq!(pool.run(|| {}), Err(Full));
        drop(send);
        while pool.run(|| panic!("on purpose")).is_err() {
            std::thread::yield_now();
        }
        loop {
            let done = done.clone();
            if pool
                .run(move || {
                    let _ = done.send(());
                })
                .is_ok()
            {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(finished.recv(), Ok(()));
    }
}
