//! What did not go as asked, counted since start.

use core::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted, of folios of all sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "enum vm_event_item")]
#[repr(usize)]
pub enum Event {
    /// A node gave a block for a folio.
    #[doc(alias = "HTLB_BUDDY_PGALLOC")]
    AllocSuccess,
    /// A node that was asked for one gave none: full, or an injected fault.
    #[doc(alias = "HTLB_BUDDY_PGALLOC_FAIL")]
    AllocFail,
    /// A folio that was to be folded was refused or rolled back, and is as it was.
    FoldFail,
    /// A folio's memmap found no memory to come back to, so that it is surplus and stuck.
    /// Each try counts.
    RestoreFail,
    /// A folio could not be cut into smaller ones for want of memory.
    DemoteFail,
    /// Smaller folios could not be made one for want of memory.
    PromoteFail,
    /// A mapping was not made, because its promise could not be covered.
    ReserveFail,
    /// A place of a mapping was touched and no folio was left for it.
    #[doc(alias = "VM_FAULT_SIGBUS")]
    TouchFail,
}

/// One counter for each [`Event`].
#[derive(Debug)]
#[doc(alias = "vm_event_states")]
pub struct Events([AtomicU64; Self::COUNT]);

impl Events {
    const COUNT: usize = Event::TouchFail as usize + 1;

    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Self::COUNT])
    }

    /// How often `event` was, since start.
    pub fn get(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }

    /// Relaxed: each counter is exact on its own, and nothing hangs on it.
    #[doc(alias = "count_vm_events")]
    pub(super) fn count(&self, event: Event, times: u64) {
        self.0[event as usize].fetch_add(times, Ordering::Relaxed);
    }
}
