//! Taking a lock whose data is sound whatever happened to its last holder, and waiting for a notice.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Nothing panics under a lock of this server, so that a poisoned one is still sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    while matches!(mutex.try_lock(), Err(std::sync::TryLockError::WouldBlock)) && turns::pass() {}
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notice. It may return without one: look again what was waited for.
pub(crate) fn wait<'a, T>(
    notice: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(test)]
    if turns::taken() {
        drop(guard);
        turns::pass();
        return lock(mutex);
    }
    #[cfg(not(test))]
    let _ = mutex;
    notice.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Threads of a test that run one at a time, in an order that the test chooses: such a thread does not wait here, it
/// gives its turn away.
#[cfg(test)]
pub(crate) mod turns {
    use std::cell::RefCell;

    thread_local! {
        static PASS: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
    }

    /// From now on this thread takes turns, and `pass` gives one away.
    pub(crate) fn take(pass: Box<dyn Fn()>) {
        PASS.set(Some(pass));
    }

    pub(super) fn taken() -> bool {
        PASS.with_borrow(Option::is_some)
    }

    /// False where the thread takes no turns.
    pub(super) fn pass() -> bool {
        PASS.with_borrow(|pass| pass.as_ref().map(|pass| pass()).is_some())
    }
}
