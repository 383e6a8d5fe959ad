//! Broken memory: frames that are never handed out again.
//!
//! A free frame leaves the buddy allocator. A free huge page is dissolved: its memmap is
//! unfolded, the broken frame stays out, the others become free. A huge page in use stays
//! with its users, who cannot read the broken page, and goes when the last one puts it. A
//! frame of the kernel's own (memmap, table, heap, boot image) is marked and goes on being
//! used, since there is no way to move it; it stays out when it is given back.
//!
//! The struct page of a folded tail cannot be written. Which frame of a folio is broken is
//! therefore kept in one of two ways ([`PoisonPolicy`]).

mod failure;
mod soft;
mod unpoison;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::addr::Pfn;
use crate::hugetlb::Backing;
use crate::machine::Machine;
use crate::page::{Flags, Memmap, Page, STRUCT_PAGE_SIZE};
use crate::paging;
use crate::progress_lock::ProgressLock;

/// Where it is kept which frame of a huge page in use is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoisonPolicy {
    /// On a list that hangs on the folio; moved to the struct pages when these are
    /// unfolded. As in Linux.
    #[doc(alias = "raw_hwp_list_head")]
    List,
    /// In its own struct page at once: the page of memmap that it lies in gets a frame of
    /// its own. Falls back to the list when there is none.
    CopyOnWrite,
}

/// What has become of a broken frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    /// Nobody can get it any more.
    #[doc(alias = "MF_RECOVERED")]
    Recovered,
    /// It is part of a huge page that goes when its users, the promises on it or the want of
    /// memory let it.
    #[doc(alias = "MF_DELAYED")]
    Delayed,
    /// The kernel itself has it, and goes on using it. It is marked, and never used again
    /// once it has been given back.
    #[doc(alias = "MF_IGNORED")]
    Ignored,
    /// It was known before. Only for soft offlining, to which that is no error.
    Already,
}

/// Why a frame was not handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoisonError {
    /// There is no such RAM.
    #[doc(alias = "ENXIO")]
    #[error("pfn {:#x} is no RAM", .0.as_u64())]
    NoRam(Pfn),
    /// It was known to be broken.
    #[doc(alias = "EHWPOISON")]
    #[error("pfn {:#x} is known to be broken", .0.as_u64())]
    AlreadyPoisoned(Pfn),
    /// It is not broken, so it cannot be repaired.
    #[error("pfn {:#x} is not broken", .0.as_u64())]
    NotPoisoned(Pfn),
    /// It is in use by what can neither do without it nor be moved; or, to be repaired, part
    /// of a folio that does not know which of its frames are broken.
    #[doc(alias = "EBUSY")]
    #[error("pfn {:#x} is in use and cannot be moved", .0.as_u64())]
    Busy(Pfn),
    /// No memory to restore the struct pages of the huge page that it is part of.
    #[doc(alias = "ENOMEM")]
    #[error("no memory for the struct pages of the huge page of pfn {:#x}", .0.as_u64())]
    NoMemory(Pfn),
    /// Soft offlining is switched off.
    #[doc(alias = "EOPNOTSUPP")]
    #[error("soft offlining is switched off")]
    Disabled,
}

/// The broken frames of a machine, and what is done about new ones.
#[derive(Debug)]
#[doc(alias = "num_poisoned_pages")]
pub struct HwPoison {
    /// One at a time, before every other lock.
    #[doc(alias = "mf_mutex")]
    lock: ProgressLock,
    /// Relaxed, all of them: switches, and numbers that change under the lock.
    policy: AtomicU8,
    #[doc(alias = "sysctl_enable_soft_offline")]
    soft_offline: AtomicBool,
    known: AtomicU64,
    unknown: AtomicU64,
}

impl Default for HwPoison {
    fn default() -> Self {
        Self::new()
    }
}

impl HwPoison {
    /// None broken; lists; soft offlining on.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lock: ProgressLock::new("a broken frame that is being handled"),
            policy: AtomicU8::new(PoisonPolicy::List as u8),
            soft_offline: AtomicBool::new(true),
            known: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Where new broken frames of huge pages in use are noted.
    pub fn policy(&self) -> PoisonPolicy {
        if self.policy.load(Ordering::Relaxed) == PoisonPolicy::List as u8 {
            PoisonPolicy::List
        } else {
            PoisonPolicy::CopyOnWrite
        }
    }

    /// Sets [`HwPoison::policy`]. What is noted already stays where it is.
    pub fn set_policy(&self, policy: PoisonPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    /// Whether frames may be soft offlined.
    #[doc(alias = "enable_soft_offline")]
    pub fn soft_offline_enabled(&self) -> bool {
        self.soft_offline.load(Ordering::Relaxed)
    }

    /// Sets [`HwPoison::soft_offline_enabled`].
    pub fn enable_soft_offline(&self, on: bool) {
        self.soft_offline.store(on, Ordering::Relaxed);
    }

    /// Broken frames.
    #[doc(alias = "HardwareCorrupted")]
    pub fn pages(&self) -> u64 {
        self.known() + self.unknown.load(Ordering::Relaxed)
    }

    /// Those of them that a struct page or a list names.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    fn count_known(&self, up: bool) {
        if up {
            self.known.fetch_add(1, Ordering::Relaxed);
        } else {
            self.known.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The struct page of `pfn`, if it has one.
#[doc(alias = "pfn_to_online_page")]
fn online_page<M: Machine>(m: &M, memmap: Memmap, pfn: Pfn) -> Result<Page, PoisonError> {
    let inside = pfn.as_u64() < Memmap::WINDOW / STRUCT_PAGE_SIZE;
    let there = |page: &Page| paging::is_mapped(m, m.root(), page.address());
    inside
        .then(|| memmap.page(pfn))
        .filter(there)
        .ok_or(PoisonError::NoRam(pfn))
}

/// Marks the struct page of a broken frame, which is writable, or unmarks it.
#[doc(alias = "SetPageHWPoison")]
fn mark<M: Machine>(m: &M, page: Page, broken: bool) {
    page.change_flag(m, Flags::HWPOISON, broken);
}
