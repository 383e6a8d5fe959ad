//! Growing and shrinking the pools.
//!
//! Both work in batches, with one TLB flush a batch and no lock held over it but the
//! resize lock.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::counters::{Kind, Pools};
use super::fresh::{BATCH, Doomed};
use super::turns::Turns;
use super::{Backing, Hstate, HugeTlb};
use crate::addr::NodeId;
use crate::machine::{Level, Machine};
use crate::page::Page;
use crate::sync::assert_no_lock_held;

/// Held while the number of persistent folios of a size is changed, with interrupts on
/// and over flushes. Taken before every other lock (INV-9); of two sizes the larger
/// first. Who waits gives up hope only when the holder makes no progress.
#[derive(Debug)]
#[doc(alias = "resize_lock")]
pub(crate) struct ResizeLock {
    /// What is waited for, for the report of a wait that does not end.
    what: &'static str,
    /// Acquire and release: what the holder before did is seen.
    held: AtomicBool,
    /// Relaxed: that it changes is all that matters.
    progress: AtomicU64,
}

impl ResizeLock {
    pub(super) const fn new() -> Self {
        Self::named("a huge page pool that is being resized")
    }

    /// For something else that is done by one at a time.
    pub(crate) const fn named(what: &'static str) -> Self {
        Self {
            what,
            held: AtomicBool::new(false),
            progress: AtomicU64::new(0),
        }
    }

    pub(crate) fn lock<M: Machine>(&self, m: &M) -> ResizeGuard<'_> {
        self.lock_and(m, &|| ())
    }

    /// As [`ResizeLock::lock`], but without giving up hope: for a lock whose holders wait for
    /// others, each time with a limit.
    pub(crate) fn lock_behind<M: Machine>(&self, m: &M) -> ResizeGuard<'_> {
        const LOOKS: u32 = 1 << 16;
        assert_no_lock_held(m);
        while self.held.swap(true, Ordering::Acquire) {
            let mut looks = 0;
            m.wait_until(self.what, &mut || {
                looks += 1;
                !self.held.load(Ordering::Relaxed) || looks >= LOOKS
            });
            m.touch_watchdog();
        }
        ResizeGuard(self)
    }

    /// As [`ResizeLock::lock`], with the lock of a larger size held: whoever waits for that
    /// one sees that this wait gets on.
    pub(super) fn lock_inside<M: Machine>(
        &self,
        m: &M,
        outer: &ResizeGuard<'_>,
    ) -> ResizeGuard<'_> {
        self.lock_and(m, &|| outer.progress(m))
    }

    fn lock_and<M: Machine>(&self, m: &M, progressed: &dyn Fn()) -> ResizeGuard<'_> {
        assert_no_lock_held(m);
        while self.held.swap(true, Ordering::Acquire) {
            let seen = self.progress.load(Ordering::Relaxed);
            m.wait_until(self.what, &mut || {
                !self.held.load(Ordering::Relaxed) || self.progress.load(Ordering::Relaxed) != seen
            });
            m.touch_watchdog();
            progressed();
        }
        ResizeGuard(self)
    }
}

/// Holds a [`ResizeLock`].
#[must_use = "the lock opens again when this is dropped"]
pub(crate) struct ResizeGuard<'a>(&'a ResizeLock);

impl ResizeGuard<'_> {
    /// Says that the work gets on.
    pub(super) fn progress<M: Machine>(&self, m: &M) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
        m.touch_watchdog();
    }
}

impl Drop for ResizeGuard<'_> {
    fn drop(&mut self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
        self.0.held.store(false, Ordering::Release);
    }
}

