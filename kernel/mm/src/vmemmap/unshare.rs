//! Copy-on-write: one page of the memmap of a folded block gets a frame of its own.
//!
//! Tails are read-only because they share a frame. Whoever has to write into one gives
//! the page of memmap that it lies in a copy first; the rest of the block stays folded:
//!
//! 1. a frame, or `NoMemory` and nothing changed; one for a table, too, if the slot shares
//!    its table with others;
//! 2. the shared tail copied into it; 3. the entry stored, writable: in the slot's own
//!    table, which is a copy of the shared one and complete before it is published;
//! 4. the flush.
//!
//! A slot that has got a table of its own keeps it until the block is unfolded,
//! demoted or promoted.
//!
//! The block need not be frozen: until somebody writes, old and new translation give the
//! same bytes (INV-2). Two who do this to one block keep each other out.

use super::gather::{Gather, Run};
use super::slot::slot_around;
use super::{HvoError, Vmemmap, is_optimized};
use crate::addr::{Order, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use crate::frames::FrameSource;
use crate::machine::{FailPoint, Machine};
use crate::page::{
    self, Flags, HEAD_PAGES, Page, PageType, SHARES_ACROSS_NODE, STRUCT_PAGE_SIZE, tail_record,
};
use crate::paging::{self, Entry, Flush, Level, Pte, PteFlags};

impl Vmemmap {
    /// Makes the struct page `page`, of the folded block with head `head`, writable: its
    /// page of memmap gets a frame of its own unless it has one. Whether it got one now.
    ///
    /// # Errors
    /// [`HvoError::NotOptimized`], [`HvoError::NoMemory`], [`HvoError::Injected`], or
    /// [`HvoError::SharedWithinFolio`]: the tails of such a build show the head's frame, and a
    /// copy of that would be no frame of tails. Nothing has changed then.
    pub fn unshare_page<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        page: Page,
    ) -> Result<bool, HvoError> {
        let (entry, tail, order) = self.tail_entry(m, head, page)?;
        if entry.pte.pfn() != tail {
            return Ok(false);
        }
        let node = head.node(m);
        let index = self.tail_index(m, order.get())?;
        let shared = self.existing_table(node, order);
        let shared = shared.filter(|shared| *shared == entry.at.pfn());
        let mut taken = self.take_frames(m, frames, node, 1 + u64::from(shared.is_some()))?;
        if m.inject(FailPoint::VmemmapPte) {
            self.drop_frames(m, frames, &mut taken);
            return Err(HvoError::Injected);
        }
        let mut take = || taken.pop(m).map(|page| self.memmap.pfn(page));
        let Some(frame) = take() else {
            return Err(HvoError::NoMemory);
        };
        m.copy_frame(frame, tail);
        self.memmap.page(frame).set_page_type(m, PageType::MEMMAP);
        let pte = Pte::new(frame, PteFlags::KERNEL).raw();
        if let Some((shared, table)) = shared.zip(take()) {
            let range = self.memmap.range(self.memmap.pfn(head), order);
            let slot = slot_around(range, page.address());
            let at = entry.at.as_u64() - shared.phys().as_u64();
            self.own_table(m, &slot, (node, order), (shared, table), |table| {
                m.write_phys(table.phys().offset(at), pte);
            });
        } else {
            // Release: pairs with the walker, which must see the frame filled.
            m.write_phys(entry.at, pte);
        }
        self.ledger.count_pages(1);
        self.ledger.count_unshared(node, index, 1, true);
        self.ledger.count_flush();
        // The write that follows would fault by way of the old translation.
        Flush::new(page_of(page)).flush(m);
        Ok(true)
    }

    /// The way back, if every struct page in that page of memmap is a plain tail again;
    /// whether it was.
    ///
    /// # Errors
    /// [`HvoError::NotOptimized`] or [`HvoError::SharedWithinFolio`].
    pub fn reshare_page<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        page: Page,
    ) -> Result<bool, HvoError> {
        let (entry, tail, order) = self.tail_entry(m, head, page)?;
        let (own, first) = (entry.pte.pfn(), page_of(page).start);
        let node = head.node(m);
        let record = tail_record(node, head.tail_info(order));
        let plain = |n| Page::at(first).nth(n).record(m) == record;
        if own == tail || first == head.address() || !(0..HEAD_PAGES).all(plain) {
            return Ok(false);
        }
        let index = self.tail_index(m, order.get())?;
        m.write_phys(entry.at, Pte::new(tail, PteFlags::KERNEL_RO).raw());
        let mut gather = Gather::new();
        gather.owe(page_of(page));
        let run = Run {
            first: own,
            pages: 1,
        };
        gather.push(m, self.memmap, run);
        self.ledger.count_unshared(node, index, 1, false);
        gather.finish(m, frames, self);
        Ok(true)
    }

    /// The entry that maps `page` of the folded block of `head`, the shared tail page of
    /// the block, and its order.
    fn tail_entry<M: Machine>(
        &self,
        m: &M,
        head: Page,
        page: Page,
    ) -> Result<(Entry, Pfn, Order), HvoError> {
        let order = page::folio_order(m, head);
        let inside = head <= page && page < head.nth(order.pages());
        if !SHARES_ACROSS_NODE {
            return Err(HvoError::SharedWithinFolio);
        }
        let tail = self
            .existing_tail(head.node(m), order)
            .filter(|_| inside && is_optimized(m, head))
            .ok_or(HvoError::NotOptimized(head))?;
        let entry = paging::walk(m, m.root(), page.address());
        debug_assert!(
            entry.level == Level::Pte && entry.is_leaf(),
            "{entry:?}: the memmap of a folded block has a table"
        );
        Ok((entry, tail, order))
    }

    /// Pages of memmap of the folded block of `head`, behind the first, that have a
    /// frame of their own.
    pub(super) fn unshared_pages<M: Machine>(
        &self,
        m: &M,
        head: Page,
        range: VirtRange,
        tail: Pfn,
    ) -> u64 {
        if !head.flags(m).contains(Flags::HAS_HWPOISONED) {
            return 0;
        }
        let own = |n: &u64| {
            let entry = paging::walk(m, m.root(), range.start.offset(n * PAGE_SIZE));
            entry.pte.pfn() != tail
        };
        (1..range.bytes() / PAGE_SIZE).filter(own).count() as u64
    }

    /// Gives all struct pages in `frame` the `compound_info` of `record`, and leaves what
    /// else they hold: the block is about to be unfolded.
    pub(super) fn set_infos<M: Machine>(&self, m: &M, frame: Pfn, record: &page::Record) {
        for n in 0..HEAD_PAGES {
            let at = frame.phys().offset(n * STRUCT_PAGE_SIZE);
            m.write_phys(at.offset(8), record[1]);
        }
    }
}

/// The page of memmap that `page` lies in.
fn page_of(page: Page) -> VirtRange {
    let start: VirtAddr = page.address().align_down(PAGE_SIZE);
    start.range(PAGE_SIZE)
}
