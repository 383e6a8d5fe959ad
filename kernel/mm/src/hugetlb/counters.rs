//! What the lock of a size protects: free lists and counters of its pools.
//!
//! Every change of a counter is here, so that what must always hold is seen at one
//! place: totals are the sums over the nodes, free folios cover the reservations, and
//! no node has more surplus than folios.

use crate::addr::{MAX_NODES, NodeId};
use crate::machine::Machine;
use crate::page::{Flags, Page, PageList, has_hwpoisoned};

/// In `private` of the head of a folio that is on a free list. Written under the lock.
#[doc(alias = "HPageFreed")]
const FREED: u64 = 1;

/// Numbers of a pool, as the control files show them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Folios, free or not.
    #[doc(alias = "nr_hugepages")]
    pub nr: u64,
    /// Folios nobody has.
    #[doc(alias = "free_hugepages")]
    pub free: u64,
    /// Folios that are to go when they can.
    #[doc(alias = "surplus_hugepages")]
    pub surplus: u64,
}

impl Counts {
    const ZERO: Self = Self {
        nr: 0,
        free: 0,
        surplus: 0,
    };

    /// Folios that stay when nobody needs them.
    #[must_use]
    #[doc(alias = "persistent_huge_pages")]
    #[doc(alias = "max_huge_pages")]
    pub const fn persistent(&self) -> u64 {
        self.nr - self.surplus
    }
}

/// As what a folio is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It stays when nobody needs it.
    Persistent,
    /// It goes when it can.
    Surplus,
}

#[derive(Debug)]
struct NodePool {
    #[doc(alias = "hugepage_freelists")]
    free: PageList,
    counts: Counts,
    /// Free surplus folios that could not be given back, at most `counts.surplus`.
    stuck: u64,
    /// Free folios with broken frames, which nobody is given.
    poisoned: u64,
}

impl NodePool {
    const EMPTY: Self = Self {
        free: PageList::new(),
        counts: Counts::ZERO,
        stuck: 0,
        poisoned: 0,
    };
}

/// The pools of one size on all nodes.
#[derive(Debug)]
pub(super) struct Pools {
    nodes: [NodePool; MAX_NODES],
    total: Counts,
    stuck: u64,
    poisoned: u64,
    /// Free folios that are promised to mappings.
    #[doc(alias = "resv_huge_pages")]
    resv: u64,
    /// Most surplus folios that may be made for mappings.
    #[doc(alias = "nr_overcommit_huge_pages")]
    pub(super) overcommit: u64,
    /// Surplus folios that are being made right now.
    coming: u64,
}

impl Pools {
    pub(super) const EMPTY: Self = Self {
        nodes: [NodePool::EMPTY; MAX_NODES],
        total: Counts::ZERO,
        stuck: 0,
        poisoned: 0,
        resv: 0,
        overcommit: 0,
        coming: 0,
    };

    pub(super) const fn total(&self) -> Counts {
        self.total
    }

    pub(super) const fn counts(&self, node: NodeId) -> Counts {
        self.nodes[node.index()].counts
    }

    pub(super) const fn resv(&self) -> u64 {
        self.resv
    }

    /// Surplus folios that wait for memory to go.
    pub(super) const fn stuck(&self, node: NodeId) -> u64 {
        self.nodes[node.index()].stuck
    }

    /// Those of [`Pools::stuck`] that have broken frames.
    pub(super) fn broken_waiting(&self, node: NodeId) -> u64 {
        let pool = &self.nodes[node.index()];
        pool.stuck.min(pool.poisoned)
    }

    /// Free folios that nobody was promised.
    #[doc(alias = "available_huge_pages")]
    pub(super) const fn available(&self) -> u64 {
        self.total.free.saturating_sub(self.resv + self.poisoned)
    }

    /// Folios that somebody has or was promised: no shrinking goes below.
    pub(super) const fn needed(&self) -> u64 {
        self.total.nr - self.may_go()
    }

    /// Free folios beyond what was promised, those with broken frames included.
    const fn may_go(&self) -> u64 {
        self.total.free.saturating_sub(self.resv)
    }

    /// Free folios of `node` that somebody can be given.
    pub(super) const fn usable(&self, node: NodeId) -> u64 {
        let pool = &self.nodes[node.index()];
        pool.counts.free - pool.poisoned
    }

    /// A free folio of `node` that is whole, or one that is not.
    fn find_free<M: Machine>(&self, m: &M, node: NodeId, poisoned: bool) -> Option<Page> {
        let pool = &self.nodes[node.index()];
        let none = if poisoned {
            pool.poisoned == 0
        } else {
            pool.poisoned == pool.counts.free
        };
        let mut next = pool.free.first().filter(|_| !none);
        while let Some(head) = next {
            if has_hwpoisoned(m, head) == poisoned {
                break;
            }
            next = pool.free.next(m, head);
        }
        next
    }

