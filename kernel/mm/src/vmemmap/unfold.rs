//! Unfolding: restore the memmap of one block, or of many with one flush.
//!
//! 1. every frame that is needed, or none (the only step that can fail);
//! 2. the frames filled: the head's copied, a tail's with what its entry reads;
//! 3. the entries stored, writable; a whole slot that got a 2 MiB block becomes a
//!    leaf again and its table is given back;
//! 4. the flush, once for a batch; 5. the rest freed; 6. the flag cleared.
//!
//! An entry that does not point to the shared tail keeps its content, so a block
//! is restored rightly whatever state it was in.

use super::gather::{Gather, Run};
use super::slot::{Slot, slots};
use super::{HvoError, Vmemmap, is_optimized};
use crate::addr::{NodeId, Order, Pfn, PhysAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{
    self, CompoundInfo, Flags, HEAD_PAGES, Page, PageList, PageType, clean_record, tail_record,
    vmemmap_pages,
};
use crate::paging::{self, Level, Pte, PteFlags};

/// What the struct pages that come back are filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// The tails they are: the block stays a compound page.
    Tails,
    /// Unused pages: the block is about to be freed, and tails would only be
    /// written to be overwritten. The first 63 tails stay tails.
    Unused,
}

/// Frames for one restore, all taken beforehand.
struct Supply {
    /// First pages of contiguous blocks, each enough for a whole slot.
    blocks: PageList,
    /// Single frames for the slots that got no block.
    singles: PageList,
}

