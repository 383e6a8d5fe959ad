//! Folding: optimize one block, or many with one flush.
//!
//! The order of steps, and what each is for (docs/MODEL.md, "Fold"):
//!
//! 1. everything that can fail: checks, shared tail and table, tables, a frame for the head;
//! 2. the flag in the head, so that the old and the new copy both have it;
//! 3. the head's frame copied;
//! 4. a 2 MiB leaf replaced by a table that is complete before it is published,
//!    or the entries of a table stored one by one: head writable, tails read-only; a
//!    slot of tails alone, leaf or not, gets the shared table, which is complete;
//! 5. the flush, once for a whole batch;
//! 6. the old frames freed, and tables that fell out.
//!
//! Between 3 and 5 nothing may write the head: the block is frozen and on no list
//! that changes.

use super::gather::{Gather, Run};
use super::slot::{Slot, slots};
use super::{HvoError, Vmemmap};
use crate::addr::{ENTRIES, NodeId, Order, Pfn, VirtAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::{FailPoint, Machine};
use crate::page::{Flags, PAGE_CHECKS, Page, PageList, PageType, SHARES_ACROSS_NODE};
use crate::paging::{self, Entry, Level, Pte, PteFlags};

/// A fold under way.
pub(super) struct Fold<'a> {
    pub(super) vmemmap: &'a Vmemmap,
    pub(super) head: Page,
    pub(super) order: Order,
    pub(super) node: NodeId,
    /// What the entries of tails will point to: the shared tail page, or the head's frame.
    tail: Pfn,
    /// The head's new frame. Without one the head stays where it is: one frame
    /// less comes back in one piece, and nothing else is different.
    pub(super) new_head: Option<Pfn>,
    /// The table for slots of tails alone. Without one each gets its own.
    pub(super) shared: Option<Pfn>,
    /// Tables for the leaves to be replaced, allocated beforehand.
    tables: PageList,
    /// Entries stored so far, those of shared tables included.
    pub(super) stored: u64,
}

/// A failure was injected.
struct Stopped;

