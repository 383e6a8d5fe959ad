//! A tail holds its folio's order: the mask is made of it when it is needed. The same
//! sharing as [`Mask`](super::Mask) for one more shift, and a word that means the same
//! at whatever address it is read.

use super::{BlockInfo, Encoding, PageShape, Sharing, TAIL, word};
use crate::addr::VirtAddr;

/// The order, from bit 1 on, and bit 0.
#[derive(Clone, Copy, Debug)]
pub struct OrderInField;

impl Encoding for OrderInField {
    const NAME: &'static str = "order";
    const SHARING: Sharing = Sharing::AcrossNode;
    const COMPUTES: bool = true;
    const DESCRIPTOR: bool = false;

    fn tail<S: PageShape>(block: &BlockInfo) -> u64 {
        u64::from(block.order.get()) << 1 | TAIL
    }

    #[inline(always)]
    fn is_tail<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> bool {
        word::<S>(load, page) & TAIL != 0
    }

    /// No branch: for a page that is no tail, nothing is left of the mask's complement.
    #[inline(always)]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
        let word = word::<S>(load, page);
        let size = S::SIZE << ((word >> 1) & 63);
        // All ones for a tail, else zero.
        let tail = (word & TAIL).wrapping_neg();
        page.masked(!(size.wrapping_sub(1) & tail))
    }
}
