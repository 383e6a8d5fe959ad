//! A frame that the hardware reports broken.

use super::{Backing, Handled, HwPoison, PoisonError, PoisonPolicy, huge_page, mark, online_page};
use crate::addr::Pfn;
use crate::hugetlb::{Hstate, HugeTlb};
use crate::machine::{Level, Machine};
use crate::page::Page;
use crate::vmemmap;
use core::sync::atomic::Ordering;

impl HwPoison {
    /// Takes the frame `pfn`, which is broken, out of use, now or as soon as it can be.
    ///
    /// # Errors
    /// [`PoisonError::NoRam`], [`PoisonError::AlreadyPoisoned`], or
    /// [`PoisonError::Busy`] for a frame that is neither free nor part of a huge page: the
    /// kernel's own. Nothing has changed then.
    pub fn memory_failure<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        pfn: Pfn,
    ) -> Result<Handled, PoisonError> {
        let _one = self.lock.lock(m);
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
        if let Some((h, head)) = huge_page(m, hugetlb, page) {
            let handled = self.huge_page_failure(m, hugetlb, backing, h, head, pfn);
            let result = match handled {
                Handled::Delayed => "Delayed",
                _ => "Recovered",
            };
            report("huge page", result);
            return Ok(handled);
        }
        if !backing.nodes.take_off(m, pfn) {
            report("kernel page", "Ignored");
            return Err(PoisonError::Busy(pfn));
        }
        self.count_known(true);
        report("free buddy page", "Recovered");
        Ok(Handled::Recovered)
    }

    #[doc(alias = "try_memory_failure_hugetlb")]
    fn huge_page_failure<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        h: &Hstate,
        head: Page,
        pfn: Pfn,
    ) -> Handled {
        // First of all: from here on nobody is given the folio.
        hugetlb.set_hwpoison(m, h, head, true);
        if self.note(m, hugetlb, backing, head, pfn) {
            self.count_known(true);
        } else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        match hugetlb.dissolve_free(m, backing, h, head, None) {
            Ok(()) => Handled::Recovered,
            Err(_) => Handled::Delayed,
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
