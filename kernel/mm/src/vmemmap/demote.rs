//! Demotion: one folded block becomes many smaller folded ones, in place. Promotion:
//! the way back.
//!
//! Of the memmap of the large block only the first frame is its own; of that of the
//! small ones, each one's first. So a demotion needs a frame for each part but the
//! first, and a promotion gives these back. All other entries change from one shared
//! tail page to another. The order of steps (docs/MODEL.md, "Demote and promote"):
//!
//! 1. everything that can fail: checks, shared tail and table, frames, filled in completely;
//!    a slot that shares its table and will hold a head gets one of its own with the same
//!    entries;
//! 2. the entries of the parts' heads, then those of their tails (promotion: tails,
//!    then heads), so that a tail never leads to what is not a head; a slot that shares its
//!    table before and after changes from one shared table to the other;
//! 3. one flush for the whole batch;
//! 4. the first frame's order (promotion: before 2); frames freed.
//!
//! After a promotion every slot behind the first shares its table again.

use super::gather::{Gather, Run};
use super::reshape::{Reshape, Shared};
use super::slot::{Slot, slots};
use super::{HvoError, Vmemmap, is_optimized};
use crate::addr::{NodeId, Order, PAGE_SIZE};
use crate::frames::FrameSource;
use crate::machine::{FailPoint, Machine};
use crate::page::{
    self, CompoundInfo, Flags, HEAD_PAGES, Page, PageList, PageType, STRUCT_PAGE_SIZE,
    part_head_record, set_first_frame_order, tail_record, vmemmap_pages,
};

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
        let mut reshape = self.reshape(m, frames, head, from, to)?;
        // It is there if any slot of the block shares it.
        reshape.large.table = self.existing_table(reshape.node, from);
        reshape.small.table = self.shared_table(m, frames, reshape.node, to);
        let own = reshape.to_own(m).count() as u64;
        let mut tables = self.take_frames(m, frames, reshape.node, own)?;
        let supply = self.take_heads(m, frames, head, reshape.parts - 1, to);
        let mut supply = supply.inspect_err(|_| self.drop_frames(m, frames, &mut tables))?;
        gather.owe(reshape.range);
        let mut stored = 0;
        let mut result = self.give_tables(m, &reshape, &mut tables);
        while result.is_ok() && stored < reshape.len() {
            if m.inject(FailPoint::VmemmapPte) {
                result = Err(HvoError::Injected);
                break;
            }
            reshape.make_small(m, self, stored, &mut supply);
            stored += 1;
        }
        if result.is_err() {
            for n in (0..stored).rev() {
                reshape.make_large(m, self, n, &mut supply);
            }
            let of = (reshape.node, from);
            self.share_tables(m, of, reshape.range, reshape.large.table, gather);
            self.drop_frames(m, frames, &mut tables);
            self.gather_heads(m, supply, gather);
            return result;
        }
        self.count_reshaped(m, reshape.node, from, to, true);
        Ok(())
    }

    /// Gives each slot that needs it one of `tables`, with the entries that it has.
    fn give_tables<M: Machine>(
        &self,
        m: &M,
        reshape: &Reshape,
        tables: &mut PageList,
    ) -> Result<(), HvoError> {
        let of = (reshape.node, reshape.large.order);
        for slot in reshape.to_own(m) {
            if m.inject(FailPoint::VmemmapPmd) {
                return Err(HvoError::Injected);
            }
            if let Some((shared, table)) = reshape.large.table.zip(tables.pop(m)) {
                let table = self.memmap.pfn(table);
                self.own_table(m, &slot, of, (shared, table), |_| ());
            }
        }
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
        let mut reshape = self.reshape(m, frames, head, from, to)?;
        let node = reshape.node;
        for n in 0..reshape.parts {
            let part = head.nth(n * to.pages());
            check_part(m, part, to)?;
            if part.node(m) != node {
                return Err(HvoError::NotCompound(part));
            }
        }
        reshape.large.table = self.shared_table(m, frames, node, from);
        reshape.small.table = self.existing_table(node, to);
        let small = reshape.small.table;
        let shares = |slot: Slot| small.is_some() && slot.table(m) == small;
        if reshape.large.table.is_none() && slots(reshape.range).any(shares) {
            return Err(HvoError::NoMemory);
        }
        let mut gather = Gather::new();
        gather.owe(reshape.range);
        // From the first entry on there are tails that lead here.
        set_first_frame_order(m, head, from);
        let mut freed = PageList::new();
        let mut failed = false;
        for n in (0..reshape.len()).rev() {
            if !m.inject(FailPoint::VmemmapPte) {
                reshape.make_large(m, self, n, &mut freed);
                continue;
            }
            for n in n + 1..reshape.len() {
                reshape.make_small(m, self, n, &mut freed);
            }
            failed = true;
            break;
        }
        if !failed {
            let table = reshape.large.table;
            self.share_tables(m, (node, from), reshape.range, table, &mut gather);
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
    ) -> Result<Reshape, HvoError> {
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
        let shared = |order| {
            let tail = self.shared_tail(m, frames, node, order)?;
            Ok(Shared {
                order,
                tail,
                table: None,
            })
        };
        Ok(Reshape {
            range: self.memmap.range(self.memmap.pfn(head), from),
            node,
            parts: from.pages() / to.pages(),
            per_part: vmemmap_pages(to),
            large: shared(from)?,
            small: shared(to)?,
            last: None,
        })
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
