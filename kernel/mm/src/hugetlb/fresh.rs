//! Folios from the buddy allocator and back to it, many with one flush. None of
//! them is in a pool, and no lock is held.

use super::raw_hwp::is_unreliable;
use super::turns::Turns;
use super::{Backing, Event, Hstate, HugeTlb};
use crate::machine::{Level, Machine};
use crate::page::{self, Page, PageList, PageType, has_hwpoisoned};
use crate::vmemmap::{self, Fill};

/// Folios handled with one TLB flush.
pub(super) const BATCH: u64 = 512;

/// Folios on their way to the buddy allocator.
#[derive(Debug)]
#[must_use = "folios are lost unless they are dissolved"]
pub(super) struct Doomed {
    folded: PageList,
    plain: PageList,
    /// Folios that can never go, because it is not known which frames of them are broken.
    leaked: u64,
}

impl Doomed {
    pub(super) const fn new() -> Self {
        Self {
            folded: PageList::new(),
            plain: PageList::new(),
            leaked: 0,
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.folded.len() + self.plain.len() + self.leaked
    }

    /// Adds a frozen folio that is in no pool.
    pub(super) fn push<M: Machine>(&mut self, m: &M, head: Page) {
        if has_hwpoisoned(m, head) && is_unreliable(m, head) {
            self.leaked += 1;
            return;
        }
        let list = if vmemmap::is_optimized(m, head) {
            &mut self.folded
        } else {
            &mut self.plain
        };
        list.push(m, head);
    }
}

impl HugeTlb {
    /// Up to `want` new folios, frozen, folded if that is wanted and can be.
    #[doc(alias = "prep_and_add_allocated_folios")]
    pub(super) fn alloc_fresh<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        mut turns: Turns<'_>,
        want: u64,
    ) -> PageList {
        let mut batch = PageList::new();
        turns.visit(want, |node| {
            let memmap = backing.vmemmap.memmap();
            let prep = |block| prep(m, memmap.page(block), h);
            let nodes = backing.nodes;
            let block = nodes.alloc_above_watermark(m, h.order(), node, prep);
            if let Some(block) = block {
                batch.push(m, memmap.page(block));
            } else if !h.is_gigantic() {
                self.events.count(Event::AllocFail, 1);
            }
            block.is_some()
        });
        if !h.is_gigantic() {
            self.events.count(Event::AllocSuccess, batch.len());
        }
        self.fold_batch(m, backing, h, &batch);
        let mut next = batch.first();
        while let Some(head) = next {
            if !vmemmap::is_optimized(m, head) {
                page::prep_compound_tails(m, head, h.order());
            }
            next = batch.next(m, head);
        }
        batch
    }

    /// Folds the batch, if that is wanted, as far as it goes.
    pub(super) fn fold_batch<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        batch: &PageList,
    ) {
        if self.optimizes() && !batch.is_empty() {
            let Backing { nodes, vmemmap } = backing;
            let folded = vmemmap.optimize_folios(m, nodes, batch, h.order());
            self.events.count(Event::FoldFail, batch.len() - folded);
        }
    }

    /// Gives folios back to the buddy allocator; how many went. Those whose memmap
    /// cannot be restored for want of memory are in the pool after, as surplus that
    /// waits for it.
    #[doc(alias = "update_and_free_pages_bulk")]
    #[doc(alias = "bulk_vmemmap_restore_error")]
    pub(super) fn dissolve<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        doomed: Doomed,
    ) -> u64 {
        let Doomed {
            mut folded,
            mut plain,
            leaked,
        } = doomed;
        let order = h.order();
        let mut freed = plain.len() + leaked;
        if leaked > 0 {
            let size = h.name();
            m.log(
                Level::Warn,
                format_args!("HugeTLB: {leaked} pages of {size} leaked: broken frames unknown"),
            );
        }
        while let Some(head) = plain.pop(m) {
            page::undo_compound_tails(m, head, order);
            self.release(m, backing, h, head);
        }
        while !folded.is_empty() {
            let Backing { nodes, vmemmap } = backing;
            let restored = vmemmap.restore_folios(m, nodes, &folded, order, Fill::Unused);
            for _ in 0..restored {
                let head = folded.pop(m).expect("restored from the front");
                self.release(m, backing, h, head);
            }
            freed += restored;
            if !folded.is_empty() {
                // The first that is left was tried, those behind it were not.
                self.events.count(Event::RestoreFail, 1);
            }
            if restored == 0 {
                // Nothing can be gained by trying again now.
                let mut pools = h.pools.lock(m);
                while let Some(head) = folded.pop(m) {
                    pools.add_stuck(m, head);
                }
            }
        }
        freed
    }

    /// Unfolds one folio on its way to the buddy allocator; whether there was memory.
    pub(super) fn restore_unused<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        head: Page,
    ) -> bool {
        let Backing { nodes, vmemmap } = backing;
        if !vmemmap::is_optimized(m, head) {
            page::undo_compound_tails(m, head, h.order());
            return true;
        }
        let restored = vmemmap.restore_folio(m, nodes, head, h.order(), Fill::Unused);
        restored.is_ok()
    }

    /// Gives a folio with all its struct pages back, but for frames that are broken.
    pub(super) fn release<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, head: Page) {
        let broken = has_hwpoisoned(m, head);
        if broken {
            self.clear_hwpoison(m, backing, head);
        }
        let block = backing.vmemmap.memmap().pfn(head);
        backing.nodes.free_huge(m, block, h.order(), broken, || {
            head.set_page_type(m, PageType::NONE);
            page::undo_compound_head(m, head, h.order());
        });
    }
}

#[doc(alias = "prep_new_hugetlb_folio")]
fn prep<M: Machine>(m: &M, head: Page, h: &Hstate) {
    page::prep_compound_head(m, head, h.order());
    head.set_page_type(m, PageType::HUGETLB);
}
