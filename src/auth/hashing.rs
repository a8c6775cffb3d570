//! Limits how many password checks run at once: each may be expensive, and guessing clients must not starve mail of CPU
//! time. Callers wait for their turn.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::lock::lock;

/// Maximum checks at once, whatever the number of cores.
const MOST: usize = 2;

/// The turns of the process.
static TURNS: Turns = Turns::new(MOST);

struct Turns {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    taken: usize,
    most: usize,
}

/// A turn, returned when dropped.
pub(super) struct Turn(&'static Turns);

/// One turn for each core, two at most.
pub fn set_cores(cores: usize) {
    TURNS.lock().most = cores.clamp(1, MOST);
}

/// Waits for a turn. A holder must not ask for a second one.
pub(super) fn turn() -> Turn {
    TURNS.turn()
}

impl Turns {
    const fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State { taken: 0, most }),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn turn(&'static self) -> Turn {
        let mut state = self.lock();
        while state.taken >= state.most {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.taken += 1;
        Turn(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// With any number of callers, no more than the limit run at once, and all get their turn.
    #[test]
    fn turns_are_few() {
        static OWN: Turns = Turns::new(2);
        let (running, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = OWN.turn();
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                        ended.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(ended.load(Ordering::SeqCst), 3_200);
    }
}
