//! A frame that is taken out of use before it breaks.

use super::{Backing, Handled, HwPoison, PoisonError, online_page};
use crate::addr::Pfn;
use crate::hugetlb::{HugeTlb, Undissolved};
use crate::machine::{Level, Machine};

impl HwPoison {
    /// Takes the frame `pfn`, which works still, out of use, if nobody uses it. A free huge
    /// page that it is part of is dissolved: its pool has one page less.
    ///
    /// There is nothing here that would move data from one frame to another, so what is in
    /// use is busy.
    ///
    /// # Errors
    /// [`PoisonError`]; nothing has changed then.
    pub fn soft_offline_page<M: Machine>(
        &self,
        m: &M,
        hugetlb: &HugeTlb,
        backing: Backing<'_>,
        pfn: Pfn,
    ) -> Result<Handled, PoisonError> {
        let _one = self.lock.lock_patient(m);
        let memmap = backing.vmemmap.memmap();
        let page = online_page(m, memmap, pfn)?;
        let report = |what| {
            let pfn = pfn.as_u64();
            m.log(Level::Info, format_args!("soft offline: {pfn:#x}: {what}"));
        };
        if !self.soft_offline_enabled() {
            report("switched off by /proc/sys/vm/enable_soft_offline");
            return Err(PoisonError::Disabled);
        }
        if hugetlb.is_raw_hwpoison(m, memmap, page) {
            report("already poisoned");
            return Ok(Handled::Already);
        }
        if let Some((h, head)) = hugetlb.folio_of(m, memmap, pfn) {
            let dissolved = hugetlb.dissolve_free(m, backing, h, head, Some(pfn));
            if let Err(why) = dissolved {
                report("the huge page cannot be dissolved");
                return Err(match why {
                    Undissolved::Busy => PoisonError::Busy(pfn),
                    Undissolved::NoMemory => PoisonError::NoMemory(pfn),
                });
            }
        } else if !backing.nodes.take_off(m, pfn) {
            report("in use and cannot be moved");
            return Err(PoisonError::Busy(pfn));
        }
        self.count_known(true);
        Ok(Handled::Recovered)
    }
}
