//! What a case is given to work with, and what most cases do.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::sweep::{Kept, clear_scratch};
use ktest::{Outcome, Stop, check_eq, skip};
use mm::addr::{NodeId, Order, Pfn, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::hugetlb::{Backing, Hstate};
use mm::machine::{Level, Machine};
use mm::page::encoding::Sharing;
use mm::page::{self, Page};
use mm::paging;
use mm::system::Mm;
use mm::vmemmap::{Fill, RamRange, Totals};

/// A machine with its memory manager up.
#[derive(Debug)]
pub struct Env<'a, M: Machine> {
    /// The machine.
    pub m: &'a M,
    /// Its memory manager.
    pub mm: &'a Mm,
    /// Its RAM, sorted.
    pub ram: &'a [RamRange],
    /// 512 GiB of address space, aligned to that, with nothing mapped in it.
    pub scratch: VirtAddr,
    /// What no case has made.
    pub kept: &'a Kept,
}

/// Numbers that come back to what they were when a case leaves no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Free pages plus those that the memmap and its tables take.
    owned: u64,
    saved: u64,
    folded: u64,
    memmap: u64,
}

impl<'a, M: Machine> Env<'a, M> {
    /// Struct page of `pfn`.
    pub fn page(&self, pfn: Pfn) -> Page {
        self.mm.vmemmap.memmap().page(pfn)
    }

    /// What huge pages are made from.
    pub fn backing(&self) -> Backing<'a> {
        self.mm.backing()
    }

    /// The ledger now.
    pub fn totals(&self) -> Totals {
        self.mm.vmemmap.ledger().totals()
    }

    /// Linux's two counters added: frames that hold struct pages.
    pub fn memmap_pages(&self) -> u64 {
        let totals = self.totals();
        totals.pages + totals.boot_pages
    }

    /// The numbers now, to compare with [`Env::same_as`] later.
    pub fn snapshot(&self) -> Snapshot {
        let t = self.totals();
        let free = self.mm.nodes.total_free(self.m);
        Snapshot {
            owned: free + t.pages + t.boot_pages + t.tables + t.tails,
            saved: t.saved,
            folded: t.folded,
            memmap: t.pages + t.boot_pages,
        }
    }

    /// Fails unless everything is as at `before`.
    pub fn same_as(&self, before: &Snapshot) -> Outcome {
        check_eq!(self.snapshot(), *before, "left behind");
        Ok(())
    }

    /// A block of `order`, from this CPU's node if it can be, or a skip that says so.
    pub fn block(&self, order: Order) -> Result<Pfn, Stop> {
        match self.alloc(order, Placement::local(self.m)) {
            Some(block) => Ok(block),
            None => skip!("no free block of order {order} on this machine"),
        }
    }

    /// Takes a block of `order`, if there is one where `placement` allows.
    pub fn alloc(&self, order: Order, placement: Placement) -> Option<Pfn> {
        self.mm.nodes.alloc(self.m, order, placement)
    }

    /// Gives a block back.
    pub fn free(&self, block: Pfn, order: Order) {
        self.mm.nodes.free(self.m, block, order);
    }

    /// Gives back what a case with this `outcome` still holds, if it ended early.
    pub fn sweep_after(&self, outcome: &Outcome) {
        let Err(stop) = outcome else { return };
        // Said first: on a machine that the case has found broken, the sweep may be the end.
        if let Stop::Failed(failure) = stop {
            self.m.log(Level::Warn, format_args!("{failure}"));
        }
        self.kept.sweep(self);
    }

    /// Nothing, to which blocks may be added: they are given back with it.
    pub fn hold_nothing(&self) -> Held<'_, 'a, M> {
        Held {
            env: self,
            blocks: Vec::new(),
        }
    }

    /// Takes every free block but single frames.
    pub fn take_blocks(&self) -> Held<'_, 'a, M> {
        let orders = Order::range_inclusive(Order::of(1), Order::MAX).rev();
        let take = |order| core::iter::from_fn(move || Some((self.block(order).ok()?, order)));
        let mut held = self.hold_nothing();
        for block in orders.flat_map(take) {
            held.push(block);
        }
        held
    }

    /// As [`Env::take_blocks`], and leaves at least `singles` single frames, none
    /// beside another.
    ///
    /// # Errors
    /// A skip, if there is no block for so many.
    pub fn take_all_but(&self, singles: u64) -> Result<Held<'_, 'a, M>, Stop> {
        let order = Order::clamped((2 * singles).next_power_of_two().ilog2());
        let block = self.block(order)?;
        let mut held = self.take_blocks();
        self.mm.nodes.split(self.m, block, order);
        for (n, frame) in block.block(order).iter().enumerate() {
            if n % 2 == 0 {
                self.free(frame, Order::PAGE);
            } else {
                held.push((frame, Order::PAGE));
            }
        }
        Ok(held)
    }

    /// A frozen compound page of `order`, complete with all tails.
    pub fn compound(&self, order: Order) -> Result<Page, Stop> {
        let block = self.block(order)?;
        Ok(self.make_compound(block, order))
    }

    /// A frozen compound page of `order` on `node`.
    pub fn compound_on(&self, order: Order, node: NodeId) -> Option<Page> {
        let block = self.alloc(order, Placement::Only(node))?;
        Some(self.make_compound(block, order))
    }

    fn make_compound(&self, block: Pfn, order: Order) -> Page {
        let head = self.page(block);
        page::prep_compound_head(self.m, head, order);
        page::prep_compound_tails(self.m, head, order);
        head
    }

    /// Gives a compound page back whose memmap is not folded.
    pub fn free_compound(&self, head: Page, order: Order) {
        page::undo_compound_tails(self.m, head, order);
        page::undo_compound_head(self.m, head, order);
        self.free(self.mm.vmemmap.memmap().pfn(head), order);
    }

    /// Folds; a failure of the case if that does not work.
    pub fn fold(&self, head: Page, order: Order) -> Outcome {
        let result = self
            .mm
            .vmemmap
            .optimize_folio(self.m, &self.mm.nodes, head, order);
        check_eq!(result, Ok(()), "optimize order {order}");
        Ok(())
    }

    /// Unfolds with all tails; a failure of the case if that does not work.
    pub fn unfold(&self, head: Page, order: Order) -> Outcome {
        let nodes = &self.mm.nodes;
        let result = self
            .mm
            .vmemmap
            .restore_folio(self.m, nodes, head, order, Fill::Tails);
        check_eq!(result, Ok(()), "restore order {order}");
        Ok(())
    }

    /// The frame that the struct page `page` lies in, by the live tables.
    pub fn frame_of(&self, page: Page) -> Option<Pfn> {
        let at = paging::translate(self.m, self.m.root(), page.address())?;
        Some(at.pfn())
    }

    /// The first struct page in the `n`th frame of the memmap of `head`'s block.
    pub fn memmap_frame(&self, head: Page, n: u64) -> Page {
        head.nth(n * page::HEAD_PAGES)
    }

    /// What the entries of tails of a folded block lead to: the node's shared page, or
    /// where this build shares within a folio only, the head's frame.
    pub fn tail_of(&self, head: Page, order: Order) -> Option<Pfn> {
        if page::SHARES_ACROSS_NODE {
            self.mm.vmemmap.existing_tail(head.node(self.m), order)
        } else {
            self.frame_of(head)
        }
    }

    /// The pools of `order`, or a skip.
    pub fn hstate(&self, order: Order) -> Result<&'a Hstate, Stop> {
        match self.mm.hugetlb.hstate(order) {
            Some(h) => Ok(h),
            None => skip!("the CPU has no 1 GiB pages"),
        }
    }

    /// Checks struct pages `from..order.pages()` of the compound page at `head`:
    /// tail, not head, finds its head, count 0, right node.
    pub fn check_tails(&self, head: Page, order: Order) -> Outcome {
        let node = head.node(self.m);
        for n in 1..order.pages() {
            let tail = head.nth(n);
            // In a frame that is the head's, shown again, its count is, too.
            let shown = self.shows_head(head, n);
            let count = if shown { head.ref_count(self.m) } else { 0 };
            let good = tail.is_tail(self.m)
                && !tail.is_head(self.m)
                && tail.compound_head(self.m) == head
                && tail.ref_count(self.m) == count
                && tail.node(self.m) == node;
            if !good {
                ktest::fail!("tail {n} of order {order}: {:x?}", tail.record(self.m));
            }
        }
        Ok(())
    }

    /// Whether the struct page of page `n` of the block at `head` is the head's, mapped
    /// again: a fake head.
    fn shows_head(&self, head: Page, n: u64) -> bool {
        page::HVO == Ok(Sharing::WithinFolio)
            && n.is_multiple_of(page::HEAD_PAGES)
            && mm::vmemmap::is_optimized(self.m, head)
    }

    /// The first and second online node, or a skip.
    pub fn two_nodes(&self) -> Result<(NodeId, NodeId), Stop> {
        let mut nodes = self
            .mm
            .nodes
            .online()
            .filter(|n| self.mm.nodes.get(*n).present_pages() > 0);
        match (nodes.next(), nodes.next()) {
            (Some(a), Some(b)) => Ok((a, b)),
            _ => skip!("the machine has one node with memory"),
        }
    }
}

