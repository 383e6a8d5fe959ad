//! Folding in two steps, as Linux does it: leaves become tables of the same frames and rights,
//! with a flush, before any entry changes. To be measured against one step (docs/adr/0003).

use core::sync::atomic::Ordering;

use super::Vmemmap;
use super::gather::Gather;
use super::slot::{Slot, slots};
use crate::addr::{Order, Pfn, VirtRange};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{Page, PageType};
use crate::paging::{self, Entry, Level, Pte, PteFlags};

impl Vmemmap {
    /// Makes later folds take two steps, or one.
    pub fn set_two_steps(&self, on: bool) {
        // Relaxed: either way is right at any time.
        self.two_steps.store(on, Ordering::Relaxed);
    }

    /// Whether folds take two steps.
    pub(super) fn takes_two_steps(&self) -> bool {
        self.two_steps.load(Ordering::Relaxed)
    }

    /// The first step for all of `heads`, with one flush. A leaf that there is no table for stays;
    /// then the fold has none either.
    #[doc(alias = "vmemmap_remap_split")]
    pub(super) fn split_leaves<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        heads: impl Iterator<Item = Page>,
        order: Order,
    ) {
        let mut gather = Gather::new();
        for head in heads {
            if self.check_block(m, head, order).is_err() {
                continue;
            }
            let range = self.memmap.range(self.memmap.pfn(head), order);
            let node = head.node(m);
            for slot in slots(range) {
                let leaf = slot.entry(m);
                if leaf.level != Level::Pmd {
                    continue;
                }
                let Some(table) = frames.alloc(m, Order::PAGE, Placement::Prefer(node)) else {
                    break;
                };
                if self.split_leaf(m, leaf, table) {
                    gather.owe(whole(&slot));
                } else {
                    frames.free(m, table, Order::PAGE);
                }
            }
        }
        gather.finish(m, frames, self);
    }

    /// Replaces `leaf` by `table`, filled with the same frames and rights. Returns whether the entry
    /// was still that leaf; if not, nobody has seen the table.
    fn split_leaf<M: Machine>(&self, m: &M, leaf: Entry, table: Pfn) -> bool {
        let page = self.memmap.page(table);
        paging::fill_split(m, leaf, table);
        page.set_page_type(m, PageType::TABLE);
        // Release: pairs with the walker, which must see the table's entries.
        let new = Pte::new(table, PteFlags::TABLE).raw();
        let split = m.compare_exchange_phys(leaf.at, leaf.pte.raw(), new);
        if split.is_err() {
            page.set_page_type(m, PageType::NONE);
            return false;
        }
        self.ledger.count_tables(1, true);
        true
    }
}

/// What the leaf of `slot` maps.
fn whole(slot: &Slot) -> VirtRange {
    let span = Level::Pmd.span();
    slot.start.align_down(span).range(span)
}
