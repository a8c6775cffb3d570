//! Taking a lock whose data is sound whatever happened to its last holder.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nothing panics under a lock of this server, so that a poisoned one is still sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
