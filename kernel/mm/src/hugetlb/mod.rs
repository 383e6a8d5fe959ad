//! Huge pages: pools of 2 MiB and 1 GiB folios on every node.
//!
//! A pool's folio is a frozen compound page of type hugetlb on its node's free
//! list; whoever takes it gets it with a count of one. With HVO on, a folio's
//! memmap is folded before it enters the pool and unfolded before it leaves for
//! the buddy allocator. A tail that is about to be folded is never written.
//!
//! The counters of a size are under one lock (`counters.rs`); how many folios stay is
//! changed under its resize lock (`resize.rs`), which may be held over a flush.

mod boot;
mod counters;
mod demote;
mod events;
mod fresh;
mod hold;
mod hstate;
mod map;
mod map_flags;
mod mapping;
mod poison;
mod raw_hwp;
mod read;
mod request;
mod resize;
mod surplus;
mod turns;

use core::sync::atomic::{AtomicBool, Ordering};

pub use boot::BootBlocks;
pub use counters::Counts;
pub use events::{Event, Events};
pub(crate) use hold::{Held, Hold};
pub use hstate::{Hstate, SizeName};
pub use map::{map_folio, unmap_folio};
pub use map_flags::{MapFlags, Promise, Sharing};
pub use mapping::{FaultError, Mapping, Slot};
pub(crate) use poison::Undissolved;
pub(crate) use raw_hwp::is_unreliable;
pub use read::ReadError;
pub use request::Request;
pub use surplus::NoMemory;

use crate::addr::Order;
use crate::machine::{Level, Machine};
use crate::node::Nodes;
use crate::page::Memmap;
use crate::vmemmap::{self, Vmemmap};

/// The huge pages of a machine.
#[derive(Debug)]
pub struct HugeTlb {
    hstates: [Hstate; 2],
    /// Whether folios allocated from now on are folded. Relaxed: a switch thrown
    /// while folios are being allocated concerns some of them or none.
    #[doc(alias = "hugetlb_optimize_vmemmap")]
    optimize: AtomicBool,
    /// Whether there can be 1 GiB folios. Set at boot.
    gigantic: AtomicBool,
    events: Events,
    /// Which pages of folios are broken.
    pub(crate) raw_hwp: raw_hwp::RawHwp,
}

/// What huge pages are made from: the free memory and the memmap.
#[derive(Clone, Copy, Debug)]
pub struct Backing<'a> {
    /// Where folios come from.
    pub nodes: &'a Nodes,
    /// Where their struct pages are.
    pub vmemmap: &'a Vmemmap,
}

impl Default for HugeTlb {
    fn default() -> Self {
        Self::new()
    }
}

impl HugeTlb {
    /// Empty pools; 1 GiB folios not supported, HVO off.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            hstates: [Hstate::new(Order::PMD), Hstate::new(Order::PUD)],
            optimize: AtomicBool::new(false),
            gigantic: AtomicBool::new(false),
            events: Events::new(),
            raw_hwp: raw_hwp::RawHwp::new(),
        }
    }

    /// Finds out what the machine supports: 1 GiB folios need a leaf of that size,
    /// and a memmap in which their tails find the head. Call once at boot.
    #[doc(alias = "hugetlb_init")]
    pub fn init<M: Machine>(&self, m: &M, memmap: Memmap) {
        let gigantic = m.has_gbpages() && memmap.max_folio_order() >= Some(Order::PUD);
        self.gigantic.store(gigantic, Ordering::Relaxed);
    }

    /// Whether folios allocated from now on are to be folded.
    #[doc(alias = "vm.hugetlb_optimize_vmemmap")]
    pub fn optimizes(&self) -> bool {
        self.optimize.load(Ordering::Relaxed)
    }

    /// Turns HVO on or off for folios allocated later; others stay as they are.
    pub fn set_optimize(&self, on: bool) {
        self.optimize.store(on, Ordering::Relaxed);
    }

    /// What did not go as asked, since start.
    #[must_use]
    pub const fn events(&self) -> &Events {
        &self.events
    }

    /// The sizes this machine has, smallest first.
    #[doc(alias = "for_each_hstate")]
    pub fn hstates(&self) -> impl Iterator<Item = &Hstate> {
        let gigantic = self.gigantic.load(Ordering::Relaxed);
        self.hstates
            .iter()
            .filter(move |h| gigantic || h.order() != Order::PUD)
    }

    /// The pools of folios of `order`, if the machine has that size.
    #[doc(alias = "size_to_hstate")]
    pub fn hstate(&self, order: Order) -> Option<&Hstate> {
        self.hstates().find(|h| h.order() == order)
    }

    /// Logs what is registered, in Linux's words.
    #[doc(alias = "report_hugepages")]
    pub fn report<M: Machine>(&self, m: &M) {
        for h in self.hstates() {
            let (size, total) = (h.name(), h.total(m).nr);
            let kib = vmemmap::optimizable_bytes(h.order()) >> 10;
            m.log(
                Level::Info,
                format_args!("HugeTLB: registered {size} page size, pre-allocated {total} pages"),
            );
            m.log(
                Level::Info,
                format_args!("HugeTLB: {kib} KiB vmemmap can be freed for a {size} page"),
            );
        }
    }
}
