//! The ledger (INV-6): what folding has freed and what it has cost.
//!
//! All counters are relaxed: each is exact on its own, and they add up whenever
//! nothing is being folded or unfolded, which is when the audit reads them.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{NR_TAILS, row};
use crate::addr::{MAX_NODES, NodeId, Order};
use crate::page::{VMEMMAP_TAIL_MIN_ORDER, vmemmap_pages};

/// Counters of a vmemmap.
#[derive(Debug)]
pub struct Ledger {
    /// Folded blocks by node and order.
    folded: [[AtomicU64; NR_TAILS]; MAX_NODES],
    /// Pages of their memmap, behind the first, that have a frame of their own.
    unshared: [[AtomicU64; NR_TAILS]; MAX_NODES],
    /// Slots of theirs that are mapped by the shared table of the node and order.
    shared_slots: [[AtomicU64; NR_TAILS]; MAX_NODES],
    /// Frames that hold struct pages, allocated at boot.
    boot_pages: AtomicU64,
    /// Frames that hold struct pages, allocated since.
    pages: AtomicU64,
    /// Frames that hold last-level tables of the vmemmap.
    tables: AtomicU64,
    /// Of these, the shared ones.
    shared_tables: AtomicU64,
    /// Shared tail pages.
    tails: AtomicU64,
    /// Sections populated.
    sections: AtomicU64,
    /// The most frames that all of these came to at any time.
    peak: AtomicU64,
    /// TLB flushes owed by folding and unfolding, and paid.
    flushes: AtomicU64,
}

/// The ledger at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Sections of 128 MiB that have struct pages.
    pub sections: u64,
    /// Frames with struct pages from boot.
    #[doc(alias = "nr_memmap_boot_pages")]
    pub boot_pages: u64,
    /// Frames with struct pages from the buddy allocator.
    #[doc(alias = "nr_memmap_pages")]
    pub pages: u64,
    /// Frames that the folded blocks do without.
    pub saved: u64,
    /// Last-level page tables of the vmemmap, shared ones included, each once.
    pub tables: u64,
    /// Of these, those that slots of folded blocks share.
    pub shared_tables: u64,
    /// Slots, 2 MiB of struct pages each, that are mapped by one of the shared ones.
    pub shared_slots: u64,
    /// Shared tail pages.
    pub tails: u64,
    /// Folded blocks.
    pub folded: u64,
    /// Pages of memmap of folded blocks, behind the first, that have a frame of their
    /// own because a struct page in them had to be written.
    pub unshared: u64,
    /// TLB flushes so far.
    pub flushes: u64,
    /// The most frames that struct pages, their tables and shared tails have taken at
    /// any time since start. Exact while one CPU folds; else short of the truth by what
    /// others have under way.
    pub peak: u64,
}

