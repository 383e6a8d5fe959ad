//! Surplus: folios made for mappings beyond the pool, and folios that are to go.
//!
//! A surplus folio goes back to the buddy allocator when it is put. If its memmap
//! cannot be restored just then it stays in the pool and is *stuck*; whatever frees
//! memory of the size later tries again. (In Linux such a folio stays until the pool
//! is first enlarged, so that it becomes persistent, and then made smaller.)

use super::counters::{Kind, Pools};
use super::fresh::{BATCH, Doomed};
use super::turns::Turns;
use super::{Backing, Hstate, HugeTlb};
use crate::addr::NodeId;
use crate::frames::Placement;
use crate::machine::Machine;
use crate::page::{Page, PageList, has_hwpoisoned};

/// There are too few folios, and no more may be made or none can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "ENOMEM")]
pub struct NoMemory;

impl HugeTlb {
    /// Tries again to give back what could not go before: surplus folios whose memmap could
    /// not be restored, and free folios with broken frames that were promised; how many
    /// went.
    pub fn retry_surplus<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate) -> u64 {
        let gone = self.retry_stuck(m, backing, h);
        if !h.pools.lock(m).poisoned_may_go() {
            return gone;
        }
        let _resize = h.resize.lock(m);
        gone + self.retire_poisoned(m, backing, h)
    }

    /// [`HugeTlb::retry_surplus`] for surplus folios, which needs no resize lock.
    pub(super) fn retry_stuck<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate) -> u64 {
        let mut gone = 0;
        while h.stuck(m) > 0 {
            let remove = |pools: &mut Pools, node| {
                let stuck = pools.stuck(node) > 0;
                stuck.then(|| pools.remove_stuck(m, node))?
            };
            let turns = Turns::new(backing, None, &h.next_to_shrink);
            let (taken, freed) = self.drain(m, backing, h, turns, BATCH, remove);
            gone += freed;
            if freed < taken || taken == 0 {
                break;
            }
        }
        gone
    }

    /// Drops a reference to a folio. The last one puts it back into its pool or, if its
    /// node has surplus, gives it back to the buddy allocator.
    ///
    /// # Panics
    /// If the folio has no reference, or is not of this size.
    #[doc(alias = "free_huge_folio")]
    pub fn put<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, head: Page) {
        if !h.put_last(m, head) {
            return;
        }
        let node = head.node(m);
        let mut doomed = Doomed::new();
        let mut pools = h.pools.lock(m);
        // A broken one goes by way of its pool, as below, so that it can be held meanwhile.
        // Where one waits to go, that is the one to go.
        let whole = !has_hwpoisoned(m, head);
        if whole && pools.counts(node).surplus > pools.broken_waiting(node) {
            pools.forget(node, Kind::Surplus);
            doomed.push(m, head);
        } else {
            pools.enqueue(m, head);
        }
        drop(pools);
        self.dissolve(m, backing, h, doomed);
        self.retry_surplus(m, backing, h);
    }

    /// Promises `count` folios; surplus ones are made if there are too few, near
    /// `placement`. If that names one node only, there are then `count` free folios
    /// on it, if it can be, whoever they are promised to.
    ///
    /// # Errors
    /// [`NoMemory`] with nothing promised and nothing made.
    #[doc(alias = "hugetlb_acct_memory")]
    #[doc(alias = "gather_surplus_pages")]
    pub(super) fn reserve<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        placement: Placement,
        count: u64,
    ) -> Result<(), NoMemory> {
        let mut made = PageList::new();
        loop {
            let mut pools = h.pools.lock(m);
            let missing = shortfall(&pools, placement, count).saturating_sub(made.len());
            if missing == 0 {
                // What is not needed any more, because others put theirs, goes again.
                let needed = shortfall(&pools, placement, count);
                for _ in 0..needed {
                    let Some(head) = made.pop(m) else { break };
                    pools.add(m, head, Kind::Surplus);
                    pools.came(1);
                }
                let reserved = pools.reserve(count);
                debug_assert!(reserved, "there were enough");
                drop(pools);
                self.unmake(m, backing, h, made);
                return Ok(());
            }
            let granted = pools.expect(missing);
            drop(pools);
            let turns = Turns::near(backing, placement);
            let mut batch = if granted == missing {
                self.alloc_fresh(m, backing, h, turns, granted)
            } else {
                PageList::new()
            };
            let short = batch.len() < missing;
            h.pools.lock(m).came(granted - batch.len());
            made.append(m, &mut batch);
            if short {
                self.unmake(m, backing, h, made);
                return Err(NoMemory);
            }
        }
    }

    /// Gives folios back that were made but are not needed.
    fn unmake<M: Machine>(&self, m: &M, backing: Backing<'_>, h: &Hstate, mut made: PageList) {
        if made.is_empty() {
            return;
        }
        h.pools.lock(m).came(made.len());
        let mut doomed = Doomed::new();
        while let Some(head) = made.pop(m) {
            doomed.push(m, head);
        }
        self.dissolve(m, backing, h, doomed);
    }

    /// Takes `count` promises back, and as many free surplus folios, which were made for
    /// promises.
    #[doc(alias = "return_unused_surplus_pages")]
    pub(super) fn unreserve<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        count: u64,
    ) {
        h.pools.lock(m).unreserve(count);
        let mut left = count;
        while left > 0 {
            let turns = Turns::new(backing, None, &h.next_to_shrink);
            let remove = |pools: &mut Pools, node| pools.remove(m, node, Kind::Surplus);
            let (taken, _) = self.drain(m, backing, h, turns, BATCH.min(left), remove);
            if taken == 0 {
                break;
            }
            left -= taken;
        }
        self.retry_surplus(m, backing, h);
    }

    /// A folio with a count of one for a mapping that was promised none, from near
    /// `placement`: one that nobody was promised, or a new surplus one.
    #[doc(alias = "alloc_hugetlb_folio")]
    #[doc(alias = "alloc_surplus_hugetlb_folio")]
    pub(super) fn take_or_make<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        placement: Placement,
    ) -> Option<Page> {
        let mut pools = h.pools.lock(m);
        let mut nodes = backing.nodes.near(placement);
        if let Some(head) = nodes.find_map(|node| pools.take(m, node)) {
            return Some(head);
        }
        let granted = pools.expect(1);
        drop(pools);
        if granted == 0 {
            return None;
        }
        let turns = Turns::near(backing, placement);
        let made = self.alloc_fresh(m, backing, h, turns, 1).pop(m);
        let mut pools = h.pools.lock(m);
        pools.came(1);
        let head = made?;
        pools.add_taken(m, head);
        head.set_ref_count(m, 1);
        Some(head)
    }

    /// A folio with a count of one for a mapping that was promised one; the promise is
    /// kept then.
    pub(super) fn take_promised<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        placement: Placement,
    ) -> Option<Page> {
        let mut pools = h.pools.lock(m);
        let mut nodes = backing.nodes.near(placement);
        nodes.find_map(|node| pools.take_reserved(m, node))
    }
}

/// Folios to be made before `count` more can be promised.
fn shortfall(pools: &Pools, placement: Placement, count: u64) -> u64 {
    let free = match placement {
        Placement::Only(node) => free_on(pools, node),
        Placement::Prefer(_) => u64::MAX,
    };
    let anywhere = count.saturating_sub(pools.available());
    anywhere.max(count.saturating_sub(free))
}

fn free_on(pools: &Pools, node: NodeId) -> u64 {
    pools.usable(node)
}
