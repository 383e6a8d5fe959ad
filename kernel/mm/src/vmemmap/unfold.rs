//! Unfolding: restore the memmap of one block, or of many with one flush.
//!
//! 1. every frame that is needed, or none (the only step that can fail);
//! 2. the frames filled: the head's copied, a tail's with what its entry reads;
//! 3. the entries stored, writable; a whole slot that got a 2 MiB block becomes a
//!    leaf again and its table is given back, if it is its own. A slot that shares a
//!    table and got no block gets a new one, complete before it is published;
//! 4. the flush, once for a batch; 5. the rest freed; 6. the flag cleared.
//!
//! An entry that does not point to the shared tail keeps its content, so a block
//! is restored rightly whatever state it was in.

use super::gather::{Gather, Run};
use super::slot::{Slot, slots};
use super::{HvoError, Vmemmap, is_optimized};
use crate::addr::{ENTRIES, NodeId, Order, Pfn, PhysAddr, VirtRange};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{
    self, Flags, HEAD_PAGES, Page, PageList, PageType, clean_record, tail_record, vmemmap_pages,
};
use crate::paging::{Pte, PteFlags};

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
    /// Single frames for the slots that got no block, and for their tables.
    singles: PageList,
}

/// What an unfold under way knows of its block.
struct Folded {
    range: VirtRange,
    node: NodeId,
    order: Order,
    /// Where the tails' entries point to.
    tail: Pfn,
    /// The table that slots of tails alone may share.
    shared: Option<Pfn>,
    /// What a tail's struct page becomes.
    record: page::Record,
}

impl Folded {
    fn shares<M: Machine>(&self, m: &M, slot: &Slot) -> bool {
        self.shared.is_some() && slot.table(m) == self.shared
    }
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
            head.change_flag(m, Flags::VMEMMAP_OPTIMIZED, false);
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
            head.change_flag(m, Flags::VMEMMAP_OPTIMIZED, false);
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
            Fill::Tails => tail_record(node, head.tail_info(order)),
            Fill::Unused => clean_record(node, Flags::empty()),
        };
        let block = Folded {
            range: self.memmap.range(self.memmap.pfn(head), order),
            node,
            order,
            tail,
            shared: self.existing_table(node, order),
            record,
        };
        let own = self.unshared_pages(m, head, block.range, tail);
        let mut supply = self.take_supply(m, frames, &block, own)?;
        for slot in slots(block.range) {
            match supply.blocks.pop(m) {
                Some(to) => self.move_slot(m, &slot, self.memmap.pfn(to), &block, gather),
                None if block.shares(m, &slot) => {
                    self.rebuild_slot(m, &slot, &mut supply.singles, &block);
                }
                None => self.refill_slot(m, &slot, &mut supply.singles, &block),
            }
        }
        gather.owe(block.range);
        self.drop_frames(m, frames, &mut supply.singles);
        self.ledger.count_folded(node, index, false);
        self.ledger.count_unshared(node, index, own, false);
        Ok(())
    }

    /// Takes a contiguous block for every slot while there are any, and single
    /// frames for the other slots, with one more for each that shares its table.
    fn take_supply<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        folded: &Folded,
        own: u64,
    ) -> Result<Supply, HvoError> {
        let &Folded { node, order, .. } = folded;
        let pages = vmemmap_pages(order);
        let block_order = Order::clamped(pages.ilog2()).min(Order::PMD);
        let per_slot = block_order.pages();
        let mut supply = Supply {
            blocks: PageList::new(),
            singles: PageList::new(),
        };
        let mut missing = pages;
        let mut rest = slots(folded.range);
        // A whole slot becomes a leaf, where that may be.
        let contiguous = per_slot < ENTRIES || m.page_size_may_change();
        while contiguous && missing > 0 {
            let Some(block) = frames.alloc(m, block_order, Placement::Prefer(node)) else {
                break;
            };
            if block_order > Order::PAGE {
                frames.split(m, block, block_order);
            }
            supply.blocks.push(m, self.memmap.page(block));
            missing -= per_slot;
            rest.next();
        }
        // Blocks go to the lowest slots, so the head's slot is among the singles
        // only if there is no block at all; its head then keeps its frame, and so do
        // the `own` pages that have one. Otherwise some of these may be too many.
        let kept = if missing == pages { 1 + own } else { 0 };
        let mut tables = 0;
        for slot in rest {
            tables += u64::from(folded.shares(m, &slot));
        }
        for _ in kept..missing + tables {
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
        folded: &Folded,
        gather: &mut Gather,
    ) {
        let &Folded {
            tail, ref record, ..
        } = folded;
        let first_entry = slot.entry(m).at;
        if folded.shared == Some(first_entry.pfn()) {
            for frame in block.block(Order::PMD).iter() {
                self.memmap.page(frame).set_page_type(m, PageType::MEMMAP);
            }
            m.fill_phys(block.phys(), record, slot.pages * HEAD_PAGES);
            slot.set_leaf(m, block);
            self.ledger.count_pages(slot.pages);
            return self.count_shared_slot(m, (folded.node, folded.order), false);
        }
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
            slot.set_leaf(m, block);
            gather.push_table(m, self.memmap, first_entry.pfn(), slot);
        }
    }

    /// Gives every page of memmap of a slot that points to the shared tail a frame
    /// of its own from `singles`.
    fn refill_slot<M: Machine>(&self, m: &M, slot: &Slot, singles: &mut PageList, folded: &Folded) {
        let &Folded {
            tail, ref record, ..
        } = folded;
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

    /// Gives a slot that shares its table a new one, with a frame of its own for every
    /// page of memmap, all from `singles`.
    fn rebuild_slot<M: Machine>(
        &self,
        m: &M,
        slot: &Slot,
        singles: &mut PageList,
        folded: &Folded,
    ) {
        let mut take = |page_type| {
            let page = singles.pop(m).expect("they were counted before");
            page.set_page_type(m, page_type);
            self.memmap.pfn(page)
        };
        let table = take(PageType::TABLE);
        for n in 0..slot.pages {
            let frame = take(PageType::MEMMAP);
            m.fill_phys(frame.phys(), &folded.record, HEAD_PAGES);
            let pte = Pte::new(frame, PteFlags::KERNEL);
            m.write_phys(table.phys().offset(n * 8), pte.raw());
        }
        slot.set_table(m, table);
        self.ledger.count_pages(slot.pages);
        self.ledger.count_tables(1, true);
        self.count_shared_slot(m, (folded.node, folded.order), false);
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
}
