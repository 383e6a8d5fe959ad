//! A lock that is held with interrupts on, over flushes and over work that takes long.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::machine::Machine;
use crate::sync::assert_no_lock_held;

/// A lock whose waiters panic only if the holder stops making progress. It is taken before every
/// other lock (INV-9).
#[derive(Debug)]
#[doc(alias = "mutex")]
pub(crate) struct ProgressLock {
    /// What is waited for, for the report of a wait that does not end.
    what: &'static str,
    /// Acquire and release: what the holder before did is seen.
    held: AtomicBool,
    /// Relaxed: that it changes is all that matters.
    progress: AtomicU64,
}

impl ProgressLock {
    /// An open lock; `what` names what is waited for in the report of a wait that does not end.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self {
            what,
            held: AtomicBool::new(false),
            progress: AtomicU64::new(0),
        }
    }

    /// Takes the lock.
    ///
    /// # Panics
    /// If the holder makes no progress for as long as [`Processors::wait_until`](crate::machine::Processors::wait_until) allows.
    pub(crate) fn lock<M: Machine>(&self, m: &M) -> ProgressGuard<'_> {
        self.lock_and(m, &|| ())
    }

    /// Takes the lock like [`lock`](Self::lock), and never panics: for a lock whose holder itself
    /// waits for others, each time with a limit.
    pub(crate) fn lock_patient<M: Machine>(&self, m: &M) -> ProgressGuard<'_> {
        const LOOKS: u32 = 1 << 16;
        assert_no_lock_held(m);
        while self.held.swap(true, Ordering::Acquire) {
            let mut looks = 0;
            m.wait_until(self.what, &mut || {
                looks += 1;
                !self.held.load(Ordering::Relaxed) || looks >= LOOKS
            });
            m.touch_watchdog();
        }
        ProgressGuard(self)
    }

    /// Takes the lock like [`lock`](Self::lock), and reports this wait as progress of `outer`, so
    /// that those who wait for that one do not panic.
    pub(crate) fn lock_nested<M: Machine>(
        &self,
        m: &M,
        outer: &ProgressGuard<'_>,
    ) -> ProgressGuard<'_> {
        self.lock_and(m, &|| outer.progress(m))
    }

    fn lock_and<M: Machine>(&self, m: &M, progressed: &dyn Fn()) -> ProgressGuard<'_> {
        assert_no_lock_held(m);
        while self.held.swap(true, Ordering::Acquire) {
            let seen = self.progress.load(Ordering::Relaxed);
            m.wait_until(self.what, &mut || {
                !self.held.load(Ordering::Relaxed) || self.progress.load(Ordering::Relaxed) != seen
            });
            m.touch_watchdog();
            progressed();
        }
        ProgressGuard(self)
    }
}

/// Holds a [`ProgressLock`].
#[must_use = "the lock opens again when this is dropped"]
pub(crate) struct ProgressGuard<'a>(&'a ProgressLock);

impl ProgressGuard<'_> {
    /// Tells waiters and the watchdog that the holder is making progress.
    pub(crate) fn progress<M: Machine>(&self, m: &M) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
        m.touch_watchdog();
    }
}

impl Drop for ProgressGuard<'_> {
    fn drop(&mut self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
        self.0.held.store(false, Ordering::Release);
    }
}
