//! How many guests run at a time: emulated ones take a processor each, and a
//! guest that has to wait for one reaches its time limit without fault.

use std::sync::{Condvar, Mutex, PoisonError};

/// Most guests at a time.
pub(crate) const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a guest, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot(());

impl Slot {
    /// Waits for one. Every guest has a limit, so one comes.
    pub(crate) fn take() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ENDED
            .wait_while(running, |running| *running >= AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
