//! Whether a CPU, which is a thread, can be interrupted.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a CPU may keep others waiting.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Takes a lock; that somebody panicked while holding it is told elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The CPU in whose name this thread is doing work, null if none; that CPU's own thread
    /// is another one, and waits should it want interrupts off now.
    static INTERRUPTED: Cell<*const Interrupts> = const { Cell::new(ptr::null()) };
}

/// The interrupt flag of one CPU. While interrupts are off, what others ask of it
/// waits; while it is done, they cannot be switched off.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// Changed by this CPU alone: relaxed.
    off: AtomicBool,
    /// Switched off, or at work for another CPU.
    busy: Mutex<bool>,
    free: Condvar,
}

impl Interrupts {
    /// Whether they are on, as the calling thread sees it: to work that interrupted this
    /// CPU they are off.
    pub(crate) fn are_on(&self) -> bool {
        !ptr::eq(INTERRUPTED.get(), self) && !self.off.load(Ordering::Relaxed)
    }

    /// Switches them off; whether they were on.
    pub(crate) fn disable(&self) -> bool {
        let were_on = self.are_on();
        if were_on {
            self.occupy();
            self.off.store(true, Ordering::Relaxed);
        }
        were_on
    }

    pub(crate) fn enable(&self) {
        if self.off.swap(false, Ordering::Relaxed) {
            self.release();
        }
    }

    /// Does `work` in the CPU's name as soon as it lets itself be interrupted; the work has
    /// interrupts off, so it may take locks.
    pub(crate) fn interrupt(&self, work: impl FnOnce()) {
        struct Done<'a>(&'a Interrupts, *const Interrupts);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                INTERRUPTED.set(self.1);
                self.0.release();
            }
        }
        self.occupy();
        let _done = Done(self, INTERRUPTED.replace(self));
        work();
    }

    fn occupy(&self) {
        let (mut busy, waited) = self
            .free
            .wait_timeout_while(lock(&self.busy), LIMIT, |busy| *busy)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            !waited.timed_out(),
            "a CPU has kept interrupts off for {LIMIT:?}: deadlock"
        );
        *busy = true;
    }

    fn release(&self) {
        *lock(&self.busy) = false;
        self.free.notify_one();
    }
}
