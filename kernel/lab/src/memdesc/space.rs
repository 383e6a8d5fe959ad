//! Free space in a map: which blocks are free, and storing words.

use super::error::MemdescError;
use super::fold;
use super::layout::StructPage;
use super::lookup::page_memdesc;
use super::map::{MemdescMap, State};
use super::page_flags::PageFlags;
use super::word::{Memdesc, MemdescType};
use mm::addr::{Order, Pfn};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::paging::{self, PteFlags};

impl<L: StructPage> MemdescMap<L> {
    /// A free block of `order`, the lowest there is.
    pub(super) fn find_free<M: Machine>(&self, m: &M, order: Order) -> Option<Pfn> {
        let range = self.range();
        let mut first = range.start;
        while first.offset(order.pages()) <= range.end {
            if self.is_free(m, first, order) {
                return Some(first);
            }
            first = first.offset(order.pages());
        }
        None
    }

    fn is_free<M: Machine>(&self, m: &M, first: Pfn, order: Order) -> bool {
        let block = first.block(order);
        block
            .iter()
            .all(|pfn| self.page_memdesc(m, self.page(pfn)).is(MemdescType::Free))
    }

    /// Makes the memmap of the free block at `first` fit to be written as one of
    /// `order`: whatever is folded there, but not as exactly this block, is unfolded.
    /// Whether it is folded as this block.
    pub(super) fn make_room<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        state: &mut State,
        first: Pfn,
        order: Order,
    ) -> Result<bool, MemdescError> {
        let end = first.offset(order.pages());
        let mut at = first;
        while at < end {
            let word = self.page_memdesc(m, self.page(at));
            let Some(folded) = word.folded_order() else {
                at = at.offset(1);
                continue;
            };
            if folded == order {
                return Ok(true);
            }
            let block = at.align_down(folded);
            self.unfold_entries(m, frames, state, (block, folded))?;
            self.free_pages_of(m, block, folded, Memdesc::FREE);
            at = block.offset(folded.pages());
        }
        Ok(false)
    }

    /// Stores `word` in every page of a block none of which is broken. A shared frame
    /// is written by physical address, once: every page behind it changes with it.
    pub(super) fn set_words<M: Machine>(&self, m: &M, first: Pfn, order: Order, word: Memdesc) {
        self.by_frame(m, first, order, |at, count, writable| {
            if writable {
                m.store64_strided(at.memdesc_address(), L::SIZE, count, word.raw());
            }
        });
        self.set_shared_words(m, first, order, word);
    }

    /// Stores `word` in every page of a block that is not broken or reserved and clears
    /// what is per page; a broken page is nobody's from now on.
    pub(super) fn free_pages_of<M: Machine>(&self, m: &M, first: Pfn, order: Order, word: Memdesc) {
        self.by_frame(m, first, order, |page, count, writable| {
            for page in (0..count).map(|n| page.nth(n)).filter(|_| writable) {
                let flags = self.page_flags(m, page);
                if flags.contains(PageFlags::RESERVED) {
                    continue;
                }
                let broken = flags.contains(PageFlags::HWPOISON);
                let clean = PageFlags::of_node(self.node()).with(PageFlags::HWPOISON, broken);
                let word = if broken { Memdesc::POISONED } else { word };
                m.store64(page.memdesc_address(), word.raw());
                if let Some(at) = L::FLAGS.filter(|_| flags != clean) {
                    m.store64(page.address().offset(at), clean.raw());
                }
            }
        });
        self.set_shared_words(m, first, order, word);
    }

    /// Stores `word` in the frame that a folded block's memmap shares, if it is folded.
    fn set_shared_words<M: Machine>(&self, m: &M, first: Pfn, order: Order, word: Memdesc) {
        let Some(frame) = fold::shared_frame(m, self.memmap_of(first, order)) else {
            return;
        };
        for n in 0..L::PER_FRAME {
            m.write_phys(frame.phys().offset(n * L::SIZE + L::MEMDESC), word.raw());
        }
    }

    /// Calls `each` for the part of a block's memmap in each frame: first page, number
    /// of pages, whether the frame can be written.
    fn by_frame<M: Machine>(
        &self,
        m: &M,
        first: Pfn,
        order: Order,
        mut each: impl FnMut(super::Page<L>, u64, bool),
    ) {
        let count = order.pages().min(L::PER_FRAME);
        for n in 0..order.pages() / count {
            let page = self.page(first.offset(n * count));
            let entry = paging::walk(m, m.root(), page.address());
            each(page, count, entry.pte.flags().contains(PteFlags::WRITABLE));
        }
    }

    /// Whether every page of a block holds `word`. For checks.
    pub fn all_hold<M: Machine>(&self, m: &M, first: Pfn, order: Order, word: Memdesc) -> bool {
        let words = first.block(order).iter().map(|pfn| self.page(pfn));
        words
            .map(|page| page_memdesc(page, |at| m.load64(at)))
            .all(|found| found == word)
    }
}
