//! The NUMA nodes and their free memory.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::addr::{MAX_NODES, NodeId, Order, Pfn, PfnRange};
use crate::buddy::{Buddy, Misuse, check_populated};
use crate::frames::{FrameSource, Placement};
use crate::machine::{FailPoint, Machine};
use crate::numa::{LOCAL_DISTANCE, REMOTE_DISTANCE};
use crate::page::Memmap;
use crate::sync::{IrqLock, LockClass};

/// One node: its buddy allocator and what it started with.
#[derive(Debug)]
#[doc(alias = "pglist_data")]
pub struct Node {
    buddy: IrqLock<Buddy>,
    /// Pages of RAM, usable or not. Written at boot, read any time: relaxed.
    present: AtomicU64,
    /// First frame of its RAM and the one behind the last, holes and other nodes' RAM in between
    /// included. Likewise.
    span: (AtomicU64, AtomicU64),
    /// Free pages that huge pages leave alone. Likewise.
    watermark: AtomicU64,
}

impl Node {
    const fn new(node: NodeId, memmap: Memmap) -> Self {
        Self {
            buddy: IrqLock::new(LockClass::Buddy, Buddy::new(node, memmap)),
            present: AtomicU64::new(0),
            span: (AtomicU64::new(u64::MAX), AtomicU64::new(0)),
            watermark: AtomicU64::new(0),
        }
    }

    /// Pages of RAM on the node, usable or not.
    #[doc(alias = "node_present_pages")]
    pub fn present_pages(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// From its first frame of RAM to behind its last; empty, if it has none. What lies in between
    /// may be a hole, or another node's.
    #[doc(alias = "node_spanned_pages")]
    pub fn span(&self) -> PfnRange {
        let (start, end) = &self.span;
        let end = end.load(Ordering::Relaxed);
        let start = start.load(Ordering::Relaxed).min(end);
        PfnRange::new(Pfn::new(start), Pfn::new(end))
    }

    /// Pages that stay free when huge pages are asked for.
    #[doc(alias = "min_wmark_pages")]
    pub fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Relaxed)
    }

    /// Looks at the free lists under their lock.
    pub fn with_buddy<M: Machine, R>(&self, m: &M, look: impl FnOnce(&Buddy) -> R) -> R {
        look(&self.buddy.lock(m))
    }

    /// Free pages.
    pub fn free_pages<M: Machine>(&self, m: &M) -> u64 {
        self.buddy.lock(m).free_pages()
    }
}

/// Pages that stay free of `free` when huge pages are asked for: Linux's
/// `min_free_kbytes`, the square root of 16 times the free memory in KiB.
#[must_use]
#[doc(alias = "init_per_zone_wmark_min")]
pub const fn low_watermark(free: u64) -> u64 {
    let kib = (free * 4 * 16).isqrt();
    let kib = if kib < 128 { 128 } else { kib };
    (if kib > 262_144 { 262_144 } else { kib }) / 4
}

/// What came of [`Nodes::set_broken`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The frame was free, and is out of the allocator.
    WasFree,
    /// It is marked, and stays out when its owner gives it back.
    InUse,
    /// It is part of a compound page: nothing was done.
    Not,
}

/// All nodes. A node without memory is online and simply empty.
#[derive(Debug)]
#[doc(alias = "node_data")]
pub struct Nodes {
    nodes: [Node; MAX_NODES],
    memmap: Memmap,
    /// One bit a node. Set at boot, before other CPUs run: relaxed.
    online: AtomicU64,
    /// Distances from node to node; 0 where nobody said any. Set at boot likewise: relaxed.
    #[doc(alias = "numa_distance")]
    distances: [[AtomicU8; MAX_NODES]; MAX_NODES],
    /// Allocations that failed. Relaxed: nothing hangs on it.
    failed: AtomicU64,
}

impl Nodes {
    /// No node online yet; struct pages are those of `memmap`.
    #[must_use]
    pub const fn new(memmap: Memmap) -> Self {
        let mut nodes =
            [const { Node::new(NodeId::ZERO, Memmap::new(Memmap::DEFAULT_BASE)) }; MAX_NODES];
        let mut n = 0;
        while n < MAX_NODES {
            #[expect(clippy::cast_possible_truncation, reason = "below MAX_NODES")]
            let node = NodeId::of(n as u8);
            nodes[n] = Node::new(node, memmap);
            n += 1;
        }
        Self {
            nodes,
            memmap,
            online: AtomicU64::new(0),
            distances: [const { [const { AtomicU8::new(0) }; MAX_NODES] }; MAX_NODES],
            failed: AtomicU64::new(0),
        }
    }

