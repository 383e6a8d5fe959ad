//! The buddy allocator of one node: free blocks of 2^order pages, orders 0 to 22.
//!
//! A free block's first page has type buddy and its order in `private`; the free
//! lists run through `lru`. Nothing else of a free block's memmap is written, so
//! moving a 16 GiB block costs what moving a 4 KiB page does. Gigantic pages are
//! ordinary blocks here.
//!
//! An allocated block carries a mark with its order in its first page's `index`,
//! so that a double free, a wrong order and a foreign frame are each told apart.

mod poison;

use crate::addr::{NodeId, Order, Pfn, PfnRange};
use crate::machine::Machine;
use crate::page::{
    self, Flags, Memmap, Page, PageList, PageType, allocated_order, assert_unused, mark_allocated,
};
use crate::paging;

/// A free that must not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misuse {
    /// The block is free already.
    #[error("double free: {block:?} lies in the free block of order {order} at {free:?}")]
    DoubleFree {
        /// What was to be freed.
        block: Pfn,
        /// The free block that it lies in.
        free: Pfn,
        /// That block's order.
        order: Order,
    },
    /// The block was allocated with another order.
    #[error("free with the wrong order: {block:?} has order {allocated}, freed as {freed}")]
    WrongOrder {
        /// What was to be freed.
        block: Pfn,
        /// The order it has.
        allocated: Order,
        /// The order it was to be freed with.
        freed: Order,
    },
    /// No allocated block starts there: the middle of one, a reserved frame, one
    /// of another node, or no RAM.
    #[error("free of a foreign frame: no allocated block starts at {block:?}")]
    Foreign {
        /// What was to be freed.
        block: Pfn,
    },
    /// No block of that order can start there.
    #[error("free of a misaligned block: {block:?} as order {order}")]
    Misaligned {
        /// What was to be freed.
        block: Pfn,
        /// The order it was to be freed with.
        order: Order,
    },
}

/// Free blocks of one node.
#[derive(Debug)]
#[doc(alias = "struct zone")]
pub struct Buddy {
    node: NodeId,
    memmap: Memmap,
    #[doc(alias = "free_area")]
    free: [PageList; Order::COUNT],
    free_pages: u64,
    /// Frames in use that are marked broken: kept when they are freed.
    broken_in_use: u64,
}

impl Buddy {
    /// An allocator for `node` with nothing in it.
    #[must_use]
    pub const fn new(node: NodeId, memmap: Memmap) -> Self {
        Self {
            node,
            memmap,
            free: [const { PageList::new() }; Order::COUNT],
            free_pages: 0,
            broken_in_use: 0,
        }
    }

    /// Free pages.
    #[must_use]
    #[doc(alias = "NR_FREE_PAGES")]
    pub const fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Free blocks of exactly `order`, as `/proc/buddyinfo` counts them.
    #[must_use]
    pub const fn free_blocks(&self, order: Order) -> u64 {
        self.free[order.index()].len()
    }

