//! A frame that the hardware reports broken.

use super::{Backing, Handled, HwPoison, PoisonError, PoisonPolicy, mark, online_page};
use crate::addr::Pfn;
use crate::hugetlb::{Held, Hold, HugeTlb};
use crate::machine::{Level, Machine};
use crate::node::Broken;
use crate::page::Page;
use crate::vmemmap;
use core::sync::atomic::Ordering;

/// How often a frame that is neither free nor part of a huge page is looked at again.
const TRIES: u32 = 16;

impl HwPoison {
    /// Takes the frame `pfn`, which is broken, out of use, now or as soon as it can be.
    ///
    /// # Errors
    /// [`PoisonError::NoRam`], [`PoisonError::AlreadyPoisoned`], or
    /// [`PoisonError::Busy`] for a frame of a folded compound page that is no huge page, or one
    /// that changes hands all the time. Nothing has changed then.
    pub fn memory_failure<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        pfn: Pfn,
    ) -> Result<Handled, PoisonError> {
        let _one = self.lock.lock_patient(m);
        let memmap = backing.vmemmap.memmap();
        let page = online_page(m, memmap, pfn)?;
        let report = |what, result| {
            let pfn = pfn.as_u64();
            m.log(
                Level::Warn,
                format_args!("Memory failure: {pfn:#x}: {what}: {result}"),
            );
        };
        if hugetlb.is_raw_hwpoison(m, memmap, page) {
            report("already hardware poisoned", "Ignored");
            return Err(PoisonError::AlreadyPoisoned(pfn));
        }
        let Some((what, handled)) = self.take_away(m, hugetlb, backing, pfn) else {
            report("folded compound page", "Failed");
            return Err(PoisonError::Busy(pfn));
        };
        let result = match handled {
            Handled::Delayed => "Delayed",
            Handled::Ignored => "Ignored",
            _ => "Recovered",
        };
        report(what, result);
        Ok(handled)
    }

    /// What the frame was part of, and what has become of it; `None` if it could not be
    /// marked. A frame that changes hands between the looks is looked at again.
    fn take_away<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        pfn: Pfn,
    ) -> Option<(&'static str, Handled)> {
        let memmap = backing.vmemmap.memmap();
        for _ in 0..TRIES {
            match hugetlb.hold(m, memmap, pfn) {
                Hold::Folio(held) => {
                    let handled = self.huge_page_failure(m, hugetlb, backing, held, pfn);
                    return Some(("huge page", handled));
                }
                Hold::NoHugePage => {
                    let is_huge = || hugetlb.folio_of(m, memmap, pfn).is_some();
                    let done = match backing.nodes.set_broken(m, pfn, is_huge) {
                        Broken::WasFree => ("free buddy page", Handled::Recovered),
                        Broken::InUse => ("kernel page", Handled::Ignored),
                        Broken::Not => continue,
                    };
                    self.count_known(true);
                    return Some(done);
                }
                Hold::Moving => return None,
            }
        }
        None
    }

    #[doc(alias = "try_memory_failure_hugetlb")]
    fn huge_page_failure<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        held: Held<'_>,
        pfn: Pfn,
    ) -> Handled {
        let Held { h, head, free, .. } = held;
        let memmap = backing.vmemmap.memmap();
        // First of all: from here on nobody is given the folio.
        hugetlb.set_hwpoison(m, h, head, true);
        if self.note(m, hugetlb, backing, head, pfn) {
            self.count_known(true);
        } else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        hugetlb.let_go(m, backing, held);
        let gone = free && hugetlb.dissolve_free(m, backing, h, head, None).is_ok();
        // Somebody else may have been faster.
        if gone || hugetlb.folio_of(m, memmap, pfn).is_none() {
            Handled::Recovered
        } else {
            Handled::Delayed
        }
    }

    /// Notes that `pfn` of the folio of `head` is broken; whether there was memory to.
    fn note<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        head: Page,
        pfn: Pfn,
    ) -> bool {
        let page = backing.vmemmap.memmap().page(pfn);
        if self.policy() == PoisonPolicy::CopyOnWrite {
            let unshared = backing.vmemmap.unshare_page(m, backing.nodes, head, page);
            if unshared.is_ok() || !vmemmap::is_optimized(m, head) {
                mark(m, page, true);
                return true;
            }
        }
        hugetlb.raw_hwp.add(m, backing.nodes, head, pfn).is_ok()
    }
}
