//! Whether a CPU can be interrupted, and what waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::lock;

/// How long a CPU may keep others waiting. Nothing under test takes a hundredth.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The interrupt flag of one CPU. While interrupts are off, another CPU's
/// interrupt waits; while one is being handled, they cannot be switched off.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    off: AtomicBool,
    /// Switched off, or being handled.
    busy: Mutex<bool>,
    free: Condvar,
    /// Accesses since they were switched off, and the most that there were before they were
    /// switched on again.
    masked: AtomicU64,
    most_masked: AtomicU64,
}

/// An interrupt being handled.
#[derive(Debug)]
pub(crate) struct Interrupted<'a>(&'a Interrupts);

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Interrupts {
    pub(crate) fn are_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// Whether an interrupt would be taken at once.
    pub(crate) fn are_free(&self) -> bool {
        !*lock(&self.busy)
    }

    /// Switches them off; whether they were on. `cpu` is for the message.
    pub(crate) fn disable(&self, cpu: usize) -> bool {
        let were_on = self.are_on();
        if were_on {
            self.occupy(cpu);
            self.masked.store(0, Ordering::Relaxed);
            self.off.store(true, Ordering::Relaxed);
        }
        were_on
    }

    pub(crate) fn enable(&self) {
        if self.off.swap(false, Ordering::Relaxed) {
            let masked = self.masked.load(Ordering::Relaxed);
            self.most_masked.fetch_max(masked, Ordering::Relaxed);
            self.release();
        }
    }

    /// Counts an access.
    pub(crate) fn tick(&self) {
        self.masked.fetch_add(1, Ordering::Relaxed);
    }

    /// The most accesses with interrupts off since the last call.
    pub(crate) fn take_most_masked(&self) -> u64 {
        self.most_masked.swap(0, Ordering::Relaxed)
    }

    /// Interrupts the CPU as soon as it lets itself be.
    pub(crate) fn interrupt(&self, cpu: usize) -> Interrupted<'_> {
        self.occupy(cpu);
        Interrupted(self)
    }

    fn occupy(&self, cpu: usize) {
        let (mut busy, waited) = self
            .free
            .wait_timeout_while(lock(&self.busy), LIMIT, |busy| *busy)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            !waited.timed_out(),
            "CPU {cpu} has kept interrupts off for {LIMIT:?}: deadlock"
        );
        *busy = true;
    }

    fn release(&self) {
        *lock(&self.busy) = false;
        self.free.notify_one();
    }
}
