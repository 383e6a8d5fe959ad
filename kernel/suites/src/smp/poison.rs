//! Flush, then free (INV-3), made visible: frames are poisoned when they are freed.

use mm::addr::{ENTRIES, Order, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::node::Nodes;

/// What a freed frame is filled with. As a table entry it maps nothing; no field of a
/// struct page ever holds it.
#[doc(alias = "PAGE_POISON")]
pub(super) const POISON: u64 = 0x5d5d_5d5d_5d5d_5d5c;

/// The nodes, but what is freed is poisoned first. Whoever frees before the flush shows
/// [`POISON`] to readers with stale translations.
#[derive(Debug)]
pub(super) struct Poisoning<'a>(pub(super) &'a Nodes);

impl<M: Machine> FrameSource<M> for Poisoning<'_> {
    fn alloc(&self, m: &M, order: Order, placement: Placement) -> Option<Pfn> {
        self.0.alloc(m, order, placement)
    }

    fn free(&self, m: &M, block: Pfn, order: Order) {
        m.fill_words(block.phys(), POISON, order.pages() * ENTRIES);
        self.0.free(m, block, order);
    }

    fn split(&self, m: &M, block: Pfn, order: Order) {
        self.0.split(m, block, order);
    }

    fn free_pages(&self, m: &M, first: Pfn, pages: u64) {
        m.fill_words(first.phys(), POISON, pages * ENTRIES);
        self.0.free_pages(m, first, pages);
    }
}
