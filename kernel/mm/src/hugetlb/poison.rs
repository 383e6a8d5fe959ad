//! Huge pages with broken frames: what the pools do about them.
//!
//! A folio of which a frame is broken has [`Flags::HAS_HWPOISONED`] in its head. Nobody is
//! given it any more; when nobody has it, it goes back to the buddy allocator, all but the
//! broken frames. Which ones these are, their struct pages say ([`Flags::HWPOISON`] is
//! always exact), or, while those are folded, a list (`raw_hwp.rs`).

use super::counters::{Kind, Pools};
use super::fresh::{BATCH, Doomed};
use super::hold::is_free_of;
use super::raw_hwp::is_unreliable;
use super::turns::Turns;
use super::{Backing, Event, Hstate, HugeTlb};
use crate::addr::Pfn;
use crate::machine::Machine;
use crate::page::{Flags, Memmap, Page, has_hwpoisoned};

/// Why a free folio was not given back. It is in its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undissolved {
    /// Somebody has it, or all free folios are promised.
    #[doc(alias = "EBUSY")]
    Busy,
    /// There was no memory for its struct pages.
    #[doc(alias = "ENOMEM")]
    NoMemory,
}

impl HugeTlb {
    /// Whether the frame of `page` is broken, which need not be part of a huge page. If a
    /// folio does not know which of its frames are, all of them count as broken.
    #[doc(alias = "is_raw_hwpoison_page_in_hugepage")]
    #[doc(alias = "is_page_hwpoison")]
    pub fn is_raw_hwpoison<M: Machine>(&self, m: &M, memmap: Memmap, page: Page) -> bool {
        let marked = || page.flags(m).contains(Flags::HWPOISON);
        let pfn = memmap.pfn(page);
        let listed = || {
            self.folio_of(m, memmap, pfn)
                .filter(|(_, head)| has_hwpoisoned(m, *head))
                .is_some_and(|(_, head)| self.raw_hwp.contains(m, head, pfn))
        };
        // What the list knows may have moved to the page while the list was read.
        marked() || listed() || marked()
    }

    /// Frames that hold lists of broken pages.
    pub fn raw_hwp_frames<M: Machine>(&self, m: &M) -> u64 {
        self.raw_hwp.frames(m)
    }

    /// Gives the free folio with head `head` back to the buddy allocator, all but `broken`
    /// and what else of it is known to be broken.
    ///
    /// # Errors
    /// - [`Undissolved::Busy`] if the folio is used or promised, is no free folio of this size any
    ///   more, or, with `broken` given, has a broken frame already. It is as it was.
    /// - [`Undissolved::NoMemory`] if its struct pages cannot be restored. A folio with broken
    ///   frames stays as surplus and is tried again later; any other is as it was.
    #[doc(alias = "dissolve_free_hugetlb_folio")]
    pub(crate) fn dissolve_free<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        head: Page,
        broken: Option<Pfn>,
    ) -> Result<(), Undissolved> {
        let _resize = h.resize.lock(m);
        let node = head.node(m);
        let mut pools = h.pools.lock(m);
        let kind = pools.kind_to_go(node);
        // With `broken` a frame that still works is taken out, so the folio must have no broken one
        // yet; without it, the folio goes because it has.
        if !is_free_of(m, h, head) || has_hwpoisoned(m, head) == broken.is_some() {
            return Err(Undissolved::Busy);
        }
        let waiting = pools.stuck(node);
        if !pools.remove_this(m, node, head, kind) {
            return Err(Undissolved::Busy);
        }
        let stuck = pools.stuck(node) < waiting;
        drop(pools);
        if has_hwpoisoned(m, head) {
            let mut doomed = Doomed::new();
            doomed.push(m, head);
            return match self.dissolve(m, backing, h, doomed) {
                0 => Err(Undissolved::NoMemory),
                _ => Ok(()),
            };
        }
        if !self.restore_unused(m, backing, h, head) {
            self.events.count(Event::RestoreFail, 1);
            let mut pools = h.pools.lock(m);
            if stuck {
                pools.add_stuck(m, head);
            } else {
                pools.add(m, head, kind);
            }
            return Err(Undissolved::NoMemory);
        }
        if let Some(pfn) = broken {
            let page = backing.vmemmap.memmap().page(pfn);
            page.change_flag(m, Flags::HWPOISON, true);
            head.change_flag(m, Flags::HAS_HWPOISONED, true);
        }
        self.release(m, backing, h, head);
        Ok(())
    }

    /// Puts the mark of the folio with head `head` right: it has one if a frame is broken.
    /// Nobody is given a folio that has one.
    pub(crate) fn set_hwpoison<M: Machine>(&self, m: &M, h: &Hstate, head: Page, broken: bool) {
        let mut pools = h.pools.lock(m);
        // Who reads the folio's list has seen the mark, and keeps this lock (HP-10).
        let lists = self.raw_hwp.lock(m);
        pools.set_poisoned(m, head, broken);
        drop(lists);
    }

    /// Moves what the list of `head` knows to the struct pages of the frames themselves,
    /// which are writable by now, and takes the folio's mark away.
    #[doc(alias = "folio_clear_hugetlb_hwpoison")]
    pub(super) fn clear_hwpoison<M: Machine>(&self, m: &M, backing: Backing<'_>, head: Page) {
        debug_assert!(!is_unreliable(m, head), "{head:?} is to be leaked");
        while let Some(pfn) = self.raw_hwp.first_or_end(m, head) {
            let page = backing.vmemmap.memmap().page(pfn);
            // Before the list forgets: at no moment is the frame thought whole.
            page.change_flag(m, Flags::HWPOISON, true);
            self.raw_hwp.remove(m, backing.nodes, head, pfn);
        }
    }

    /// Gives free folios with broken frames back that could not go before, because they were
    /// promised or for want of memory; how many went. Under the resize lock.
    pub(super) fn retire_poisoned<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
    ) -> u64 {
        let mut gone = 0;
        while h.pools.lock(m).poisoned_may_go() {
            let turns = Turns::new(backing, None, &h.next_to_shrink);
            let remove = |pools: &mut Pools, node| pools.remove_poisoned(m, node);
            let (taken, freed) = self.drain(m, backing, h, turns, BATCH, remove);
            gone += freed;
            // What did not go is in the pool again, and would be taken for ever.
            if freed < taken || taken == 0 {
                break;
            }
        }
        gone
    }
}

impl Pools {
    /// As what a folio of `node` is counted that must go.
    pub(super) fn kind_to_go(&self, node: crate::addr::NodeId) -> Kind {
        if self.counts(node).surplus > 0 {
            Kind::Surplus
        } else {
            Kind::Persistent
        }
    }
}
