//! Locks of the host.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock. That another test thread panicked while holding it is what
/// many tests are about, so it is no reason not to look.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
