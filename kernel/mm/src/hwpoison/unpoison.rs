//! A frame that turns out not to be broken. For tests, as in Linux.

use super::{Backing, HwPoison, PoisonError, mark, online_page};
use crate::addr::Pfn;
use crate::hugetlb::{Hold, HugeTlb, is_unreliable};
use crate::machine::{Level, Machine};
use crate::page::{Flags, Page, any_page_hwpoisoned};
use crate::vmemmap;

impl HwPoison {
    /// Takes back what was said of the frame `pfn`: it is free, or part of its huge page,
    /// as any other.
    ///
    /// # Errors
    /// [`PoisonError::NoRam`], [`PoisonError::NotPoisoned`], or [`PoisonError::Busy`] for a
    /// frame of a folio that does not know which of its frames are broken, or one that
    /// changes hands all the time. Nothing has changed then.
    pub fn unpoison_memory<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        pfn: Pfn,
    ) -> Result<(), PoisonError> {
        let _one = self.lock.lock_patient(m);
        let memmap = backing.vmemmap.memmap();
        let page = online_page(m, memmap, pfn)?;
        if !hugetlb.is_raw_hwpoison(m, memmap, page) {
            return Err(PoisonError::NotPoisoned(pfn));
        }
        let unreliable = |(_, head)| is_unreliable(m, head);
        if hugetlb.folio_of(m, memmap, pfn).is_some_and(unreliable) {
            return Err(PoisonError::Busy(pfn));
        }
        match hugetlb.hold(m, memmap, pfn) {
            Hold::Folio(held) => {
                let (h, head) = (held.h, held.head);
                self.forget(m, hugetlb, backing, head, pfn);
                let whole = hugetlb.raw_hwp.is_empty(m, head) && !any_page_hwpoisoned(m, head);
                if whole {
                    hugetlb.set_hwpoison(m, h, head, false);
                }
                hugetlb.let_go(m, backing, held);
                hugetlb.retry_surplus(m, backing, h);
            }
            // Broken and in no huge page: out of the allocator, and nobody else's to put back.
            Hold::NoHugePage => backing.nodes.put_back(m, pfn),
            Hold::Moving => return Err(PoisonError::Busy(pfn)),
        }
        self.count_known(false);
        let pfn = pfn.as_u64();
        m.log(
            Level::Info,
            format_args!("Unpoison: software-unpoisoned page {pfn:#x}"),
        );
        Ok(())
    }

    /// Takes back what the folio of `head` knows of `pfn`.
    fn forget<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        head: Page,
        pfn: Pfn,
    ) {
        let page = backing.vmemmap.memmap().page(pfn);
        if !page.flags(m).contains(Flags::HWPOISON) {
            let listed = hugetlb.raw_hwp.remove(m, backing.nodes, head, pfn);
            debug_assert!(listed, "{pfn:?} was broken, but neither marked nor listed");
            return;
        }
        mark(m, page, false);
        if vmemmap::is_optimized(m, head) {
            // Whether it was shared again depends on the frame's other struct pages.
            let _ = backing.vmemmap.reshare_page(m, backing.nodes, head, page);
        }
    }
}