    /// Brings `node` online with `present` pages of RAM.
    pub fn set_online(&self, node: NodeId, present: u64) {
        self.online.fetch_or(1 << node.get(), Ordering::Relaxed);
        self.nodes[node.index()]
            .present
            .store(present, Ordering::Relaxed);
    }

    /// Notes that `range` is RAM of `node`.
    pub(crate) fn extend_span(&self, node: NodeId, range: PfnRange) {
        let (start, end) = &self.get(node).span;
        start.fetch_min(range.start.as_u64(), Ordering::Relaxed);
        end.fetch_max(range.end.as_u64(), Ordering::Relaxed);
    }

    /// Whether `node` exists.
    #[doc(alias = "node_online")]
    pub fn is_online(&self, node: NodeId) -> bool {
        self.online.load(Ordering::Relaxed) >> node.get() & 1 == 1
    }

    /// The nodes there are, lowest first.
    #[doc(alias = "for_each_online_node")]
    pub fn online(&self) -> impl DoubleEndedIterator<Item = NodeId> + Clone + use<> {
        let mask = self.online.load(Ordering::Relaxed);
        (0..64u8)
            .filter(move |n| mask >> n & 1 == 1)
            .map(NodeId::of)
    }

    /// Notes how far `to` is for CPUs of `from`.
    pub fn set_distance(&self, from: NodeId, to: NodeId, distance: u8) {
        self.distances[from.index()][to.index()].store(distance, Ordering::Relaxed);
    }

    /// How far `to` is for CPUs of `from`.
    #[doc(alias = "node_distance")]
    pub fn distance(&self, from: NodeId, to: NodeId) -> u8 {
        match self.distances[from.index()][to.index()].load(Ordering::Relaxed) {
            0 if from == to => LOCAL_DISTANCE,
            0 => REMOTE_DISTANCE,
            distance => distance,
        }
    }

    /// The node of `placement`, then, if they may, the others, the nearest first; of equally near
    /// ones those above it before those below.
    #[doc(alias = "build_zonelists")]
    pub fn near(&self, placement: Placement) -> impl Iterator<Item = NodeId> {
        let own = placement.node();
        let others = matches!(placement, Placement::Prefer(_));
        let far = move |node| (self.distance(own, node), node < own, node);
        // The nearest of those that are farther than the last one.
        let after = move |last| {
            self.online()
                .filter(|node| others && *node != own)
                .map(far)
                .filter(|key| last < Some(*key))
                .min()
        };
        // Asked for one by one: most allocations need the first node only.
        let mut last = None;
        let rest = core::iter::from_fn(move || {
            last = after(last);
            last
        });
        core::iter::once(own).chain(rest.fuse().map(|(.., node)| node))
    }