    /// Puts the mark of a folio right that has broken frames, or has them no longer.
    pub(super) fn set_poisoned<M: Machine>(&mut self, m: &M, head: Page, broken: bool) {
        if has_hwpoisoned(m, head) == broken {
            return;
        }
        head.change_flag(m, Flags::HAS_HWPOISONED, broken);
        if is_free(m, head) {
            self.count_poisoned(head.node(m), broken);
        }
    }

    const fn count_poisoned(&mut self, node: NodeId, up: bool) {
        let pool = &mut self.nodes[node.index()];
        if up {
            pool.poisoned += 1;
            self.poisoned += 1;
        } else {
            pool.poisoned -= 1;
            self.poisoned -= 1;
        }
    }

    /// The first folio on the free list of `node`.
    pub(super) const fn first_free(&self, node: NodeId) -> Option<Page> {
        self.nodes[node.index()].free.first()
    }

    /// Puts a folio that the pool has given out on its free list again.
    #[doc(alias = "enqueue_hugetlb_folio")]
    pub(super) fn enqueue<M: Machine>(&mut self, m: &M, head: Page) {
        let pool = &mut self.nodes[head.node(m).index()];
        pool.free.push(m, head);
        head.set_private(m, FREED);
        pool.counts.free += 1;
        self.total.free += 1;
        if has_hwpoisoned(m, head) {
            self.count_poisoned(head.node(m), true);
        }
    }

    /// Takes a free folio that is whole, frozen still, without asking who was promised it.
    fn dequeue<M: Machine>(&mut self, m: &M, node: NodeId) -> Option<Page> {
        let head = self.find_free(m, node, false)?;
        self.dequeue_this(m, node, head);
        Some(head)
    }

    pub(super) fn dequeue_this<M: Machine>(&mut self, m: &M, node: NodeId, head: Page) {
        let pool = &mut self.nodes[node.index()];
        pool.free.remove(m, head);
        head.set_private(m, 0);
        pool.counts.free -= 1;
        self.total.free -= 1;
        if has_hwpoisoned(m, head) {
            self.count_poisoned(node, false);
        }
    }

    /// A free folio of `node` for somebody who was promised none, with a count of one.
    #[doc(alias = "dequeue_hugetlb_folio_node_exact")]
    pub(super) fn take<M: Machine>(&mut self, m: &M, node: NodeId) -> Option<Page> {
        if self.available() == 0 {
            return None;
        }
        let head = self.dequeue(m, node)?;
        head.set_ref_count(m, 1);
        Some(head)
    }

    /// A free folio of `node` for somebody who was promised one, with a count of one.
    /// The promise is kept with it.
    pub(super) fn take_reserved<M: Machine>(&mut self, m: &M, node: NodeId) -> Option<Page> {
        let head = self.dequeue(m, node)?;
        head.set_ref_count(m, 1);
        self.unreserve(1);
        Some(head)
    }

    /// Promises `count` folios; whether there are that many.
    pub(super) const fn reserve(&mut self, count: u64) -> bool {
        let enough = self.available() >= count;
        if enough {
            self.resv += count;
        }
        enough
    }

    pub(super) fn unreserve(&mut self, count: u64) {
        debug_assert!(self.resv >= count, "more promises taken back than made");
        self.resv -= count;
    }

    /// Adds a new folio, which nobody has.
    #[doc(alias = "add_hugetlb_folio")]
    pub(super) fn add<M: Machine>(&mut self, m: &M, head: Page, kind: Kind) {
        let node = head.node(m);
        self.count(node, 1, 0);
        if kind == Kind::Surplus {
            self.count_surplus(node, true);
        }
        self.enqueue(m, head);
    }

    /// Adds a new folio that somebody has already: surplus.
    pub(super) fn add_taken<M: Machine>(&mut self, m: &M, head: Page) {
        let node = head.node(m);
        self.count(node, 1, 0);
        self.count_surplus(node, true);
    }

    /// Puts a folio back that could not be given back: surplus that waits for memory.
    pub(super) fn add_stuck<M: Machine>(&mut self, m: &M, head: Page) {
        self.add(m, head, Kind::Surplus);
        self.count_stuck(head.node(m));
    }

    /// Notes that one free surplus folio more is waiting to go.
    pub(super) const fn count_stuck(&mut self, node: NodeId) {
        let pool = &mut self.nodes[node.index()];
        if pool.stuck < pool.counts.surplus {
            pool.stuck += 1;
            self.stuck += 1;
        }
    }

