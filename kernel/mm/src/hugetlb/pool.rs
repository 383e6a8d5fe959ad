//! Growing and shrinking the pools.
//!
//! Both work in batches, with one TLB flush a batch and no lock held over it.

use core::sync::atomic::{AtomicU8, Ordering};

use super::{Backing, Hstate, HugeTlb};
use crate::addr::{MAX_NODES, NodeId, Pfn};
use crate::frames::FrameSource;
use crate::machine::{Level, Machine};
use crate::page::{self, Page, PageList, PageType};
use crate::vmemmap::{self, Fill};

/// Folios handled with one TLB flush.
const BATCH: u64 = 512;

impl HugeTlb {
    /// Adds up to `count` folios of `h`'s size, from `node` or round robin over
    /// all nodes. Gives what fits and says so in the log; how many were added.
    ///
    /// Folding frees memory, so allocation goes on until a whole round brings
    /// nothing; a round that brings nothing costs one look at each node.
    #[doc(alias = "alloc_pool_huge_folio")]
    pub fn grow<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let mut added = 0;
        while added < count {
            let batch = self.alloc_batch(m, backing, h, node, BATCH.min(count - added));
            if batch.is_empty() {
                break;
            }
            added += batch.len();
            self.admit(m, backing, h, batch);
        }
        if added < count {
            self.log_shortfall(m, h, node, count, added);
        }
        added
    }

    /// Removes up to `count` free folios, from `node` or round robin, and gives
    /// their memory back; how many were removed.
    ///
    /// A folio whose memmap cannot be restored for want of memory stays in the
    /// pool as surplus, to go at a later try.
    #[doc(alias = "remove_pool_hugetlb_folio")]
    #[doc(alias = "update_and_free_pages_bulk")]
    pub fn shrink<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let mut removed = 0;
        while removed < count {
            let (batch, taken) = self.take_batch(m, backing, h, node, BATCH.min(count - removed));
            if taken == 0 {
                break;
            }
            let freed = self.dissolve(m, backing, h, batch);
            removed += freed;
            if freed < taken {
                break;
            }
        }
        removed
    }

    /// Tries again to give back what could not be restored before; how many
    /// surplus folios went.
    pub fn retry_surplus<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate) -> u64 {
        backing
            .nodes
            .online()
            .map(|node| {
                let counts = h.counts(m, node);
                self.shrink(m, backing, h, Some(node), counts.surplus.min(counts.free))
            })
            .sum()
    }

    /// Up to `want` new compound pages, frozen, their tails not yet written if
    /// they are about to be folded.
    fn alloc_batch<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        want: u64,
    ) -> PageList {
        let mut batch = PageList::new();
        let mut turns = Turns::new(backing, node, &h.next_to_grow);
        while batch.len() < want {
            let Some(node) = turns.current() else { break };
            match backing.nodes.alloc_above_watermark(m, h.order(), node) {
                Some(block) => {
                    batch.push(m, self.prep(m, backing, h, block));
                    turns.advance();
                }
                None => turns.drop_current(),
            }
        }
        batch
    }

    #[doc(alias = "prep_new_hugetlb_folio")]
    fn prep<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, block: Pfn) -> Page {
        let head = backing.vmemmap.memmap().page(block);
        page::prep_compound_head(m, head, h.order());
        head.set_page_type(m, PageType::HUGETLB);
        head
    }

    /// Folds the batch if that is wanted, and puts it into the pools.
    #[doc(alias = "prep_and_add_allocated_folios")]
    fn admit<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, mut batch: PageList) {
        if self.optimizes() {
            backing
                .vmemmap
                .optimize_folios(m, backing.nodes, &batch, h.order());
        }
        while let Some(head) = batch.pop(m) {
            if !vmemmap::is_optimized(m, head) {
                page::prep_compound_tails(m, head, h.order());
            }
            let mut pool = h.pool(head.node(m)).lock(m);
            pool.free.push(m, head);
            pool.nr += 1;
        }
    }

    /// Takes up to `want` free folios out of the pools: folded ones, and others.
    /// Surplus is what goes first.
    fn take_batch<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        want: u64,
    ) -> ([PageList; 2], u64) {
        let mut batch = [PageList::new(), PageList::new()];
        let mut taken = 0;
        let mut turns = Turns::new(backing, node, &h.next_to_shrink);
        while taken < want {
            let Some(node) = turns.current() else { break };
            let mut pool = h.pool(node).lock(m);
            let Some(head) = pool.free.pop(m) else {
                drop(pool);
                turns.drop_current();
                continue;
            };
            pool.nr -= 1;
            pool.surplus = pool.surplus.saturating_sub(1);
            drop(pool);
            let folded = vmemmap::is_optimized(m, head);
            batch[usize::from(!folded)].push(m, head);
            taken += 1;
            turns.advance();
        }
        (batch, taken)
    }

    /// Gives a batch back to the buddy allocator; how many folios went.
    #[doc(alias = "bulk_vmemmap_restore_error")]
    fn dissolve<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        [mut folded, mut plain]: [PageList; 2],
    ) -> u64 {
        let order = h.order();
        let mut freed = plain.len();
        while let Some(head) = plain.pop(m) {
            page::undo_compound_tails(m, head, order);
            self.release(m, backing, h, head);
        }
        while !folded.is_empty() {
            let restored =
                backing
                    .vmemmap
                    .restore_folios(m, backing.nodes, &folded, order, Fill::Unused);
            for _ in 0..restored {
                let head = folded.pop(m).expect("restored from the front");
                self.release(m, backing, h, head);
            }
            freed += restored;
            if restored == 0 {
                // Nothing can be gained by trying again now.
                while let Some(head) = folded.pop(m) {
                    let mut pool = h.pool(head.node(m)).lock(m);
                    pool.free.push(m, head);
                    pool.nr += 1;
                    pool.surplus += 1;
                }
            }
        }
        freed
    }

    fn release<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, head: Page) {
        head.set_page_type(m, PageType::NONE);
        page::undo_compound_head(m, head, h.order());
        let block = backing.vmemmap.memmap().pfn(head);
        backing.nodes.free(m, block, h.order());
    }

    fn log_shortfall<M: Machine>(
        &self,
        m: &M,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
        added: u64,
    ) {
        let size = h.name();
        match node {
            None => m.log(
                Level::Warn,
                format_args!(
                    "HugeTLB: allocating {count} of page size {size} failed.  Only allocated {added} hugepages."
                ),
            ),
            Some(node) => m.log(
                Level::Warn,
                format_args!(
                    "HugeTLB: allocating {count} of page size {size} failed node{node}.  Only allocated {added} hugepages."
                ),
            ),
        }
    }
}

