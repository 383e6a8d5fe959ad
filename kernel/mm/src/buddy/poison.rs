//! Broken frames: out of the allocator, and back when they turn out to be whole.
//!
//! A broken frame has [`Flags::HWPOISON`] and no mark of an allocation, so that no free
//! block ever takes it in and nobody can free it by mistake (INV-5). One that breaks while
//! the kernel itself has it is marked at once, keeps its owner, and stays out when that
//! gives it back.

use super::Buddy;
use crate::addr::{Order, Pfn, PfnRange};
use crate::machine::Machine;
use crate::page::{Flags, PageType, allocated_order, any_page_hwpoisoned, assert_unused};
use crate::vmemmap::is_optimized;

impl Buddy {
    /// Takes the free frame `pfn` out for good and marks it broken; what is left of its
    /// block stays free. Whether it was free.
    #[doc(alias = "take_page_off_buddy")]
    pub fn take_off<M: Machine>(&mut self, m: &M, pfn: Pfn) -> bool {
        let Some((mut block, mut order)) = self.free_block_around(m, pfn) else {
            return false;
        };
        let first = self.memmap.page(block);
        self.free[order.index()].remove(m, first);
        first.set_page_type(m, PageType::NONE);
        first.set_private(m, 0);
        self.free_pages -= order.pages();
        while let Some(half) = order.down() {
            let upper = block.offset(half.pages());
            if pfn < upper {
                self.insert(m, upper, half);
            } else {
                self.insert(m, block, half);
                block = upper;
            }
            order = half;
        }
        let page = self.memmap.page(pfn);
        page.change_flag(m, Flags::HWPOISON, true);
        true
    }

    /// Marks the frame `pfn` broken, which is neither free nor part of a huge page: it stays with
    /// its owner, and out of use when that frees it. Returns whether it was marked. A page of a
    /// folded compound page is not, since its struct page is shared, or may be at any time.
    #[doc(alias = "SetPageHWPoison")]
    pub fn mark_in_use<M: Machine>(&mut self, m: &M, pfn: Pfn) -> bool {
        let page = self.memmap.page(pfn);
        let head = page.compound_head(m);
        // Only as long as it is a head: the mark goes with that flag, in one exchange.
        let is_compound = head.update_flags(m, |seen| {
            seen.contains(Flags::HEAD)
                .then_some(seen.with(Flags::HAS_HWPOISONED))
        });
        // Behind the exchange: a fold sets its flag by one, too, and then looks at ours (HP-12).
        if is_compound && is_optimized(m, head) {
            head.change_flag(m, Flags::HAS_HWPOISONED, false);
            return false;
        }
        page.change_flag(m, Flags::HWPOISON, true);
        self.broken_in_use += 1;
        true
    }

    /// Takes a frame in that was broken and is not: the way back from
    /// [`Buddy::take_off`] and, if its owner still has it, from [`Buddy::mark_in_use`].
    ///
    /// # Panics
    /// If the frame is not marked broken, or, in checked builds, in use.
    #[doc(alias = "put_page_back_buddy")]
    pub fn put_back<M: Machine>(&mut self, m: &M, pfn: Pfn) {
        let page = self.memmap.page(pfn);
        assert!(
            page.flags(m).contains(Flags::HWPOISON),
            "BUG: {pfn:?} is put back but is not marked broken"
        );
        page.change_flag(m, Flags::HWPOISON, false);
        let reserved = page.flags(m).contains(Flags::RESERVED);
        if reserved || self.block_around(m, pfn, allocated_order).is_some() {
            self.broken_in_use -= 1;
            let head = page.compound_head(m);
            if head.is_head(m) && !any_page_hwpoisoned(m, head) {
                head.change_flag(m, Flags::HAS_HWPOISONED, false);
            }
            return;
        }
        assert_unused(m, page, Order::PAGE);
        self.insert_merged(m, pfn, Order::PAGE);
    }

    /// Takes back the block of `order` at `block` but for those of its frames that are
    /// marked broken; how many it took.
    ///
    /// # Panics
    /// As [`Buddy::free`] does, broken frames aside.
    #[doc(alias = "free_has_hwpoisoned")]
    pub fn free_sound<M: Machine>(&mut self, m: &M, block: Pfn, order: Order) -> u64 {
        if let Err(misuse) = self.check_free(m, block, order) {
            panic!("BUG: {misuse}");
        }
        self.memmap.page(block).set_index(m, 0);
        let mut run = PfnRange::new(block, block);
        let mut freed = 0;
        for pfn in block.block(order).iter() {
            let broken = self.memmap.page(pfn).flags(m).contains(Flags::HWPOISON);
            if broken {
                freed += self.free_clean_run(m, run);
                run.start = pfn.offset(1);
            }
            run.end = pfn.offset(1);
        }
        freed + self.free_clean_run(m, run)
    }

    /// Inserts frames that nobody has; how many.
    fn free_clean_run<M: Machine>(&mut self, m: &M, run: PfnRange) -> u64 {
        for (block, order) in run.blocks(Order::MAX) {
            assert_unused(m, self.memmap.page(block), order);
            self.insert_merged(m, block, order);
        }
        run.pages()
    }
}
