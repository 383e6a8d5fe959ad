//! A fold undone, because storing an entry failed in its midst.
//!
//! Every entry goes back to what it was, the last one first. The old frames, and the
//! tables that fell out, still hold what they held: nothing is rebuilt, so nothing can be
//! rebuilt wrongly. Then the flush, and only then is the flag cleared and the head's new
//! frame freed. A table that took the place of a leaf stays, but for a shared one.

use super::fold::Fold;
use super::gather::Gather;
use super::slot::{Slot, slots};
use crate::addr::{Order, PAGE_SIZE};
use crate::frames::FrameSource;
use crate::machine::Machine;
use crate::page::{Flags, PageType};
use crate::paging::{self, Flush, Pte, PteFlags};

impl Fold<'_> {
    pub(super) fn roll_back<M: Machine>(
        mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        gather: &mut Gather,
    ) {
        let memmap = self.vmemmap.memmap;
        let range = memmap.range(memmap.pfn(self.head), self.order);
        let mut end = self.first_moved() + self.stored;
        for slot in slots(range).rev() {
            let first = slot.first.max(self.first_moved());
            if end <= first {
                continue;
            }
            if self.shared.is_some() && slot.table(m) == self.shared {
                self.put_back_slot(m, &slot, gather);
            } else {
                self.put_back_entries(m, &slot, first..end, gather);
            }
            end = first;
        }
        // The head's new frame is freed, and the flag written, only when no
        // translation leads there.
        self.vmemmap.ledger.count_flush();
        Flush::new(range).flush(m);
        self.head.change_flag(m, Flags::VMEMMAP_OPTIMIZED, false);
        if let Some(frame) = self.new_head {
            memmap.page(frame).set_page_type(m, PageType::NONE);
            self.vmemmap.ledger.uncount_pages(0, 1);
            frames.free(m, frame, Order::PAGE);
        }
        self.drop_tables(m, frames);
    }

    /// Puts back the entries for pages `stored` of the block's memmap, which are `slot`'s.
    fn put_back_entries<M: Machine>(
        &self,
        m: &M,
        slot: &Slot,
        stored: core::ops::Range<u64>,
        gather: &mut Gather,
    ) {
        let mut n = stored.end;
        while n > stored.start {
            let run = gather
                .unpush(m, self.vmemmap.memmap)
                .expect("a run for every stored entry");
            for frame in (0..run.pages).rev() {
                n -= 1;
                let at = slot.start.offset((n - slot.first) * PAGE_SIZE);
                let entry = paging::walk(m, m.root(), at);
                let pte = Pte::new(run.first.offset(frame), PteFlags::KERNEL);
                m.write_phys(entry.at, pte.raw());
            }
        }
    }

    /// Puts back the table, or the leaf, that `slot` had instead of the shared table.
    fn put_back_slot<M: Machine>(&self, m: &M, slot: &Slot, gather: &mut Gather) {
        let memmap = self.vmemmap.memmap;
        let own = gather.unpush_table(m, memmap, slot);
        let mut pages = 0;
        while pages < slot.pages {
            let run = gather
                .unpush(m, memmap)
                .expect("runs for every page of the slot");
            pages += run.pages;
            if own.is_none() {
                slot.set_leaf(m, run.first);
            }
        }
        if let Some(table) = own {
            slot.set_table(m, table);
        }
        self.vmemmap
            .count_shared_slot(m, (self.node, self.order), false);
    }
}