impl Ledger {
    pub(super) const fn new() -> Self {
        Self {
            folded: [const { [const { AtomicU64::new(0) }; NR_TAILS] }; MAX_NODES],
            unshared: [const { [const { AtomicU64::new(0) }; NR_TAILS] }; MAX_NODES],
            shared_slots: [const { [const { AtomicU64::new(0) }; NR_TAILS] }; MAX_NODES],
            boot_pages: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            shared_tables: AtomicU64::new(0),
            tails: AtomicU64::new(0),
            sections: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// Folded blocks of `order` on `node`.
    pub fn folded(&self, node: NodeId, order: Order) -> u64 {
        cell(&self.folded, node, order)
    }

    /// Pages of memmap of these that were given a frame of their own.
    pub fn unshared(&self, node: NodeId, order: Order) -> u64 {
        cell(&self.unshared, node, order)
    }

    /// Table entries that must point to the shared tail of `order` on `node`.
    pub fn tail_entries(&self, node: NodeId, order: Order) -> u64 {
        let entries = self.folded(node, order) * vmemmap_pages(order).saturating_sub(1);
        entries.saturating_sub(self.unshared(node, order))
    }

    /// Level-2 entries that must point to the shared table of `order` on `node`.
    pub fn shared_slots(&self, node: NodeId, order: Order) -> u64 {
        cell(&self.shared_slots, node, order)
    }

    /// Frames saved on `node` by folding blocks of `order`.
    pub fn saved_on(&self, node: NodeId) -> u64 {
        Order::range_inclusive(VMEMMAP_TAIL_MIN_ORDER, Order::MAX)
            .map(|order| self.tail_entries(node, order))
            .sum()
    }

    /// All counters at once.
    pub fn totals(&self) -> Totals {
        let orders = Order::range_inclusive(VMEMMAP_TAIL_MIN_ORDER, Order::MAX);
        let mut totals = Totals {
            sections: self.sections.load(Ordering::Relaxed),
            boot_pages: self.boot_pages.load(Ordering::Relaxed),
            pages: self.pages.load(Ordering::Relaxed),
            tables: self.tables.load(Ordering::Relaxed),
            shared_tables: self.shared_tables.load(Ordering::Relaxed),
            shared_slots: sum(&self.shared_slots),
            tails: self.tails.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
            ..Totals::default()
        };
        for (index, order) in orders.enumerate() {
            for (folded, unshared) in self.folded.iter().zip(&self.unshared) {
                let blocks = folded[index].load(Ordering::Relaxed);
                let unshared = unshared[index].load(Ordering::Relaxed);
                totals.folded += blocks;
                totals.unshared += unshared;
                totals.saved += (blocks * (vmemmap_pages(order) - 1)).saturating_sub(unshared);
            }
        }
        totals
    }

    pub(super) fn count_folded(&self, node: NodeId, index: usize, up: bool) {
        self.count_many_folded(node, index, 1, up);
    }

    pub(super) fn count_many_folded(&self, node: NodeId, index: usize, blocks: u64, up: bool) {
        add(&self.folded[row(node)][index], blocks, up);
    }

    pub(super) fn count_unshared(&self, node: NodeId, index: usize, pages: u64, up: bool) {
        add(&self.unshared[row(node)][index], pages, up);
    }

    pub(super) fn count_sections(&self, sections: u64, pages: u64) {
        add(&self.sections, sections, true);
        add(&self.boot_pages, pages, true);
        self.note_peak();
    }

    pub(super) fn count_pages(&self, pages: u64) {
        add(&self.pages, pages, true);
        self.note_peak();
    }

    pub(super) fn uncount_pages(&self, boot: u64, runtime: u64) {
        add(&self.boot_pages, boot, false);
        add(&self.pages, runtime, false);
    }

    pub(super) fn count_tables(&self, tables: u64, up: bool) {
        add(&self.tables, tables, up);
        if up {
            self.note_peak();
        }
    }

    pub(super) fn count_shared_table(&self) {
        add(&self.shared_tables, 1, true);
        self.count_tables(1, true);
    }

    pub(super) fn count_shared_slots(&self, node: NodeId, index: usize, slots: u64, up: bool) {
        add(&self.shared_slots[row(node)][index], slots, up);
    }

    pub(super) fn count_tail(&self) {
        add(&self.tails, 1, true);
        self.note_peak();
    }

    fn note_peak(&self) {
        let parts = [&self.boot_pages, &self.pages, &self.tables, &self.tails];
        let now = parts.iter().map(|part| part.load(Ordering::Relaxed)).sum();
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn count_flush(&self) {
        add(&self.flushes, 1, true);
    }
}

fn cell(table: &[[AtomicU64; NR_TAILS]; MAX_NODES], node: NodeId, order: Order) -> u64 {
    let index = order.index().checked_sub(VMEMMAP_TAIL_MIN_ORDER.index());
    index.map_or(0, |index| table[row(node)][index].load(Ordering::Relaxed))
}

fn sum(table: &[[AtomicU64; NR_TAILS]; MAX_NODES]) -> u64 {
    let cells = table.iter().flatten();
    cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
}

fn add(counter: &AtomicU64, by: u64, up: bool) {
    let before = if up {
        counter.fetch_add(by, Ordering::Relaxed)
    } else {
        counter.fetch_sub(by, Ordering::Relaxed)
    };
    debug_assert!(up || before >= by, "ledger counter below zero");
}
