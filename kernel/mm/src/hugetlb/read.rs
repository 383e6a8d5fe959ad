//! Reading the content of a huge page, around broken frames.

use super::HugeTlb;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::machine::Machine;
use crate::page::{self, Memmap, Page, has_hwpoisoned};

/// Why nothing was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The frame with the first byte is broken.
    #[doc(alias = "EIO")]
    #[error("pfn {:#x} is broken", .0.as_u64())]
    Broken(Pfn),
    /// The position in bytes is no multiple of 8.
    #[doc(alias = "EINVAL")]
    #[error("position {0} is no multiple of 8")]
    Misaligned(u64),
}

impl HugeTlb {
    /// Reads the folio with head `head`, of which the caller has a reference, from byte `at`
    /// on; how many words it read: fewer than there is room for if the folio ends, or before
    /// a broken frame. Of a folio that does not know which frames are broken, none is read.
    ///
    /// # Errors
    /// [`ReadError`].
    #[doc(alias = "hugetlbfs_read_iter")]
    #[doc(alias = "adjust_range_hwpoison")]
    pub fn read<M: Machine>(
        &self,
        m: &M,
        memmap: Memmap,
        head: Page,
        at: u64,
        words: &mut [u64],
    ) -> Result<usize, ReadError> {
        if !at.is_multiple_of(8) {
            return Err(ReadError::Misaligned(at));
        }
        let broken = has_hwpoisoned(m, head);
        let (first, end) = (memmap.pfn(head), page::folio_order(m, head).bytes());
        let mut read = 0;
        for (at, word) in (at..end).step_by(8).zip(words) {
            let page = at / PAGE_SIZE;
            let first_of_page = read == 0 || at.is_multiple_of(PAGE_SIZE);
            if broken && first_of_page && self.is_raw_hwpoison(m, memmap, head.nth(page)) {
                return match read {
                    0 => Err(ReadError::Broken(first.offset(page))),
                    _ => Ok(read),
                };
            }
            *word = m.read_phys(first.phys().offset(at));
            read += 1;
        }
        Ok(read)
    }
}