    /// Takes a free surplus folio out that waits to go, as [`Pools::remove`] does.
    pub(super) fn remove_stuck<M: Machine>(&mut self, m: &M, node: NodeId) -> Option<Page> {
        let before = self.stuck(node);
        let head = self.remove(m, node, Kind::Surplus)?;
        // With the surplus the number may have gone down already.
        if self.stuck(node) == before && before > 0 {
            self.nodes[node.index()].stuck -= 1;
            self.stuck -= 1;
        }
        Some(head)
    }

    /// Takes a free folio of `node` out of the pool for good, frozen, if there is one
    /// of that kind that nobody was promised: one with broken frames, or the first.
    #[doc(alias = "remove_pool_hugetlb_folio")]
    pub(super) fn remove<M: Machine>(&mut self, m: &M, node: NodeId, kind: Kind) -> Option<Page> {
        let poisoned = self.find_free(m, node, true);
        let head = poisoned.or_else(|| self.first_free(node))?;
        self.remove_this(m, node, head, kind).then_some(head)
    }

    /// Whether there is a free folio with broken frames that no promise keeps.
    pub(super) const fn poisoned_may_go(&self) -> bool {
        self.poisoned > 0 && self.may_go() > 0
    }

    /// [`Pools::remove`] for folios with broken frames, surplus first.
    pub(super) fn remove_poisoned<M: Machine>(&mut self, m: &M, node: NodeId) -> Option<Page> {
        let head = self.find_free(m, node, true)?;
        let kind = self.kind_to_go(node);
        self.remove_this(m, node, head, kind).then_some(head)
    }

    /// [`Pools::remove`] for folios that are whole.
    pub(super) fn remove_whole<M: Machine>(
        &mut self,
        m: &M,
        node: NodeId,
        kind: Kind,
    ) -> Option<Page> {
        let head = self.find_free(m, node, false)?;
        self.remove_this(m, node, head, kind).then_some(head)
    }

    /// [`Pools::remove`] for one folio on the free list of `node`; whether it went.
    pub(super) fn remove_this<M: Machine>(
        &mut self,
        m: &M,
        node: NodeId,
        head: Page,
        kind: Kind,
    ) -> bool {
        let counts = self.counts(node);
        let has = match kind {
            Kind::Persistent => counts.persistent(),
            Kind::Surplus => counts.surplus,
        };
        let may_go = if has_hwpoisoned(m, head) {
            self.may_go()
        } else {
            self.available()
        };
        if has == 0 || may_go == 0 {
            return false;
        }
        self.dequeue_this(m, node, head);
        self.forget(node, kind);
        true
    }

    /// Strikes a folio of `node` off that is on no free list.
    pub(super) fn forget(&mut self, node: NodeId, kind: Kind) {
        if kind == Kind::Surplus {
            self.count_surplus(node, false);
        }
        self.count(node, 0, 1);
    }

    /// Makes one folio of `node` surplus, or one surplus folio persistent; whether
    /// there was one.
    #[doc(alias = "adjust_pool_surplus")]
    pub(super) fn adjust_surplus(&mut self, node: NodeId, up: bool) -> bool {
        let counts = self.counts(node);
        let can = if up {
            counts.persistent() > 0
        } else {
            counts.surplus > 0
        };
        if can {
            self.count_surplus(node, up);
        }
        can
    }

    /// Reserves room under the overcommit limit for up to `want` surplus folios that are about to be
    /// allocated. Returns how many were granted; each is given up by [`Pools::came`], whether or
    /// not it was allocated.
    pub(super) fn expect(&mut self, want: u64) -> u64 {
        let room = self
            .overcommit
            .saturating_sub(self.total.surplus + self.coming);
        let granted = want.min(room);
        self.coming += granted;
        granted
    }

    /// Gives up the room of `count` folios that [`Pools::expect`] granted: they are allocated and
    /// counted now, or will not be.
    pub(super) const fn came(&mut self, count: u64) {
        self.coming -= count;
    }

    fn count(&mut self, node: NodeId, up: u64, down: u64) {
        let counts = &mut self.nodes[node.index()].counts;
        counts.nr = counts.nr + up - down;
        self.total.nr = self.total.nr + up - down;
    }

    fn count_surplus(&mut self, node: NodeId, up: bool) {
        let pool = &mut self.nodes[node.index()];
        if up {
            pool.counts.surplus += 1;
            self.total.surplus += 1;
            return;
        }
        pool.counts.surplus -= 1;
        self.total.surplus -= 1;
        if pool.stuck > pool.counts.surplus {
            pool.stuck -= 1;
            self.stuck -= 1;
        }
    }

    /// Surplus folios that wait for memory to go, of all nodes.
    pub(super) const fn total_stuck(&self) -> u64 {
        self.stuck
    }
}

/// Whether the folio of which `head` is the head is on a free list. Under the lock.
pub(super) fn is_free<M: Machine>(m: &M, head: Page) -> bool {
    head.private(m) == FREED
}
