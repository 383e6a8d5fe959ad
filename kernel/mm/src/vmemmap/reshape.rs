//! The entries that a demotion or a promotion stores, one by one, in either direction.

use super::Vmemmap;
use super::slot::{Slot, slot_around, slots};
use crate::addr::{ENTRIES, NodeId, Order, PAGE_SIZE, Pfn, VirtRange};
use crate::machine::Machine;
use crate::page::PageList;
use crate::paging::{Level, Pte, PteFlags};

/// The entries of a large block, in the order in which a demotion stores them; a
/// promotion goes the other way, and a failure of either goes back.
pub(super) struct Reshape {
    /// Struct pages of the block.
    pub(super) range: VirtRange,
    pub(super) node: NodeId,
    /// Blocks that the large one consists of.
    pub(super) parts: u64,
    /// Pages of memmap of each part.
    pub(super) per_part: u64,
    pub(super) large: Shared,
    pub(super) small: Shared,
    /// The slot looked up last, and its table.
    pub(super) last: Option<(u64, Pfn)>,
}

/// What the tails of one order share.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub(super) order: Order,
    pub(super) tail: Pfn,
    /// None if no slot is all tails, or there was no memory for it.
    pub(super) table: Option<Pfn>,
}

impl Reshape {
    /// Entries that change: all but the first.
    pub(super) const fn len(&self) -> u64 {
        self.parts * self.per_part - 1
    }

    /// The page of memmap whose entry is stored at step `n`, and whether it is a head's.
    const fn page(&self, n: u64) -> (u64, bool) {
        let heads = self.parts - 1;
        if n < heads {
            return ((n + 1) * self.per_part, true);
        }
        let n = n - heads;
        let tails = self.per_part - 1;
        (n / tails * self.per_part + 1 + n % tails, false)
    }

    /// Whether `slot` holds the first page of some part's memmap.
    const fn has_head(&self, slot: &Slot) -> bool {
        self.per_part <= ENTRIES || slot.first.is_multiple_of(self.per_part)
    }

    /// The slots that share the large order's table and need one of their own.
    pub(super) fn to_own<M: Machine>(&self, m: &M) -> impl Iterator<Item = Slot> {
        let shared = self.large.table;
        slots(self.range)
            .filter(|slot| self.has_head(slot) || self.small.table.is_none())
            .filter(move |slot| shared.is_some() && slot.table(m) == shared)
    }

    /// The slot of page `n` of the block's memmap, and its table.
    fn slot<M: Machine>(&mut self, m: &M, n: u64) -> (Slot, Pfn) {
        let slot = slot_around(self.range, self.range.start.offset(n * PAGE_SIZE));
        let table = match self.last {
            Some((first, table)) if first == slot.first => table,
            _ => slot
                .table(m)
                .expect("the memmap of a folded block has a table"),
        };
        self.last = Some((slot.first, table));
        (slot, table)
    }

    /// Stores `pte` for page `n` of the block's memmap; the entry before. In a slot that
    /// shares its table nothing is stored, but with the first of its pages the slot changes
    /// over from the table of `from` to that of `to`.
    fn store<M: Machine>(
        &mut self,
        m: &M,
        vmemmap: &Vmemmap,
        n: u64,
        pte: Pte,
        (from, to): (Shared, Shared),
    ) -> Pte {
        let (slot, table) = self.slot(m, n);
        let at = Level::Pte.index(self.range.start.offset(n * PAGE_SIZE)) * 8;
        let at = table.phys().offset(at);
        let old = Pte::from_raw(m.read_phys(at));
        if Some(table) == to.table {
            return old;
        }
        if Some(table) != from.table {
            m.write_phys(at, pte.raw());
        } else if n == slot.first
            && let Some(table) = to.table
        {
            slot.set_table(m, table);
            self.last = None;
            vmemmap.count_shared_slot(m, (self.node, from.order), false);
            vmemmap.count_shared_slot(m, (self.node, to.order), true);
        }
        old
    }

    /// Stores the entry of step `n` as that of the parts; `frames` are for heads.
    pub(super) fn make_small<M: Machine>(
        &mut self,
        m: &M,
        vmemmap: &Vmemmap,
        n: u64,
        frames: &mut PageList,
    ) {
        let (page, is_head) = self.page(n);
        let pte = if is_head {
            let frame = frames.pop(m).expect("one was taken for each head");
            Pte::new(vmemmap.memmap.pfn(frame), PteFlags::KERNEL)
        } else {
            Pte::new(self.small.tail, PteFlags::KERNEL_RO)
        };
        self.store(m, vmemmap, page, pte, (self.large, self.small));
    }

    /// Stores the entry of step `n` as that of the large block; a head's frame goes to
    /// `frames`.
    pub(super) fn make_large<M: Machine>(
        &mut self,
        m: &M,
        vmemmap: &Vmemmap,
        n: u64,
        frames: &mut PageList,
    ) {
        let (page, is_head) = self.page(n);
        let pte = Pte::new(self.large.tail, PteFlags::KERNEL_RO);
        let old = self.store(m, vmemmap, page, pte, (self.small, self.large));
        if is_head {
            frames.push(m, vmemmap.memmap.page(old.pfn()));
        }
    }
}
