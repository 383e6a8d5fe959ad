//! The lock of this crate: a spin lock that keeps interrupts off while held.
//!
//! Locks are taken in the order of [`LockClass`] (INV-9). Of each class at most one is
//! held, and none while another CPU is waited for (a TLB flush is such a wait). Builds
//! with debug assertions check both, at every lock and every flush. The tables of the
//! vmemmap need no lock: an entry belongs to the block it maps, and a leaf is replaced
//! by compare-exchange.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering;

use crate::machine::{IrqState, Machine};

/// What a lock protects; outermost first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[doc(alias = "lock_class_key")]
pub enum LockClass {
    /// The early allocator, also while its memory is handed over.
    Early,
    /// The pools of one huge page size, of all nodes.
    #[doc(alias = "hugetlb_lock")]
    HugetlbPool,
    /// The lists of broken pages of huge pages.
    RawHwp,
    /// The buddy allocator of one node.
    #[doc(alias = "zone->lock")]
    Buddy,
}

impl LockClass {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The classes that may be held when one of this class is taken.
    const fn outer(self) -> u32 {
        self.bit() - 1
    }
}

/// In builds with debug assertions: this CPU holds no lock.
///
/// # Panics
/// If it does: it is about to wait for CPUs that may be waiting for that lock.
#[doc(alias = "lockdep_assert_none_held_once")]
pub fn assert_no_lock_held<M: Machine>(m: &M) {
    if cfg!(debug_assertions) {
        let held = m.held_locks().load(Ordering::Relaxed);
        assert!(
            held == 0,
            "BUG: waiting for other CPUs with locks held: {held:#b}"
        );
    }
}

/// A spin lock taken with interrupts off, so that an interrupt handler on the
/// same CPU can take it too.
#[doc(alias = "spin_lock_irqsave")]
pub struct IrqLock<T> {
    class: LockClass,
    inner: spin::Mutex<T>,
}

impl<T> IrqLock<T> {
    /// An open lock around `value`.
    pub const fn new(class: LockClass, value: T) -> Self {
        Self {
            class,
            inner: spin::Mutex::new(value),
        }
    }

    /// Waits for the lock; interrupts of this CPU stay off until the guard goes.
    ///
    /// # Panics
    /// In builds with debug assertions, if a lock is held that comes after this one, or
    /// one of its class.
    pub fn lock<'a, M: Machine>(&'a self, machine: &'a M) -> IrqGuard<'a, T, M> {
        let irq = machine.irq_save();
        if cfg!(debug_assertions) {
            let held = machine.held_locks().load(Ordering::Relaxed);
            assert!(
                held & !self.class.outer() == 0,
                "BUG: lock order: {:?} is taken with {held:#b} held",
                self.class
            );
        }
        let guard = self.inner.try_lock().unwrap_or_else(|| {
            let mut found = None;
            machine.wait_until("a spin lock", &mut || {
                found = self.inner.try_lock();
                found.is_some()
            });
            found.expect("the wait ended with it")
        });
        if cfg!(debug_assertions) {
            let held = machine.held_locks();
            held.fetch_or(self.class.bit(), Ordering::Relaxed);
        }
        IrqGuard {
            guard: Some(guard),
            class: self.class,
            machine,
            irq,
        }
    }
}

impl<T> fmt::Debug for IrqLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLock").finish_non_exhaustive()
    }
}

/// Holds an [`IrqLock`].
#[must_use = "the lock opens again when this is dropped"]
pub struct IrqGuard<'a, T, M: Machine> {
    guard: Option<spin::MutexGuard<'a, T>>,
    class: LockClass,
    machine: &'a M,
    irq: IrqState,
}

impl<T, M: Machine> Deref for IrqGuard<'_, T, M> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held until drop")
    }
}

impl<T, M: Machine> DerefMut for IrqGuard<'_, T, M> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held until drop")
    }
}

impl<T, M: Machine> Drop for IrqGuard<'_, T, M> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            let held = self.machine.held_locks();
            held.fetch_and(!self.class.bit(), Ordering::Relaxed);
        }
        // The lock must open before interrupts do: a handler may want it.
        self.guard = None;
        self.machine.irq_restore(self.irq);
    }
}

impl<T, M: Machine> fmt::Debug for IrqGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqGuard").finish_non_exhaustive()
    }
}
