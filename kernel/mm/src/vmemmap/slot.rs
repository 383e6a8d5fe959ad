//! A slot: the part of a block's memmap that one level-2 entry covers.
//!
//! The memmap of a block of order 15 and up is one or more whole slots; that of a
//! smaller block lies in one slot, which it shares with its neighbours.

use crate::addr::{ENTRIES, PAGE_SIZE, PMD_SIZE, VirtAddr, VirtRange};
use crate::machine::Machine;
use crate::paging::{self, Entry, Level};

/// The pages of a block's memmap that lie under one level-2 entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Virtual address of the first of these pages of memmap.
    pub(super) start: VirtAddr,
    /// How many: 512, or fewer for a block below order 15.
    pub(super) pages: u64,
    /// Number of the first page within the block's memmap.
    pub(super) first: u64,
}

impl Slot {
    /// Whether the slot belongs to the block alone.
    pub(super) const fn is_whole(&self) -> bool {
        self.pages == ENTRIES
    }

    /// Whether page `n` of the slot is the one with the head.
    pub(super) const fn is_head(&self, n: u64) -> bool {
        self.first + n == 0
    }

    /// The level-2 leaf that covers the slot, or the last-level entry of its
    /// first page.
    ///
    /// # Panics
    /// If the memmap is not populated here.
    pub(super) fn entry<M: Machine>(&self, m: &M) -> Entry {
        let entry = paging::walk(m, m.root(), self.start);
        assert!(
            entry.level <= Level::Pmd && entry.is_leaf(),
            "no struct pages at {:?}: the section is a hole",
            self.start
        );
        entry
    }
}

/// The slots of the memmap at `range`, lowest first.
pub(super) fn slots(range: VirtRange) -> impl Iterator<Item = Slot> + Clone {
    let pages = range.bytes() / PAGE_SIZE;
    let per_slot = if pages < ENTRIES { pages } else { ENTRIES };
    (0..pages / per_slot).map(move |n| Slot {
        start: range.start.offset(n * PMD_SIZE),
        pages: per_slot,
        first: n * per_slot,
    })
}
