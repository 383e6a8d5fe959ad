//! The report's numbers, read from the running machine.

use super::{HugeCounts, NodeMemory, Picture, Slot, Snapshot};
use crate::addr::{ENTRIES, Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::machine::Machine;
use crate::page::{Memmap, vmemmap_pages};
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
        slot: move |n| {
            let at = memmap.page(Pfn::new(n * section)).address();
            behind(m, at, |table| Slot::of_shared(shared_in(m, table)))
        },
    }
}

/// Calls `each` with the number of every 2 MiB block up to `end` of RAM and what is behind its
/// struct pages.
pub fn block_slots<M: Machine>(m: &M, memmap: Memmap, end: Pfn, mut each: impl FnMut(u64, Slot)) {
    let pages = vmemmap_pages(Order::PMD);
    for block in 0..end.as_u64().div_ceil(Order::PMD.pages()) {
        let at = memmap.page(Pfn::new(block * Order::PMD.pages())).address();
        let shared = |n| is_shared(paging::walk(m, m.root(), at.offset(n * PAGE_SIZE)).pte);
        let slot = behind(m, at, |_| match count((0..pages).map(shared)) {
            0 => Slot::Split,
            shared if shared + 1 < pages => Slot::Partly,
            _ => Slot::Folded,
        });
        each(block, slot);
    }
}

/// What is behind the struct page at `at`; `in_table` tells, if that is a last-level table.
fn behind<M: Machine>(m: &M, at: VirtAddr, in_table: impl FnOnce(PhysAddr) -> Slot) -> Slot {
    // A table found here must not be freed while it is read: see `paging::walk`.
    let irq = m.irq_save();
    let first = paging::walk(m, m.root(), at);
    let slot = match first.level {
        Level::Pte if first.pte.is_present() => in_table(first.at),
        _ if first.is_leaf() => Slot::Leaf,
        _ => Slot::Hole,
    };
    m.irq_restore(irq);
    slot
}

/// Entries of the last-level table at `table` that point to a shared tail.
fn shared_in<M: Machine>(m: &M, table: PhysAddr) -> u64 {
    count((0..ENTRIES).map(|n| is_shared(Pte::from_raw(m.read_phys(table.offset(n * 8))))))
}

/// Whether a last-level entry points to a shared tail: those are read-only (INV-4).
fn is_shared(pte: Pte) -> bool {
    pte.is_present() && !pte.flags().contains(PteFlags::WRITABLE)
}

fn count(all: impl Iterator<Item = bool>) -> u64 {
    all.map(u64::from).sum()
}