impl Vmemmap {
    /// Folds the memmap of the frozen compound page of `order` with head `head`.
    ///
    /// # Errors
    /// See [`HvoError`]; the block is then as it was.
    #[doc(alias = "hugetlb_vmemmap_optimize_folio")]
    pub fn optimize_folio<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        order: Order,
    ) -> Result<(), HvoError> {
        if self.takes_two_steps() {
            self.split_leaves(m, frames, core::iter::once(head), order);
        }
        let mut gather = Gather::new();
        let result = self.fold(m, frames, head, order, &mut gather);
        gather.finish(m, frames, self);
        result
    }

    /// Folds every block on `list`, all frozen and of `order`, with one flush.
    /// Best effort: a block that cannot be folded stays as it is, which
    /// [`super::is_optimized`] tells. Returns how many were folded.
    ///
    /// When tables run out, what the batch has gathered so far is freed (one more
    /// flush) and the block tried once more.
    #[doc(alias = "hugetlb_vmemmap_optimize_folios")]
    pub fn optimize_folios<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        list: &PageList,
        order: Order,
    ) -> u64 {
        if self.takes_two_steps() {
            let heads = core::iter::successors(list.first(), |head| list.next(m, *head));
            self.split_leaves(m, frames, heads, order);
        }
        let mut gather = Gather::new();
        let mut folded = 0;
        let mut next = list.first();
        while let Some(head) = next {
            let mut result = self.fold(m, frames, head, order, &mut gather);
            if result == Err(HvoError::NoMemory) && gather.holds_frames() {
                core::mem::replace(&mut gather, Gather::new()).finish(m, frames, self);
                result = self.fold(m, frames, head, order, &mut gather);
            }
            folded += u64::from(result.is_ok());
            next = list.next(m, head);
        }
        gather.finish(m, frames, self);
        folded
    }

    fn fold<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        order: Order,
        gather: &mut Gather,
    ) -> Result<(), HvoError> {
        self.check_block(m, head, order)?;
        if PAGE_CHECKS {
            self.check_tails(m, head, order)?;
        }
        let index = self.tail_index(m, order.get())?;
        let node = head.node(m);
        let shared = if SHARES_ACROSS_NODE {
            Some(self.shared_tail(m, frames, node, order)?)
        } else {
            None
        };
        let range = self.memmap.range(self.memmap.pfn(head), order);
        let table = self.shared_table(m, frames, node, order);
        let leaves = slots(range)
            .filter(|slot| table.is_none() || !slot.is_all_tails())
            .filter(|slot| slot.entry(m).level == Level::Pmd)
            .count();
        let mut tables = self.take_frames(m, frames, node, leaves as u64)?;
        let new_head = frames.alloc(m, Order::PAGE, Placement::Prefer(node));

        let tail = shared
            .or(new_head)
            .or_else(|| self.tail_of(m, range.start, node, order))
            .expect("memmap of a live block");
        // By exchange, and then a look at the other flag: who marks a frame of the block broken sets
        // that one first, and looks at this one then (HP-12).
        head.change_flag(m, Flags::VMEMMAP_OPTIMIZED, true);
        if head.flags(m).contains(Flags::HAS_HWPOISONED) {
            head.change_flag(m, Flags::VMEMMAP_OPTIMIZED, false);
            self.drop_frames(m, frames, &mut tables);
            if let Some(frame) = new_head {
                frames.free(m, frame, Order::PAGE);
            }
            return Err(HvoError::Poisoned(head));
        }
        let mut fold = Fold {
            vmemmap: self,
            head,
            order,
            node,
            tail,
            new_head,
            shared: table,
            tables,
            stored: 0,
        };
        fold.copy_head(m, range.start);
        let stopped = slots(range).try_for_each(|slot| fold.slot(m, &slot, gather));
        if let Err(Stopped) = stopped {
            fold.roll_back(m, frames, gather);
            return Err(HvoError::Injected);
        }
        gather.owe(range);
        fold.drop_tables(m, frames);
        self.ledger.count_folded(node, index, true);
        Ok(())
    }

    /// `count` single frames, or none at all.
    pub(super) fn take_frames<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        count: u64,
    ) -> Result<PageList, HvoError> {
        let mut tables = PageList::new();
        for _ in 0..count {
            let Some(table) = frames.alloc(m, Order::PAGE, Placement::Prefer(node)) else {
                self.drop_frames(m, frames, &mut tables);
                return Err(HvoError::NoMemory);
            };
            tables.push(m, self.memmap.page(table));
        }
        Ok(tables)
    }

    /// Frees single frames that were taken but not needed.
    pub(super) fn drop_frames<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        list: &mut PageList,
    ) {
        while let Some(page) = list.pop(m) {
            frames.free(m, self.memmap.pfn(page), Order::PAGE);
        }
    }
}

