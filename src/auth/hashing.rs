//! Limits how many password checks run at once: each may be expensive, and guessing clients must not starve mail of CPU
//! time. Callers wait for a permit.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::lock::lock;

/// Maximum checks at once, whatever the number of cores.
const MOST: usize = 2;

/// The permits of the process.
static PERMITS: Permits = Permits::new(MOST);

struct Permits {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    taken: usize,
    most: usize,
}

/// A permit, returned when dropped.
pub(super) struct Permit(&'static Permits);

/// One permit for each core, two at most.
pub fn set_cores(cores: usize) {
    PERMITS.lock().most = cores.clamp(1, MOST);
}

/// Waits for a permit. A holder must not ask for a second one.
pub(super) fn permit() -> Permit {
    PERMITS.permit()
}

impl Permits {
    const fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State { taken: 0, most }),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn permit(&'static self) -> Permit {
        let mut state = self.lock();
        while state.taken >= state.most {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.taken += 1;
        Permit(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// With any number of callers, no more than the limit run at once, and all get a permit.
    #[test]
    fn permits_are_few() {
        static OWN: Permits = Permits::new(2);
        let (running, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let permit = OWN.permit();
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                        ended.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(ended.load(Ordering::SeqCst), 3_200);
    }
}