/// Blocks that a case has taken. They are given back when this is dropped, however the case ends.
#[derive(Debug)]
#[must_use]
pub struct Held<'e, 'a, M: Machine> {
    env: &'e Env<'a, M>,
    blocks: Vec<(Pfn, Order)>,
}

impl<M: Machine> Deref for Held<'_, '_, M> {
    type Target = Vec<(Pfn, Order)>;

    fn deref(&self) -> &Self::Target {
        &self.blocks
    }
}

impl<M: Machine> DerefMut for Held<'_, '_, M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.blocks
    }
}

impl<M: Machine> Drop for Held<'_, '_, M> {
    fn drop(&mut self) {
        for (block, order) in self.blocks.drain(..) {
            self.env.free(block, order);
        }
    }
}

/// Runs `case`, gives back what one that ended early still holds, and makes sure that one which was
/// skipped has left nothing behind, wherever in its body that was: a skip cleans up as a return does.
///
/// # Errors
/// The case's own outcome; a failure if it was skipped and the machine's numbers have changed.
pub fn tidy<M: Machine>(env: &Env<'_, M>, case: impl FnOnce() -> Outcome) -> Outcome {
    env.kept.look(env);
    let before = env.snapshot();
    let outcome = case();
    env.sweep_after(&outcome);
    clear_scratch(env);
    if let Err(Stop::Skipped(reason)) = &outcome {
        let after = env.snapshot();
        check_eq!(after, before, "left behind by a skip ({})", reason.as_str());
    }
    outcome
}

/// A small generator with a fixed seed: cases are the same in every run.
/// (xorshift64*, Vigna 2016.)
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`, which is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        assert!(seed != 0);
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
