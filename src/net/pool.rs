//! A bounded pool of threads: it starts empty, grows on demand, and idle threads end after a while. A panic only ends
//! its own job. The thread that became idle last gets the next job: its stack is still cached, and the others can end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::lock::lock;

type Job = Box<dyn FnOnce() -> Box<dyn Send> + Send>;

/// No thread is free, and no other can be started.
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
    keep: Duration,
}

#[derive(Default)]
struct State {
    threads: usize,
    /// Threads that wait for a job, the latest last.
    idle: Vec<Arc<IdleThread>>,
}

/// A waiting thread, and the channel for its job.
struct IdleThread {
    thread: Thread,
    job: Mutex<Option<Job>>,
}

impl Pool {
    /// At most `max` threads with stacks of `stack` octets, kept idle for `keep`.
    pub fn new(max: usize, stack: usize, keep: Duration) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            keep,
        };
        Self {
            shared: Arc::new(shared),
            max,
            stack,
        }
    }

    /// Hands a job to an idle thread or to a new one. The job's value is dropped once its thread is idle again: whoever
    /// waits for that finds the thread.
    ///
    /// # Errors
    /// [`Full`] if all threads are busy, or the system cannot start another one.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(), Full> {
        let job: Job = Box::new(|| Box::new(job()));
        let mut state = lock(&self.shared.state);
        if let Some(idle) = state.idle.pop() {
            drop(state);
            *lock(&idle.job) = Some(job);
            idle.thread.unpark();
            return Ok(());
        }
        if state.threads >= self.max {
            return Err(Full);
        }
        let shared = Arc::clone(&self.shared);
        let builder = std::thread::Builder::new().stack_size(self.stack);
        builder
            .spawn(move || work(&shared, job))
            .map_err(|_| Full)?;
        state.threads += 1;
        Ok(())
    }
}

fn work(shared: &Shared, first: Job) {
    let idle = Arc::new(IdleThread {
        thread: std::thread::current(),
        job: Mutex::new(Some(first)),
    });
    loop {
        // Taken before it runs: the lock is not held meanwhile.
        let job = lock(&idle.job).take();
        if let Some(job) = job {
            let value = catch_unwind(AssertUnwindSafe(job));
            if value.is_err() {
                log::error!("a connection ended in a panic");
            }
            lock(&shared.state).idle.push(Arc::clone(&idle));
            drop(value);
        }
        if !wait(shared, &idle) {
            return;
        }
    }
}

/// Waits for a job; false if none came for so long that the thread must end.
fn wait(shared: &Shared, idle: &Arc<IdleThread>) -> bool {
    let begun = Instant::now();
    loop {
        if lock(&idle.job).is_some() {
            return true;
        }
        let left = shared.keep.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let mut state = lock(&shared.state);
            let place = state.idle.iter().position(|other| Arc::ptr_eq(other, idle));
            // If it is no longer among the idle threads, a job is being handed to it.
            if let Some(place) = place {
                state.idle.remove(place);
                state.threads -= 1;
                return false;
            }
        }
        // Spurious wake-ups are handled by the checks above.
        std::thread::park_timeout(left.max(Duration::from_millis(1)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "the test is about one")]
    use super::*;
    use std::sync::mpsc;

    /// The last one to have finished is the next to begin.
    #[test]
    fn the_latest_first() {
        let pool = Pool::new(2, 64 * 1024, Duration::from_secs(3600));
        let run = |gate: mpsc::Receiver<()>| {
            let (tell, told) = mpsc::channel();
            let job = move || {
                let _ = tell.send(std::thread::current().id());
                let _ = gate.recv();
            };
            assert_eq!(pool.run(job), Ok(()));
            told.recv().ok()
        };
        let idle = |count| {
            while lock(&pool.shared.state).idle.len() != count {
                std::thread::yield_now();
            }
        };
        let (open_one, one) = mpsc::channel();
        let (open_other, other) = mpsc::channel();
        let (first, second) = (run(one), run(other));
        assert_ne!(first, second);
        drop(open_one);
        idle(1);
        drop(open_other);
        idle(2);
        let (open, gate) = mpsc::channel();
        assert_eq!(run(gate), second);
        drop(open);
    }

    /// A slot of a job that has ended is always one for which there is a thread.
    #[test]
    fn the_thread_is_free_before_the_slot() {
        struct Slot(Pool, mpsc::Sender<Result<(), Full>>);
        impl Drop for Slot {
            fn drop(&mut self) {
                let _ = self.1.send(self.0.run(|| {}));
            }
        }
        let pool = Pool::new(1, 64 * 1024, Duration::from_secs(5));
        let (send, receive) = mpsc::channel();
        let slot = Slot(pool.clone(), send);
        assert_eq!(pool.run(move || slot), Ok(()));
        assert_eq!(receive.recv(), Ok(Ok(())));
    }

    #[test]
    fn idle_threads_go() {
        let pool = Pool::new(2, 64 * 1024, Duration::ZERO);
        assert_eq!((pool.run(|| {}), pool.run(|| {})), (Ok(()), Ok(())));
        while lock(&pool.shared.state).threads > 0 {
            std::thread::yield_now();
        }
        assert!(lock(&pool.shared.state).idle.is_empty());
    }

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
