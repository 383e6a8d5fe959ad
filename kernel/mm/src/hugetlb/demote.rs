//! Demote: free 1 GiB folios become 2 MiB ones, in place. Promote: the way back, which
//! Linux lacks.

use super::counters::Kind;
use super::hold::is_free_of;
use super::turns::Turns;
use super::{Backing, Event, Hstate, HugeTlb};
use crate::addr::{NodeId, Pfn};
use crate::machine::Machine;
use crate::page::{self, Memmap, Page, PageList, has_hwpoisoned};
use crate::paging;
use crate::vmemmap::{self, Fill};

/// Folios demoted with one flush.
const BATCH: u64 = 8;

impl HugeTlb {
    /// The size that folios of `h` are demoted to.
    #[doc(alias = "demote_size")]
    #[doc(alias = "demote_order")]
    pub fn demote_target(&self, h: &Hstate) -> Option<&Hstate> {
        let mut smaller = self.hstates.iter().rev();
        smaller.find(|target| target.order() < h.order())
    }

    /// Demotes up to `count` free persistent folios of `h` that no mapping was promised, of `node`
    /// or of all nodes in turn. Returns how many were demoted.
    ///
    /// The parts of a folded folio stay folded whatever `hugetlb_optimize_vmemmap` says: only
    /// frames for their heads, and the tables that these need, are allocated. The parts of an
    /// unfolded folio are folded if the switch is on. The first folio for which there is too little
    /// memory stays what it is, and ends the work.
    #[doc(alias = "demote_pool_huge_page")]
    #[doc(alias = "demote_store")]
    pub fn demote<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let Some(target) = self.demote_target(h) else {
            return 0;
        };
        // The larger size first, as promotion does.
        let resize = h.resize.lock(m);
        let target_resize = target.resize.lock_nested(m, &resize);
        let mut done = 0;
        while done < count {
            let (mut folded, mut plain) = (PageList::new(), PageList::new());
            let mut turns = Turns::new(backing, node, &h.next_to_shrink);
            let mut pools = h.pools.lock(m);
            turns.visit(BATCH.min(count - done), |node| {
                let head = pools.remove_whole(m, node, Kind::Persistent);
                if let Some(head) = head {
                    let list = if vmemmap::is_optimized(m, head) {
                        &mut folded
                    } else {
                        &mut plain
                    };
                    list.push(m, head);
                }
                head.is_some()
            });
            drop(pools);
            let taken = folded.len() + plain.len();
            if taken == 0 {
                break;
            }
            let Backing { nodes, vmemmap } = backing;
            let (from, to) = (h.order(), target.order());
            if !page::SHARES_ACROSS_NODE {
                // No tail of theirs can be another folio's: the long way.
                let restored = vmemmap.restore_folios(m, nodes, &folded, from, Fill::Tails);
                for _ in 0..restored {
                    let head = folded.pop(m).expect("restored from the front");
                    plain.push(m, head);
                }
            }
            let mut demoted = vmemmap.demote_folios(m, nodes, &folded, from, to);
            for _ in 0..demoted {
                let head = folded.pop(m).expect("demoted from the front");
                self.admit_parts(m, target, head, h);
            }
            while let Some(head) = plain.pop(m) {
                page::split_compound(m, head, from, to);
                self.fold_parts(m, backing, target, head, h);
                self.admit_parts(m, target, head, h);
                demoted += 1;
            }
            put_back(m, h, &mut folded);
            done += demoted;
            resize.progress(m);
            target_resize.progress(m);
            if demoted < taken {
                // The first that was put back was tried, those behind it were not.
                self.events.count(Event::DemoteFail, 1);
                break;
            }
        }
        done
    }

    /// Promotes up to `count` naturally aligned blocks, each of free persistent folios of
    /// the size below `h` on one node that no mapping was promised, to folios of `h`;
    /// how many. The frames of all heads but the first come back.
    pub fn promote<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        node: Option<NodeId>,
        count: u64,
    ) -> u64 {
        let Some(small) = self.demote_target(h) else {
            return 0;
        };
        let resize = h.resize.lock(m);
        let small_resize = small.resize.lock_nested(m, &resize);
        let mut done = 0;
        while done < count {
            let mut nodes = backing.nodes.online();
            let asked = |n: &NodeId| node.is_none_or(|node| node == *n);
            let head = nodes
                .by_ref()
                .filter(asked)
                .find_map(|node| take_block(m, backing, h, small, node));
            let Some(head) = head else { break };
            if !self.merge(m, backing, h, small, head) {
                self.admit_parts(m, small, head, h);
                self.events.count(Event::PromoteFail, 1);
                break;
            }
            h.pools.lock(m).add(m, head, Kind::Persistent);
            done += 1;
            resize.progress(m);
            small_resize.progress(m);
        }
        done
    }

    /// Makes one folio of the parts at `head`, which are in no pool; whether it could.
    fn merge<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        small: &Hstate,
        head: Page,
    ) -> bool {
        let Backing { nodes, vmemmap } = backing;
        let (from, to) = (h.order(), small.order());
        let folded = |part: &Page| vmemmap::is_optimized(m, *part);
        let mut mixed = parts(head, h, small).any(|part| folded(&part) != folded(&head));
        if mixed && page::SHARES_ACROSS_NODE {
            self.fold_parts(m, backing, small, head, h);
            mixed = !parts(head, h, small).all(|part| folded(&part));
        }
        if mixed || (folded(&head) && !page::SHARES_ACROSS_NODE) {
            // The switch is off, or memory is short: all unfolded will do as well. So it
            // must be where no tail can become another folio's.

            let mut list = PageList::new();
            parts(head, h, small)
                .filter(folded)
                .for_each(|part| list.push(m, part));
            let all = list.len();
            let restored = vmemmap.restore_folios(m, nodes, &list, to, Fill::Tails);
            while list.pop(m).is_some() {}
            if restored < all {
                return false;
            }
        }
        if folded(&head) {
            return vmemmap.promote_folio(m, nodes, head, from, to).is_ok();
        }
        page::merge_compound(m, head, from, to);
        let mut list = PageList::new();
        list.push(m, head);
        self.fold_batch(m, backing, h, &list);
        list.pop(m);
        true
    }

    /// Folds those parts of the block at `head` that are not, if that is wanted, as far as
    /// it goes.
    fn fold_parts<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        small: &Hstate,
        head: Page,
        h: &Hstate,
    ) {
        let mut list = PageList::new();
        parts(head, h, small)
            .filter(|part| !vmemmap::is_optimized(m, *part))
            .for_each(|part| list.push(m, part));
        self.fold_batch(m, backing, small, &list);
        while list.pop(m).is_some() {}
    }

    /// Puts all parts of the block at `head` into the pool of their size.
    fn admit_parts<M: Machine>(&self, m: &M, small: &Hstate, head: Page, h: &Hstate) {
        let mut pools = small.pools.lock(m);
        for part in parts(head, h, small) {
            pools.add(m, part, Kind::Persistent);
        }
    }
}

