//! Demotion: one folded block becomes many smaller folded ones, in place. Promotion:
//! the way back.
//!
//! Of the memmap of the large block only the first frame is its own; of that of the
//! small ones, each one's first. So a demotion needs a frame for each part but the
//! first, and a promotion gives these back. All other entries change from one shared
//! tail page to another. The order of steps (docs/MODEL.md, "Demote and promote"):
//!
//! 1. everything that can fail: checks, shared tail, frames, filled in completely;
//! 2. the entries of the parts' heads, then those of their tails (promotion: tails,
//!    then heads), so that a tail never leads to what is not a head;
//! 3. one flush for the whole batch;
//! 4. the first frame's order (promotion: before 2); frames freed.

use super::gather::{Gather, Run};
use super::{HvoError, Vmemmap, is_optimized};
use crate::addr::{ENTRIES, NodeId, Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::frames::FrameSource;
use crate::machine::{FailPoint, Machine};
use crate::page::{
    self, CompoundInfo, Flags, HEAD_PAGES, Page, PageList, PageType, STRUCT_PAGE_SIZE,
    part_head_record, set_first_frame_order, tail_record, vmemmap_pages,
};
use crate::paging::{self, Level, Pte, PteFlags};

/// The entries of a large block, in the order in which a demotion stores them; a
/// promotion goes the other way, and a failure of either goes back.
struct Reshape {
    /// First struct page of the block.
    start: VirtAddr,
    /// Blocks that the large one consists of.
    parts: u64,
    /// Pages of memmap of each part.
    per_part: u64,
    large_tail: Pfn,
    small_tail: Pfn,
    /// The entries' table looked up last: the number of its first page of memmap.
    table: Option<(VirtAddr, PhysAddr)>,
}

impl Reshape {
    /// Entries that change: all but the first.
    const fn len(&self) -> u64 {
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

    /// Where the entry for page `n` of the block's memmap is.
    fn entry<M: Machine>(&mut self, m: &M, n: u64) -> PhysAddr {
        let at = self.start.offset(n * PAGE_SIZE);
        let window = at.align_down(ENTRIES * PAGE_SIZE);
        let first = match self.table {
            Some((cached, first)) if cached == window => first,
            _ => {
                let entry = paging::walk(m, m.root(), at);
                assert!(
                    entry.level == Level::Pte,
                    "{entry:?}: the memmap of a folded block has a table"
                );
                let first = entry.at.pfn().phys();
                self.table = Some((window, first));
                first
            }
        };
        first.offset(Level::Pte.index(at) * 8)
    }

    /// Stores the entry of step `n` as that of the parts; `frames` are for heads.
    fn make_small<M: Machine>(
        &mut self,
        m: &M,
        memmap: page::Memmap,
        n: u64,
        frames: &mut PageList,
    ) {
        let (page, is_head) = self.page(n);
        let pte = if is_head {
            let frame = frames.pop(m).expect("one was taken for each head");
            Pte::new(memmap.pfn(frame), PteFlags::KERNEL)
        } else {
            Pte::new(self.small_tail, PteFlags::KERNEL_RO)
        };
        m.write_phys(self.entry(m, page), pte.raw());
    }

    /// Stores the entry of step `n` as that of the large block; a head's frame goes to
    /// `frames`.
    fn make_large<M: Machine>(
        &mut self,
        m: &M,
        memmap: page::Memmap,
        n: u64,
        frames: &mut PageList,
    ) {
        let (page, is_head) = self.page(n);
        let at = self.entry(m, page);
        let old = Pte::from_raw(m.read_phys(at)).pfn();
        let pte = Pte::new(self.large_tail, PteFlags::KERNEL_RO);
        m.write_phys(at, pte.raw());
        if is_head {
            frames.push(m, memmap.page(old));
        }
    }
}

impl Vmemmap {
    /// Demotes the folded frozen blocks of order `from` on `list`, from the front on until
    /// one fails, each to folded ones of `to`, with one flush. Returns how many from the
    /// front are demoted; the next one is as it was. What the parts' heads have in
    /// common with the old one (flags, type) they have from it.
    #[doc(alias = "demote_free_hugetlb_folios")]
    pub fn demote_folios<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        list: &PageList,
        from: Order,
        to: Order,
    ) -> u64 {
        let mut gather = Gather::new();
        let mut done = 0;
        let mut next = list.first();
        while let Some(head) = next {
            if self.demote(m, frames, head, from, to, &mut gather).is_err() {
                break;
            }
            done += 1;
            next = list.next(m, head);
        }
        gather.finish(m, frames, self);
        let mut next = list.first();
        for _ in 0..done {
            let Some(head) = next else { break };
            // Until the flush some CPU's tails may have led to this head as of old.
            set_first_frame_order(m, head, to);
            next = list.next(m, head);
        }
        done
    }

    fn demote<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        from: Order,
        to: Order,
        gather: &mut Gather,
    ) -> Result<(), HvoError> {
        check_part(m, head, from)?;
        let (mut reshape, node) = self.reshape(m, frames, head, from, to)?;
        let mut supply = self.take_heads(m, frames, head, reshape.parts - 1, to)?;
        gather.owe(self.memmap.range(self.memmap.pfn(head), from));
        for n in 0..reshape.len() {
            if !m.inject(FailPoint::VmemmapPte) {
                reshape.make_small(m, self.memmap, n, &mut supply);
                continue;
            }
            for n in (0..n).rev() {
                reshape.make_large(m, self.memmap, n, &mut supply);
            }
            self.gather_heads(m, supply, gather);
            return Err(HvoError::Injected);
        }
        self.count_reshaped(m, node, from, to, true);
        Ok(())
    }

    /// Promotes the folded frozen blocks of order `to` that fill the naturally aligned
    /// block of order `from` at `head` to one of that order, with one flush; all but the
    /// first one's frames are freed.
    ///
    /// # Errors
    /// See [`HvoError`]; all blocks are then as they were.
    pub fn promote_folio<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        from: Order,
        to: Order,
    ) -> Result<(), HvoError> {
        let (mut reshape, node) = self.reshape(m, frames, head, from, to)?;
        for n in 0..reshape.parts {
            let part = head.nth(n * to.pages());
            check_part(m, part, to)?;
            if part.node(m) != node {
                return Err(HvoError::NotCompound(part));
            }
        }
        let mut gather = Gather::new();
        gather.owe(self.memmap.range(self.memmap.pfn(head), from));
        // From the first entry on there are tails that lead here.
        set_first_frame_order(m, head, from);
        let mut freed = PageList::new();
        let mut failed = false;
        for n in (0..reshape.len()).rev() {
            if !m.inject(FailPoint::VmemmapPte) {
                reshape.make_large(m, self.memmap, n, &mut freed);
                continue;
            }
            for n in n + 1..reshape.len() {
                reshape.make_small(m, self.memmap, n, &mut freed);
            }
            failed = true;
            break;
        }
        if !failed {
            self.gather_heads(m, freed, &mut gather);
            self.count_reshaped(m, node, from, to, false);
        }
        gather.finish(m, frames, self);
        if failed {
            set_first_frame_order(m, head, to);
            return Err(HvoError::Injected);
        }
        Ok(())
    }

    fn reshape<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        from: Order,
        to: Order,
    ) -> Result<(Reshape, NodeId), HvoError> {
        self.check_order(m, from.get())?;
        self.check_order(m, to.get())?;
        if to >= from {
            return Err(HvoError::OrderOutOfBounds(to.get()));
        }
        let start = head.address();
        if !start.is_aligned(vmemmap_pages(from) * PAGE_SIZE) {
            return Err(HvoError::HeadMisaligned(head));
        }
        let node = head.node(m);
        let reshape = Reshape {
            start,
            parts: from.pages() / to.pages(),
            per_part: vmemmap_pages(to),
            large_tail: self.shared_tail(m, frames, node, from)?,
            small_tail: self.shared_tail(m, frames, node, to)?,
            table: None,
        };
        Ok((reshape, node))
    }

    /// `count` frames, each the first of the memmap of a block of `order` whose head is
    /// as `head`; or none at all.
    fn take_heads<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        count: u64,
        order: Order,
    ) -> Result<PageList, HvoError> {
        let node = head.node(m);
        let supply = self.take_frames(m, frames, node, count)?;
        let record = part_head_record(m, head, order);
        let tail = tail_record(node, CompoundInfo::any_tail(order));
        let mut second = tail;
        second[5] = u64::from(order.get());
        let mut next = supply.first();
        while let Some(page) = next {
            let at = self.memmap.pfn(page).phys();
            m.fill_phys(at, &record, 1);
            m.fill_phys(at.offset(STRUCT_PAGE_SIZE), &second, 1);
            m.fill_phys(at.offset(2 * STRUCT_PAGE_SIZE), &tail, HEAD_PAGES - 2);
            page.set_page_type(m, PageType::MEMMAP);
            next = supply.next(m, page);
        }
        self.ledger.count_pages(supply.len());
        Ok(supply)
    }

    /// Lets the frames of heads go, after the flush.
    fn gather_heads<M: Machine>(&self, m: &M, mut heads: PageList, gather: &mut Gather) {
        while let Some(page) = heads.pop(m) {
            let first = self.memmap.pfn(page);
            gather.push(m, self.memmap, Run { first, pages: 1 });
        }
    }

    fn count_reshaped<M: Machine>(&self, m: &M, node: NodeId, from: Order, to: Order, down: bool) {
        let parts = from.pages() / to.pages();
        for (order, blocks, up) in [(from, 1, !down), (to, parts, down)] {
            if let Ok(index) = self.tail_index(m, order.get()) {
                self.ledger.count_many_folded(node, index, blocks, up);
            }
        }
    }
}

/// Checks that `head` is that of a folded frozen block of `order`.
fn check_part<M: Machine>(m: &M, head: Page, order: Order) -> Result<(), HvoError> {
    if !head.is_head(m) || head.is_tail(m) || page::folio_order(m, head) != order {
        return Err(HvoError::NotCompound(head));
    }
    if !is_optimized(m, head) {
        return Err(HvoError::NotOptimized(head));
    }
    if head.flags(m).contains(Flags::HAS_HWPOISONED) {
        return Err(HvoError::Poisoned(head));
    }
    match head.ref_count(m) {
        0 => Ok(()),
        count => Err(HvoError::NotFrozen(count)),
    }
}