    /// First frames of the free blocks of exactly `order`, for reports.
    pub fn blocks<'a, M: Machine>(
        &'a self,
        m: &'a M,
        order: Order,
    ) -> impl Iterator<Item = Pfn> + 'a {
        let list = &self.free[order.index()];
        core::iter::successors(list.first(), move |page| list.next(m, *page))
            .map(|page| self.memmap.pfn(page))
    }

    /// Takes over `range` at boot: struct pages clean, of this node, never
    /// allocated before.
    #[doc(alias = "memblock_free_pages")]
    pub fn add_range<M: Machine>(&mut self, m: &M, range: PfnRange) {
        for (block, order) in range.blocks(Order::MAX) {
            let first = self.memmap.page(block);
            assert!(
                first.node(m) == self.node,
                "{range:?} given to {:?} but its struct pages say {:?}",
                self.node,
                first.node(m)
            );
            assert_unused(m, first, order);
            self.insert_merged(m, block, order);
        }
    }

    /// A block of `order`, marked allocated, or `None` if there is none.
    #[doc(alias = "__rmqueue_smallest")]
    pub fn alloc<M: Machine>(&mut self, m: &M, order: Order) -> Option<Pfn> {
        let mut have = Order::range_inclusive(order, Order::MAX)
            .find(|have| !self.free[have.index()].is_empty())?;
        let page = self.free[have.index()].pop(m)?;
        page.set_page_type(m, PageType::NONE);
        page.set_private(m, 0);
        self.free_pages -= have.pages();
        let block = self.memmap.pfn(page);
        while have > order {
            have = have.down().expect("above `order`");
            self.insert(m, block.offset(have.pages()), have);
        }
        assert_unused(m, page, order);
        mark_allocated(m, page, order);
        Some(block)
    }

    /// Takes back the block of `order` at `block`, all but what is marked broken.
    ///
    /// # Panics
    /// By name, if the block is free already, was allocated with another order,
    /// never came from an allocator, or its struct pages are not clean.
    #[doc(alias = "__free_one_page")]
    pub fn free<M: Machine>(&mut self, m: &M, block: Pfn, order: Order) {
        if self.broken_in_use == 0 {
            return self.free_whole(m, block, order);
        }
        let freed = self.free_sound(m, block, order);
        self.broken_in_use -= order.pages() - freed;
    }

    /// [`Buddy::free`] of a block in which nothing is marked broken.
    ///
    /// # Panics
    /// As that does.
    pub fn free_whole<M: Machine>(&mut self, m: &M, block: Pfn, order: Order) {
        self.take_mark(m, block, order);
        self.insert_merged(m, block, order);
    }

    /// Takes back the frames of `range`, each an allocation of order 0, in the
    /// largest blocks that they form, up to the first that another node owns or that is
    /// marked broken. The first is this node's; if it is broken it alone is taken, and kept.
    /// Returns how many were taken.
    ///
    /// # Panics
    /// As [`Buddy::free`] does.
    pub fn free_run<M: Machine>(&mut self, m: &M, range: PfnRange) -> u64 {
        let own = Flags::empty().with_node(self.node);
        let is_broken = |flags: Flags| flags.contains(Flags::HWPOISON);
        if is_broken(self.memmap.page(range.start).flags(m)) {
            self.free(m, range.start, Order::PAGE);
            return 1;
        }
        let single = page::allocated_mark(Order::PAGE);
        let end = range.iter().find(|&pfn| {
            let page = self.memmap.page(pfn);
            let flags = page.flags(m);
            // One look settles the usual case; the rest is for `take_mark` to name.
            let plain = flags == own && page.index(m) == single;
            if plain && !page::PAGE_CHECKS {
                page.set_index(m, 0);
                return false;
            }
            if (flags.node() != self.node || is_broken(flags)) && pfn != range.start {
                return true;
            }
            self.take_mark(m, pfn, Order::PAGE);
            false
        });
        let run = PfnRange::new(range.start, end.unwrap_or(range.end));
        for (block, order) in run.blocks(Order::MAX) {
            self.insert_merged(m, block, order);
        }
        run.pages()
    }

    /// Makes every frame of the allocated block an allocation of its own.
    #[doc(alias = "split_page")]
    pub fn split<M: Machine>(&mut self, m: &M, block: Pfn, order: Order) {
        let first = self.memmap.page(block);
        let found = allocated_order(m, first);
        assert!(
            found == Some(order),
            "split of {block:?} as order {order}, allocated {found:?}"
        );
        for n in 0..order.pages() {
            mark_allocated(m, first.nth(n), Order::PAGE);
        }
    }

    /// Whether `block` may be freed as a block of `order`.
    ///
    /// # Errors
    /// The kind of misuse that freeing it would be.
    pub fn check_free<M: Machine>(&self, m: &M, block: Pfn, order: Order) -> Result<(), Misuse> {
        if !block.is_aligned(order) {
            return Err(Misuse::Misaligned { block, order });
        }
        check_populated(m, self.memmap, block)?;
        let first = self.memmap.page(block);
        let flags = first.flags(m);
        if flags.contains(Flags::RESERVED) || flags.node() != self.node {
            return Err(Misuse::Foreign { block });
        }
        match allocated_order(m, first) {
            Some(allocated) if allocated == order => Ok(()),
            Some(allocated) => Err(Misuse::WrongOrder {
                block,
                allocated,
                freed: order,
            }),
            None => Err(match self.free_block_around(m, block) {
                Some((free, order)) => Misuse::DoubleFree { block, free, order },
                None => Misuse::Foreign { block },
            }),
        }
    }

    fn take_mark<M: Machine>(&self, m: &M, block: Pfn, order: Order) {
        if let Err(misuse) = self.check_free(m, block, order) {
            panic!("BUG: {misuse}");
        }
        let first = self.memmap.page(block);
        assert_unused(m, first, order);
        first.set_index(m, 0);
    }

    /// The free block that `pfn` lies in, if any.
    fn free_block_around<M: Machine>(&self, m: &M, pfn: Pfn) -> Option<(Pfn, Order)> {
        self.block_around(m, pfn, free_order)
    }

    /// The block that `pfn` lies in, if `order_of` says of a first page that one does.
    fn block_around<M: Machine>(
        &self,
        m: &M,
        pfn: Pfn,
        order_of: fn(&M, Page) -> Option<Order>,
    ) -> Option<(Pfn, Order)> {
        Order::range_inclusive(Order::PAGE, Order::MAX).find_map(|order| {
            let block = pfn.align_down(order);
            let around = order_of(m, self.populated(m, block, pfn)?)?;
            (around >= order).then_some((block, around))
        })
    }

    /// The struct page of `pfn`, if `near`'s section or its own is populated.
    ///
    /// Blocks below a section's size share their section with their buddy. The walk
    /// is safe beside folding on other CPUs: interrupts are off under the lock, and a
    /// table that falls out of the vmemmap is freed after a flush that waits for us.
    fn populated<M: Machine>(&self, m: &M, pfn: Pfn, near: Pfn) -> Option<Page> {
        let page = self.memmap.page(pfn);
        let same_section = pfn.align_down(Memmap::SECTION) == near.align_down(Memmap::SECTION);
        (same_section || paging::leaf(m, m.root(), page.address()).is_some()).then_some(page)
    }

    fn insert<M: Machine>(&mut self, m: &M, block: Pfn, order: Order) {
        let page = self.memmap.page(block);
        page.set_private(m, u64::from(order.get()));
        page.set_page_type(m, PageType::BUDDY);
        self.free[order.index()].push(m, page);
        self.free_pages += order.pages();
    }

    fn insert_merged<M: Machine>(&mut self, m: &M, mut block: Pfn, mut order: Order) {
        while let Some(up) = order.up() {
            let buddy = block.buddy(order);
            let Some(page) = self.populated(m, buddy, block) else {
                break;
            };
            if free_order(m, page) != Some(order) || page.node(m) != self.node {
                break;
            }
            self.free[order.index()].remove(m, page);
            page.set_page_type(m, PageType::NONE);
            page.set_private(m, 0);
            self.free_pages -= order.pages();
            block = block.align_down(up);
            order = up;
        }
        self.insert(m, block, order);
    }
}

/// The order of the free block that starts at `page`, if one does.
fn free_order<M: Machine>(m: &M, page: Page) -> Option<Order> {
    (page.page_type(m) == PageType::BUDDY)
        .then(|| u8::try_from(page.private(m)).ok().and_then(Order::new))
        .flatten()
}

/// In checked builds, whether `block` has a struct page to look at at all.
///
/// # Errors
/// [`Misuse::Foreign`]: no allocator ever had that frame.
pub(crate) fn check_populated<M: Machine>(m: &M, memmap: Memmap, block: Pfn) -> Result<(), Misuse> {
    let page = memmap.page(block).address();
    if page::PAGE_CHECKS && paging::leaf(m, m.root(), page).is_none() {
        return Err(Misuse::Foreign { block });
    }
    Ok(())
}