    /// The node itself.
    pub const fn get(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// The struct pages all nodes share.
    pub const fn memmap(&self) -> Memmap {
        self.memmap
    }

    /// Hands `range`, RAM of `node` with clean struct pages, to its allocator.
    pub fn add_range<M: Machine>(&self, m: &M, node: NodeId, range: PfnRange) {
        self.get(node).buddy.lock(m).add_range(m, range);
    }

    /// Sets how much huge pages leave alone: [`low_watermark`], shared out by free
    /// memory.
    pub fn set_watermarks<M: Machine>(&self, m: &M) {
        let free: u64 = self.total_free(m);
        let pages = low_watermark(free);
        for node in self.online() {
            let share = self.get(node).free_pages(m);
            let own = (pages * share).checked_div(free).unwrap_or(0);
            self.get(node).watermark.store(own, Ordering::Relaxed);
        }
    }

    /// Free pages of all nodes.
    pub fn total_free<M: Machine>(&self, m: &M) -> u64 {
        self.online().map(|node| self.get(node).free_pages(m)).sum()
    }

    /// Pages of RAM of all nodes.
    pub fn total_present(&self) -> u64 {
        self.online()
            .map(|node| self.get(node).present_pages())
            .sum()
    }

    /// A block of `order` for a huge page of `node`, which may not use up the
    /// last free pages: those are for page tables and memmap, so that asking for
    /// too many huge pages fails nothing but itself. Under the node's lock `prepare` makes
    /// it known as one: no frame of it ever is neither free nor part of a huge page.
    pub fn alloc_above_watermark<M: Machine>(
        &self,
        m: &M,
        order: Order,
        node: NodeId,
        prepare: impl FnOnce(Pfn),
    ) -> Option<Pfn> {
        if m.inject(FailPoint::PageAlloc) {
            return None;
        }
        let this = self.get(node);
        let mut buddy = this.buddy.lock(m);
        if buddy.free_pages() < this.watermark() + order.pages() {
            return None;
        }
        let block = buddy.alloc(m, order)?;
        prepare(block);
        Some(block)
    }

    /// Takes back the block of a huge page, all of it or, if `broken` says so, all frames
    /// that are not marked broken. Under the node's lock `undo` takes away what made it
    /// known as one.
    ///
    /// # Panics
    /// As [`Buddy::free`] or [`Buddy::free_sound`] does.
    pub fn free_huge<M: Machine>(
        &self,
        m: &M,
        block: Pfn,
        order: Order,
        broken: bool,
        undo: impl FnOnce(),
    ) {
        let mut buddy = self.owner(m, block).buddy.lock(m);
        undo();
        if broken {
            buddy.free_sound(m, block, order);
        } else {
            buddy.free_whole(m, block, order);
        }
    }

    /// Allocations that failed since start, because memory was short or by injection.
    /// Those for huge pages, which leave the last pages alone, are not among them.
    pub fn alloc_failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn try_alloc<M: Machine>(&self, m: &M, order: Order, placement: Placement) -> Option<Pfn> {
        if m.inject(FailPoint::PageAlloc) {
            return None;
        }
        self.near(placement)
            .find_map(|node| self.alloc_on(m, order, node))
    }

    fn alloc_on<M: Machine>(&self, m: &M, order: Order, node: NodeId) -> Option<Pfn> {
        self.get(node).buddy.lock(m).alloc(m, order)
    }

    /// Whether `block` may be freed as a block of `order`.
    ///
    /// # Errors
    /// The kind of misuse that freeing it would be.
    pub fn check_free<M: Machine>(&self, m: &M, block: Pfn, order: Order) -> Result<(), Misuse> {
        check_populated(m, self.memmap, block)?;
        self.owner(m, block)
            .buddy
            .lock(m)
            .check_free(m, block, order)
    }

    /// [`Buddy::take_off`] on the node of `pfn`, which has a struct page.
    pub fn take_off<M: Machine>(&self, m: &M, pfn: Pfn) -> bool {
        self.owner(m, pfn).buddy.lock(m).take_off(m, pfn)
    }

    /// Takes the broken frame `pfn`, which has a struct page, out of its node's allocator; or
    /// marks it, if the kernel itself has it. `is_huge`, asked under the node's lock, is
    /// whether it is part of a huge page: nothing is done then.
    pub fn set_broken<M: Machine>(
        &self,
        m: &M,
        pfn: Pfn,
        is_huge: impl FnOnce() -> bool,
    ) -> Broken {
        let mut buddy = self.owner(m, pfn).buddy.lock(m);
        if buddy.take_off(m, pfn) {
            Broken::WasFree
        } else if !is_huge() && buddy.mark_in_use(m, pfn) {
            Broken::InUse
        } else {
            Broken::Not
        }
    }

    /// [`Buddy::put_back`] on the node of `pfn`.
    ///
    /// # Panics
    /// As that does.
    pub fn put_back<M: Machine>(&self, m: &M, pfn: Pfn) {
        self.owner(m, pfn).buddy.lock(m).put_back(m, pfn);
    }

    fn owner<M: Machine>(&self, m: &M, block: Pfn) -> &Node {
        if let Err(misuse) = check_populated(m, self.memmap, block) {
            panic!("BUG: {misuse}");
        }
        self.get(self.memmap.page(block).node(m))
    }
}

impl<M: Machine> FrameSource<M> for Nodes {
    #[doc(alias = "__alloc_pages_noprof")]
    fn alloc(&self, m: &M, order: Order, placement: Placement) -> Option<Pfn> {
        let block = self.try_alloc(m, order, placement);
        if block.is_none() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        block
    }

    #[doc(alias = "__free_pages")]
    fn free(&self, m: &M, block: Pfn, order: Order) {
        self.owner(m, block).buddy.lock(m).free(m, block, order);
    }

    fn split(&self, m: &M, block: Pfn, order: Order) {
        self.owner(m, block).buddy.lock(m).split(m, block, order);
    }

    fn free_pages(&self, m: &M, first: Pfn, pages: u64) {
        let mut left = PfnRange::new(first, first.offset(pages));
        // Neighbours in number may belong to different nodes.
        while !left.is_empty() {
            let mut buddy = self.owner(m, left.start).buddy.lock(m);
            let freed = buddy.free_run(m, left);
            left.start = left.start.offset(freed);
        }
    }
}
