//! The lock of this crate: a spin lock that keeps interrupts off while held.
//!
//! Lock order, outermost first: hugetlb pool, buddy of a node (INV-9). Of each
//! kind at most one is held, and none while another CPU is waited for (a TLB flush
//! is such a wait). The tables of the vmemmap need no lock: an entry belongs to the
//! block it maps, and a leaf is replaced by compare-exchange.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::machine::{IrqState, Machine};

/// A spin lock taken with interrupts off, so that an interrupt handler on the
/// same CPU can take it too.
#[doc(alias = "spin_lock_irqsave")]
pub struct IrqLock<T> {
    inner: spin::Mutex<T>,
}

impl<T> IrqLock<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: spin::Mutex::new(value),
        }
    }

    /// Waits for the lock; interrupts of this CPU stay off until the guard goes.
    pub fn lock<'a, M: Machine>(&'a self, machine: &'a M) -> IrqGuard<'a, T, M> {
        let irq = machine.irq_save();
        IrqGuard {
            guard: Some(self.inner.lock()),
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
