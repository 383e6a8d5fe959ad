//! Growing and shrinking the pools.
//!
//! Both work in batches, with one TLB flush a batch and no lock held over it but the
//! resize lock.

use super::counters::{Kind, Pools};
use super::fresh::{BATCH, Doomed};
use super::turns::Turns;
use super::{Backing, Hstate, HugeTlb};
use crate::addr::NodeId;
use crate::machine::{Level, Machine};
use crate::page::Page;
use crate::progress_lock::ProgressGuard;

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
        resize: &ProgressGuard<'_>,
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
        resize: &ProgressGuard<'_>,
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