impl HugeTlb {
    /// Sets how many folios of `h`'s size stay, on `node` or on all nodes together, as
    /// far as memory and use allow; how many there are then, those in use that will go
    /// when they are put not counted.
    ///
    /// In Linux's order: surplus folios become persistent; new ones are allocated, from
    /// all nodes in turn; free ones that no mapping was promised are given back, in
    /// turn; what is in use beyond that becomes surplus. Unlike Linux, surplus that
    /// could not be given back before is tried again.
    #[doc(alias = "set_max_huge_pages")]
    pub fn set_nr<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let resize = h.resize.lock(m);
        // Before surplus may stay: what is broken goes.
        self.retire_poisoned(m, backing, h);
        // Nobody else changes the other nodes' part while the resize lock is held.
        let others = node.map_or(0, |node| {
            let pools = h.pools.lock(m);
            pools.total().persistent() - pools.counts(node).persistent()
        });
        let target = count.saturating_add(others);
        self.absorb_surplus(m, backing, h, node, target);
        let wanted = target.saturating_sub(h.total(m).persistent());
        if wanted > 0 {
            let added = self.grow_locked(m, backing, h, &resize, node, wanted);
            if added < wanted {
                let reached = h.total(m).persistent() - others;
                self.log_shortfall(m, h, node, count, reached);
            }
        } else {
            self.shrink_to(m, backing, h, &resize, node, target);
        }
        self.retry_stuck(m, backing, h);
        h.total(m).persistent() - others
    }

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
        let resize = h.resize.lock(m);
        let added = self.grow_locked(m, backing, h, &resize, node, count);
        if added < count {
            self.log_shortfall(m, h, node, count, added);
        }
        added
    }

    fn grow_locked<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        resize: &ResizeGuard<'_>,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let mut added = 0;
        while added < count {
            let turns = Turns::new(backing, node, &h.next_to_grow);
            let want = BATCH.min(count - added);
            let mut batch = self.alloc_fresh(m, backing, h, turns, want);
            if batch.is_empty() {
                break;
            }
            added += batch.len();
            let mut pools = h.pools.lock(m);
            while let Some(head) = batch.pop(m) {
                pools.add(m, head, Kind::Persistent);
            }
            drop(pools);
            resize.progress(m);
        }
        added
    }

    /// Removes up to `count` free folios that no mapping was promised, from `node` or
    /// round robin, surplus first, and gives their memory back; how many were removed.
    ///
    /// A folio whose memmap cannot be restored for want of memory stays in the
    /// pool as surplus, to go at a later try.
    #[doc(alias = "remove_pool_hugetlb_folio")]
    pub fn shrink<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let resize = h.resize.lock(m);
        let mut removed = 0;
        let any = |pools: &mut Pools, node| {
            pools
                .remove(m, node, Kind::Surplus)
                .or_else(|| pools.remove(m, node, Kind::Persistent))
        };
        while removed < count {
            let turns = Turns::new(backing, node, &h.next_to_shrink);
            let want = BATCH.min(count - removed);
            let (taken, freed) = self.drain(m, backing, h, turns, want, any);
            removed += freed;
            resize.progress(m);
            if taken == 0 || freed < taken {
                break;
            }
        }
        removed
    }

    /// Takes up to `want` folios out of the pools by `remove` and gives them back; how
    /// many were taken, and how many went.
    pub(super) fn drain<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        mut turns: Turns<'_>,
        want: u64,
        mut remove: impl FnMut(&mut Pools, NodeId) -> Option<Page>,
    ) -> (u64, u64) {
        let mut doomed = Doomed::new();
        let mut pools = h.pools.lock(m);
        turns.visit(want, |node| match remove(&mut pools, node) {
            Some(head) => {
                doomed.push(m, head);
                true
            }
            None => false,
        });
        drop(pools);
        let taken = doomed.len();
        (taken, self.dissolve(m, backing, h, doomed))
    }

    /// Makes surplus folios persistent until there are `target`.
    fn absorb_surplus<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        target: u64,
    ) {
        let mut turns = Turns::new(backing, node, &h.next_to_grow);
        let mut pools = h.pools.lock(m);
        let missing = target.saturating_sub(pools.total().persistent());
        turns.visit(missing, |node| pools.adjust_surplus(node, false));
    }

    /// Removes free folios until `target` persistent ones are left or the rest is
    /// needed; of those, what is beyond `target` becomes surplus.
    fn shrink_to<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        resize: &ResizeGuard<'_>,
        node: Option<NodeId>,
        target: u64,
    ) {
        let remove = |pools: &mut Pools, node| {
            let persistent = pools.total().persistent();
            let may = persistent > target.max(pools.needed());
            may.then(|| pools.remove(m, node, Kind::Persistent))?
        };
        loop {
            let turns = Turns::new(backing, node, &h.next_to_shrink);
            // What does not go is surplus then, so this ends.
            let (taken, _) = self.drain(m, backing, h, turns, BATCH, remove);
            resize.progress(m);
            if taken == 0 {
                break;
            }
        }
        let mut turns = Turns::new(backing, node, &h.next_to_shrink);
        let mut pools = h.pools.lock(m);
        let beyond = pools.total().persistent().saturating_sub(target);
        turns.visit(beyond, |node| pools.adjust_surplus(node, true));
    }

    fn log_shortfall<M: Machine>(
        &self,
        m: &M,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
        reached: u64,
    ) {
        let size = h.name();
        match node {
            None => m.log(
                Level::Warn,
                format_args!(
                    "HugeTLB: allocating {count} of page size {size} failed.  Only allocated {reached} hugepages."
                ),
            ),
            Some(node) => m.log(
                Level::Warn,
                format_args!(
                    "HugeTLB: allocating {count} of page size {size} failed node{node}.  Only allocated {reached} hugepages."
                ),
            ),
        }
    }
}