impl Fold<'_> {
    fn copy_head<M: Machine>(&self, m: &M, at: VirtAddr) {
        let Some(frame) = self.new_head else { return };
        let old = paging::translate(m, m.root(), at).expect("memmap of a live block");
        m.copy_frame(frame, old.pfn());
        self.vmemmap
            .memmap
            .page(frame)
            .set_page_type(m, PageType::MEMMAP);
        self.vmemmap.ledger.count_pages(1);
    }

    /// Number of the block's first page of memmap that changes its frame.
    pub(super) fn first_moved(&self) -> u64 {
        u64::from(self.new_head.is_none())
    }

    /// The entry for page `n` of the block's memmap, once folded.
    fn folded_entry(&self, n: u64) -> Pte {
        match self.new_head {
            Some(frame) if n == 0 => Pte::new(frame, PteFlags::KERNEL),
            _ => Pte::new(self.tail, PteFlags::KERNEL_RO),
        }
    }

    fn slot<M: Machine>(&mut self, m: &M, slot: &Slot, gather: &mut Gather) -> Result<(), Stopped> {
        if let Some(shared) = self.shared.filter(|_| slot.is_all_tails()) {
            return self.share_table(m, slot, shared, gather);
        }
        let entry = slot.entry(m);
        if entry.level == Level::Pmd
            && let Some(run) = self.replace_leaf(m, slot, entry)?
        {
            self.stored += run.pages;
            gather.push(m, self.vmemmap.memmap, run);
            return Ok(());
        }
        // A table already, or another CPU was faster to make it one.
        self.store_entries(m, slot, gather)
    }

    /// Replaces a 2 MiB leaf, or a table, by the shared table. The slot belongs to the
    /// block alone: nobody else changes it meanwhile.
    fn share_table<M: Machine>(
        &mut self,
        m: &M,
        slot: &Slot,
        shared: Pfn,
        gather: &mut Gather,
    ) -> Result<(), Stopped> {
        if m.inject(FailPoint::VmemmapPmd) {
            return Err(Stopped);
        }
        let memmap = self.vmemmap.memmap;
        match slot.entry(m) {
            leaf if leaf.level == Level::Pmd => {
                let run = Run {
                    first: leaf.pte.pfn(),
                    pages: slot.pages,
                };
                gather.push(m, memmap, run);
            }
            first => {
                let frame = |n| Pte::from_raw(m.read_phys(first.at.offset(n * 8))).pfn();
                gather.push_all(m, memmap, (0..slot.pages).map(frame));
                gather.push_table(m, memmap, first.at.pfn(), slot);
            }
        }
        slot.set_table(m, shared);
        self.stored += slot.pages;
        self.vmemmap
            .count_shared_slot(m, (self.node, self.order), true);
        Ok(())
    }

    /// Replaces a 2 MiB leaf by a table; the frames that fell out, or `None` if
    /// it was no longer that leaf.
    fn replace_leaf<M: Machine>(
        &mut self,
        m: &M,
        slot: &Slot,
        leaf: Entry,
    ) -> Result<Option<Run>, Stopped> {
        if m.inject(FailPoint::VmemmapPmd) {
            return Err(Stopped);
        }
        let page = self
            .tables
            .pop(m)
            .expect("a table was taken for every leaf");
        let table = self.vmemmap.memmap.pfn(page);
        let base = leaf.pte.pfn();
        let index = Level::Pte.index(slot.start);
        if !slot.is_whole() {
            // The neighbours keep their frames.
            for n in 0..ENTRIES {
                let pte = Pte::new(base.offset(n), PteFlags::KERNEL);
                m.write_phys(table.phys().offset(n * 8), pte.raw());
            }
        }
        let ours = table.phys().offset(index * 8);
        m.fill_words(
            ours,
            Pte::new(self.tail, PteFlags::KERNEL_RO).raw(),
            slot.pages,
        );
        let kept = if slot.first == 0 {
            self.first_moved()
        } else {
            0
        };
        if slot.first == 0 {
            let head = self.new_head.unwrap_or(base.offset(index));
            m.write_phys(ours, Pte::new(head, PteFlags::KERNEL).raw());
        }
        page.set_page_type(m, PageType::TABLE);
        // Release: pairs with the walker, which must see the table's entries.
        let new = Pte::new(table, PteFlags::TABLE).raw();
        if m.compare_exchange_phys(leaf.at, leaf.pte.raw(), new)
            .is_err()
        {
            page.set_page_type(m, PageType::NONE);
            self.tables.push(m, page);
            return Ok(None);
        }
        self.vmemmap.ledger.count_tables(1, true);
        Ok(Some(Run {
            first: base.offset(index + kept),
            pages: slot.pages - kept,
        }))
    }

    fn store_entries<M: Machine>(
        &mut self,
        m: &M,
        slot: &Slot,
        gather: &mut Gather,
    ) -> Result<(), Stopped> {
        let memmap = self.vmemmap.memmap;
        let found = slot.entry(m);
        assert!(
            found.level == Level::Pte,
            "{found:?} is a leaf still, though storing a table there failed"
        );
        let first_entry = found.at;
        let kept = if slot.first == 0 {
            self.first_moved()
        } else {
            0
        };
        let mut run: Option<Run> = None;
        let mut result = Ok(());
        for n in kept..slot.pages {
            if m.inject(FailPoint::VmemmapPte) {
                result = Err(Stopped);
                break;
            }
            let at = first_entry.offset(n * 8);
            let old = Pte::from_raw(m.read_phys(at)).pfn();
            m.write_phys(at, self.folded_entry(slot.first + n).raw());
            self.stored += 1;
            match &mut run {
                Some(run) if run.first.offset(run.pages) == old => run.pages += 1,
                _ => {
                    if let Some(done) = run.replace(Run {
                        first: old,
                        pages: 1,
                    }) {
                        gather.push(m, memmap, done);
                    }
                }
            }
        }
        if let Some(last) = run {
            gather.push(m, memmap, last);
        }
        result
    }

    pub(super) fn drop_tables<M: Machine>(&mut self, m: &M, frames: &impl FrameSource<M>) {
        self.vmemmap.drop_frames(m, frames, &mut self.tables);
    }
}
