//! The report's numbers, read from the running machine.

use core::ops::Range;

use super::{HugeCounts, NodeMemory, Picture, Slot, Snapshot};
use crate::addr::{ENTRIES, Order, Pfn, PhysAddr};
use crate::machine::Machine;
use crate::page::Memmap;
use crate::paging::{self, Level, Pte, PteFlags};
use crate::system::Mm;

impl Snapshot {
    /// The numbers now. Exact if nothing is allocated or folded meanwhile.
    pub fn take<M: Machine>(m: &M, mm: &Mm) -> Self {
        let mut snapshot = Self {
            memmap: mm.vmemmap.ledger().totals(),
            ..Self::default()
        };
        for h in mm.hugetlb.hstates() {
            snapshot.sizes.push(h.order());
        }
        for node in mm.nodes.online() {
            let mut huge = [HugeCounts::default(); super::MAX_SIZES];
            for (h, counts) in mm.hugetlb.hstates().zip(&mut huge) {
                let pool = h.counts(m, node);
                *counts = HugeCounts {
                    nr: pool.nr,
                    free: pool.free,
                    folded: mm.vmemmap.ledger().folded(node, h.order()),
                };
            }
            snapshot.nodes.push(NodeMemory {
                node,
                present: mm.nodes.get(node).present_pages(),
                free: mm.nodes.get(node).free_pages(m),
                huge,
            });
        }
        snapshot
    }
}

/// The picture of `memmap` up to `end` of RAM, from the live page tables.
pub fn slots<M: Machine>(m: &M, memmap: Memmap, end: Pfn) -> Picture<impl Fn(u64) -> Slot> {
    let section = Memmap::SECTION.pages();
    Picture {
        slots: end.as_u64().div_ceil(section),
        slot: move |n| look(m, memmap, Pfn::new(n * section)),
    }
}

fn look<M: Machine>(m: &M, memmap: Memmap, section: Pfn) -> Slot {
    // A table found here must not be freed while it is read: see `paging::walk`.
    let irq = m.irq_save();
    let first = paging::walk(m, m.root(), memmap.page(section).address());
    let slot = match first.level {
        Level::Pte => Slot::of_shared(read_only(m, first.at, 0..ENTRIES)),
        _ if first.is_leaf() => Slot::Leaf,
        _ => Slot::Hole,
    };
    m.irq_restore(irq);
    slot
}

/// Calls `each` with the number of every 2 MiB block up to `end` of RAM and what is behind its
/// struct pages. One whose table has gone meanwhile is a leaf or a hole by then.
pub fn block_slots<M: Machine>(m: &M, memmap: Memmap, end: Pfn, mut each: impl FnMut(u64, Slot)) {
    let blocks_per_section = Memmap::SECTION.pages() / Order::PMD.pages();
    for block in 0..end.as_u64().div_ceil(Order::PMD.pages()) {
        let section = Pfn::new(block / blocks_per_section * Memmap::SECTION.pages());
        let irq = m.irq_save();
        let first = paging::walk(m, m.root(), memmap.page(section).address());
        let slot = match first.level {
            Level::Pte => {
                let entries = ENTRIES / blocks_per_section;
                let from = block % blocks_per_section * entries;
                match read_only(m, first.at, from..from + entries) {
                    0 => Slot::Split,
                    shared if shared + 1 < entries => Slot::Partly,
                    _ => Slot::Folded,
                }
            }
            _ if first.is_leaf() => Slot::Leaf,
            _ => Slot::Hole,
        };
        m.irq_restore(irq);
        each(block, slot);
    }
}

/// `entries` of the last-level table at `table` that are read-only: those that point
/// to a shared tail (INV-4).
fn read_only<M: Machine>(m: &M, table: PhysAddr, entries: Range<u64>) -> u64 {
    let shared = |n: &u64| {
        let pte = Pte::from_raw(m.read_phys(table.offset(n * 8)));
        pte.is_present() && !pte.flags().contains(PteFlags::WRITABLE)
    };
    entries.filter(shared).fold(0, |count, _| count + 1)
}
