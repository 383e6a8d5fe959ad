//! A slot: the part of a block's memmap that one level-2 entry covers.
//!
//! The memmap of a block of order 15 and up is one or more whole slots; that of a
//! smaller block lies in one slot, which it shares with its neighbours.

use crate::addr::{ENTRIES, PAGE_SIZE, PMD_SIZE, Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::machine::Machine;
use crate::paging::{self, Entry, Level, Pte, PteFlags};

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

    /// Whether all of the slot is tails behind the first frame: read-only, once folded,
    /// and in every such slot of every block of the order on the node the same.
    pub(super) const fn is_all_tails(&self) -> bool {
        self.is_whole() && self.first > 0
    }

    /// The last-level table of the slot, or `None` if it is a leaf.
    pub(super) fn table<M: Machine>(&self, m: &M) -> Option<Pfn> {
        let entry = self.entry(m);
        (entry.level == Level::Pte).then(|| entry.at.pfn())
    }

    /// Points the level-2 entry to `table`, which is complete. The slot is the caller's
    /// alone, so nobody else stores here.
    pub(super) fn set_table<M: Machine>(&self, m: &M, table: Pfn) {
        // Release: pairs with the walker, which must see the table's entries.
        m.write_phys(self.above(m), Pte::new(table, PteFlags::TABLE).raw());
    }

    /// Points the level-2 entry to the 2 MiB block at `block`, a leaf.
    pub(super) fn set_leaf<M: Machine>(&self, m: &M, block: Pfn) {
        let leaf = Pte::new(block, PteFlags::KERNEL | PteFlags::LEAF);
        // Release: pairs with the walker, which must see the frames filled.
        m.write_phys(self.above(m), leaf.raw());
    }

    /// Where the level-2 entry lies.
    fn above<M: Machine>(&self, m: &M) -> PhysAddr {
        let mut none = || None;
        paging::table_entry(m, m.root(), self.start, Level::Pmd, &mut none)
            .expect("the slot has struct pages, so the path to it exists")
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
pub(super) fn slots(range: VirtRange) -> impl DoubleEndedIterator<Item = Slot> + Clone {
    let pages = range.bytes() / PAGE_SIZE;
    (0..pages.div_ceil(ENTRIES)).map(move |n| slot_around(range, range.start.offset(n * PMD_SIZE)))
}

/// The slot of the memmap at `range` that holds `at`.
pub(super) fn slot_around(range: VirtRange, at: VirtAddr) -> Slot {
    let pages = (range.bytes() / PAGE_SIZE).min(ENTRIES);
    let first = (at.as_u64() - range.start.as_u64()) / PAGE_SIZE / pages * pages;
    Slot {
        start: range.start.offset(first * PAGE_SIZE),
        pages,
        first,
    }
}