/// Nodes taking turns.
struct Turns<'a> {
    nodes: [NodeId; MAX_NODES],
    len: usize,
    at: usize,
    /// Where it is kept whose turn is next; `None` if there is one node only.
    next: Option<&'a AtomicU8>,
}

impl<'a> Turns<'a> {
    /// `node` alone, or all nodes, the one that `next` names first.
    fn new(backing: Backing<'_>, node: Option<NodeId>, next: &'a AtomicU8) -> Self {
        let mut turns = Self {
            nodes: [NodeId::ZERO; MAX_NODES],
            len: 0,
            at: 0,
            next: node.is_none().then_some(next),
        };
        if let Some(only) = node {
            turns.nodes[0] = only;
            turns.len = 1;
            return turns;
        }
        for node in backing.nodes.online() {
            turns.nodes[turns.len] = node;
            turns.len += 1;
        }
        let next = next.load(Ordering::Relaxed);
        turns.at = turns.nodes[..turns.len]
            .iter()
            .position(|node| node.get() >= next)
            .unwrap_or(0);
        turns
    }

    fn current(&self) -> Option<NodeId> {
        self.nodes[..self.len].get(self.at).copied()
    }

    /// The current node has had its turn.
    fn advance(&mut self) {
        self.at = if self.at + 1 < self.len {
            self.at + 1
        } else {
            0
        };
        if let (Some(next), Some(node)) = (self.next, self.current()) {
            next.store(node.get(), Ordering::Relaxed);
        }
    }

    /// The current node has nothing left: it gets no further turn.
    fn drop_current(&mut self) {
        self.nodes.copy_within(self.at + 1..self.len, self.at);
        self.len -= 1;
        if self.at == self.len {
            self.at = 0;
        }
    }
}