/// The heads of the folios of `small` that a folio of `h` at `head` consists of.
fn parts(head: Page, h: &Hstate, small: &Hstate) -> impl Iterator<Item = Page> {
    let pages = small.order().pages();
    (0..h.order().pages() / pages).map(move |n| head.nth(n * pages))
}

fn put_back<M: Machine>(m: &M, h: &Hstate, list: &mut PageList) {
    let mut pools = h.pools.lock(m);
    while let Some(head) = list.pop(m) {
        pools.add(m, head, Kind::Persistent);
    }
}

/// Takes all folios of `small` of one block that a folio of `h` could be out of the pool
/// of `node`, if there is such a block; its first page. The block with the lowest address is
/// taken.
///
/// Blocks are looked for by address and not on the free list, which may have any length: the lock
/// is held for one block at a time.
fn take_block<M: Machine>(
    m: &M,
    backing: Backing<'_>,
    h: &Hstate,
    small: &Hstate,
    node: NodeId,
) -> Option<Page> {
    let memmap = backing.vmemmap.memmap();
    let span = backing.nodes.get(node).span();
    let (pages, end) = (h.order().pages(), span.end.as_u64());
    let first = span.start.as_u64().next_multiple_of(pages);
    let blocks = (first..end).step_by(usize::try_from(pages).ok()?);
    for pfn in blocks.filter(|pfn| pfn + pages <= end) {
        let head = memmap.page(Pfn::new(pfn));
        // Without the lock this may be true no longer, and is looked at again.
        if !is_part(m, memmap, small, head, node) {
            continue;
        }
        let mut pools = small.pools.lock(m);
        let count = pages / small.order().pages();
        if pools.available() < count || pools.counts(node).persistent() < count {
            return None;
        }
        if parts(head, h, small).all(|part| is_part(m, memmap, small, part, node)) {
            for part in parts(head, h, small) {
                let removed = pools.remove_this(m, node, part, Kind::Persistent);
                debug_assert!(removed, "counted above");
            }
            return Some(head);
        }
    }
    None
}

/// Whether there is a free folio of `small` on `node` at `part`, sound as far as is known.
fn is_part<M: Machine>(m: &M, memmap: Memmap, small: &Hstate, part: Page, node: NodeId) -> bool {
    let pfn = memmap.pfn(part);
    // A section that is a hole has no struct pages to look at.
    let there = !pfn.is_aligned(Memmap::SECTION) || paging::is_mapped(m, m.root(), part.address());
    there && is_free_of(m, small, part) && !has_hwpoisoned(m, part) && part.node(m) == node
}
