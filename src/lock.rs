//! Locks that ignore poisoning, and condition variables.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Takes a lock. Nothing in this server leaves data half changed under a lock, so a poisoned one is still usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    while matches!(mutex.try_lock(), Err(std::sync::TryLockError::WouldBlock)) && turns::pass() {}
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition variable. Wake-ups may be spurious, so check the condition again.
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

/// Threads of a test that run one at a time, in an order that the test chooses: instead of waiting, such a thread
/// passes its turn on.
#[cfg(test)]
pub(crate) mod turns {
    use std::cell::RefCell;

    thread_local! {
        static PASS: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
    }

    /// Makes this thread take turns; `pass` passes its turn on.
    pub(crate) fn take(pass: Box<dyn Fn()>) {
        PASS.set(Some(pass));
    }

    pub(super) fn taken() -> bool {
        PASS.with_borrow(Option::is_some)
    }

    /// Passes the turn on; false if the thread takes no turns.
    pub(super) fn pass() -> bool {
        PASS.with_borrow(|pass| pass.as_ref().map(|pass| pass()).is_some())
    }
}