impl Vmemmap {
    /// Unfolds the memmap of the frozen block of `order` with head `head`. Does
    /// nothing if it is not folded.
    ///
    /// # Errors
    /// [`HvoError::NoMemory`], [`HvoError::NotFrozen`], or [`HvoError::NotCompound`]
    /// if the block has another order; it is then as it was.
    #[doc(alias = "hugetlb_vmemmap_restore_folio")]
    pub fn restore_folio<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        order: Order,
        fill: Fill,
    ) -> Result<(), HvoError> {
        if !is_optimized(m, head) {
            return Ok(());
        }
        let mut gather = Gather::new();
        let result = self.unfold(m, frames, head, order, fill, &mut gather);
        gather.finish(m, frames, self);
        if result.is_ok() {
            head.set_flags(m, head.flags(m).without(Flags::VMEMMAP_OPTIMIZED));
        }
        result
    }

    /// Unfolds the blocks on `list`, all frozen and of `order`, from the front on
    /// until one fails, with one flush. Returns how many from the front are
    /// unfolded now, those included that were not folded before.
    #[doc(alias = "hugetlb_vmemmap_restore_folios")]
    pub fn restore_folios<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        list: &PageList,
        order: Order,
        fill: Fill,
    ) -> u64 {
        let mut gather = Gather::new();
        let mut done = 0;
        let mut next = list.first();
        while let Some(head) = next {
            if is_optimized(m, head)
                && self
                    .unfold(m, frames, head, order, fill, &mut gather)
                    .is_err()
            {
                break;
            }
            done += 1;
            next = list.next(m, head);
        }
        gather.finish(m, frames, self);
        let mut next = list.first();
        for _ in 0..done {
            let Some(head) = next else { break };
            head.set_flags(m, head.flags(m).without(Flags::VMEMMAP_OPTIMIZED));
            next = list.next(m, head);
        }
        done
    }

    fn unfold<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        order: Order,
        fill: Fill,
        gather: &mut Gather,
    ) -> Result<(), HvoError> {
        let index = self.tail_index(m, order.get())?;
        match head.ref_count(m) {
            0 => {}
            count => return Err(HvoError::NotFrozen(count)),
        }
        let node = head.node(m);
        let tail = self.tail_of(m, head.address(), node, order);
        let Some(tail) = tail.filter(|_| page::folio_order(m, head) == order) else {
            return Err(HvoError::NotCompound(head));
        };
        let record = match fill {
            Fill::Tails => tail_record(node, CompoundInfo::tail(head, order)),
            Fill::Unused => clean_record(node, Flags::empty()),
        };
        let range = self.memmap.range(self.memmap.pfn(head), order);
        let own = self.unshared_pages(m, head, range, tail);
        let mut supply = self.take_supply(m, frames, node, order, own)?;
        for slot in slots(range) {
            match supply.blocks.pop(m) {
                Some(block) => {
                    let block = self.memmap.pfn(block);
                    self.move_slot(m, &slot, block, tail, &record, gather);
                }
                None => self.refill_slot(m, &slot, &mut supply.singles, tail, &record),
            }
        }
        gather.owe(range);
        self.drop_frames(m, frames, &mut supply.singles);
        self.ledger.count_folded(node, index, false);
        self.ledger.count_unshared(node, index, own, false);
        Ok(())
    }

    /// Takes a contiguous block for every slot while there are any, and single
    /// frames for the other slots.
    fn take_supply<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
        own: u64,
    ) -> Result<Supply, HvoError> {
        let pages = vmemmap_pages(order);
        let block_order = Order::clamped(pages.ilog2()).min(Order::PMD);
        let per_slot = block_order.pages();
        let mut supply = Supply {
            blocks: PageList::new(),
            singles: PageList::new(),
        };
        let mut missing = pages;
        while missing > 0 {
            let Some(block) = frames.alloc(m, block_order, Placement::Prefer(node)) else {
                break;
            };
            if block_order > Order::PAGE {
                frames.split(m, block, block_order);
            }
            supply.blocks.push(m, self.memmap.page(block));
            missing -= per_slot;
        }
        // Blocks go to the lowest slots, so the head's slot is among the singles
        // only if there is no block at all; its head then keeps its frame, and so do
        // the `own` pages that have one. Otherwise some of these may be too many.
        let kept = if missing == pages { 1 + own } else { 0 };
        for _ in kept..missing {
            let Some(frame) = frames.alloc(m, Order::PAGE, Placement::Prefer(node)) else {
                self.drop_frames(m, frames, &mut supply.singles);
                while let Some(block) = supply.blocks.pop(m) {
                    frames.free_pages(m, self.memmap.pfn(block), per_slot);
                }
                return Err(HvoError::NoMemory);
            };
            supply.singles.push(m, self.memmap.page(frame));
        }
        Ok(supply)
    }

    /// Moves all pages of memmap of a slot to the contiguous `block`. If the slot
    /// is whole it becomes one leaf and its table falls out.
    fn move_slot<M: Machine>(
        &self,
        m: &M,
        slot: &Slot,
        block: Pfn,
        tail: Pfn,
        record: &page::Record,
        gather: &mut Gather,
    ) {
        let first_entry = slot.entry(m).at;
        for n in 0..slot.pages {
            let frame = block.offset(n);
            let at = first_entry.offset(n * 8);
            let tail = Some(tail).filter(|_| !slot.is_head(n));
            if let Some(old) = self.fill_frame(m, frame, at, tail, record) {
                if !slot.is_head(n) {
                    self.set_infos(m, frame, record);
                }
                gather.push(
                    m,
                    self.memmap,
                    Run {
                        first: old,
                        pages: 1,
                    },
                );
            }
            if !slot.is_whole() {
                m.write_phys(at, Pte::new(frame, PteFlags::KERNEL).raw());
            }
        }
        self.ledger.count_pages(slot.pages);
        if slot.is_whole() {
            let table = first_entry.pfn();
            let above = self.pmd_above(m, slot);
            // Release: pairs with the walker, which must see the filled frames.
            m.write_phys(
                above,
                Pte::new(block, PteFlags::KERNEL | PteFlags::LEAF).raw(),
            );
            gather.push_table(m, self.memmap, table);
        }
    }

    /// Gives every page of memmap of a slot that points to the shared tail a frame
    /// of its own from `singles`.
    fn refill_slot<M: Machine>(
        &self,
        m: &M,
        slot: &Slot,
        singles: &mut PageList,
        tail: Pfn,
        record: &page::Record,
    ) {
        let first_entry = slot.entry(m).at;
        for n in 0..slot.pages {
            let at = first_entry.offset(n * 8);
            let old = Pte::from_raw(m.read_phys(at)).pfn();
            if slot.is_head(n) {
                continue;
            }
            if old != tail {
                self.set_infos(m, old, record);
                continue;
            }
            let page = singles
                .pop(m)
                .expect("a frame was taken for every folded page");
            let frame = self.memmap.pfn(page);
            self.fill_frame(m, frame, at, Some(tail), record);
            m.write_phys(at, Pte::new(frame, PteFlags::KERNEL).raw());
            self.ledger.count_pages(1);
        }
    }

    /// Makes `frame` the memmap that the entry at `at` stands for; the private
    /// frame that it replaces, if the entry had one. No `tail` for the head's entry.
    fn fill_frame<M: Machine>(
        &self,
        m: &M,
        frame: Pfn,
        at: PhysAddr,
        tail: Option<Pfn>,
        record: &page::Record,
    ) -> Option<Pfn> {
        let old = Pte::from_raw(m.read_phys(at)).pfn();
        self.memmap.page(frame).set_page_type(m, PageType::MEMMAP);
        if Some(old) == tail {
            m.fill_phys(frame.phys(), record, HEAD_PAGES);
            None
        } else {
            m.copy_frame(frame, old);
            Some(old)
        }
    }

    /// Where the entry above the table of `slot` lies.
    pub(super) fn pmd_above<M: Machine>(&self, m: &M, slot: &Slot) -> PhysAddr {
        let mut none = || None;
        paging::table_entry(m, m.root(), slot.start, Level::Pmd, &mut none)
            .expect("the slot has a table, so the path to it exists")
    }
}
