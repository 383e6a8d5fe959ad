//! What did not go as asked, counted since start.

use core::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted, of folios of all sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "enum vm_event_item")]
#[repr(usize)]
pub enum Event {
    /// A node gave a block for a folio that is not gigantic.
    #[doc(alias = "HTLB_BUDDY_PGALLOC")]
    AllocSuccess,
    /// A node that was asked for such a block gave none: full, or an injected fault.
    #[doc(alias = "HTLB_BUDDY_PGALLOC_FAIL")]
    AllocFail,
    /// A folio that was to be folded was refused or rolled back, and is as it was.
    FoldFail,
    /// A folio that was to be given back found no memory for its memmap to come back to.
    /// Each try counts; folios that become surplus and stuck with it, untried, do not.
    RestoreFail,
    /// A folio could not be cut into smaller ones: want of memory, or an injected fault.
    /// It ended the request; folios that were to follow were not tried and do not count.
    DemoteFail,
    /// Smaller folios could not be made one: want of memory, or an injected fault.
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
