//! A tail holds no pointer but a mask: a block of 2^order pages is naturally aligned,
//! and so is its run of struct pages, as long as the memmap is; clearing low bits of a
//! tail's own address then gives its head's. All tails of one order are the same bytes.

use super::{BlockInfo, Encoding, PageShape, PageShapeInfo, Sharing, TAIL, word};
use crate::addr::VirtAddr;

/// The mask, and bit 0. Linux since 2026.
#[derive(Clone, Copy, Debug)]
pub struct Mask;

impl Encoding for Mask {
    const NAME: &'static str = "mask";
    const SHARING: Sharing = Sharing::AcrossNode;
    const COMPUTES: bool = true;
    const DESCRIPTOR: bool = false;

    fn tail<S: PageShape>(block: &BlockInfo) -> u64 {
        let shift = u32::from(block.order.get()) + S::SHIFT.unwrap_or(0);
        (u64::MAX << shift) | TAIL
    }

    #[inline(always)]
    fn is_tail<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> bool {
        word::<S>(load, page) & TAIL != 0
    }

    /// No branch: for a page that is no tail the mask becomes all ones. Bit 0 need not be
    /// cleared, because the page's own address has it clear.
    #[inline(always)]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
        let word = word::<S>(load, page);
        page.masked((word & TAIL).wrapping_sub(1) | word)
    }
}
