//! A tail holds its head's address, and 1. What Linux had from the start, before HVO.

use super::{BlockInfo, Encoding, PageShape, Sharing, TAIL, word};
use crate::addr::VirtAddr;

/// Head pointer and bit 0.
#[derive(Clone, Copy, Debug)]
pub struct Pointer;

impl Encoding for Pointer {
    const NAME: &'static str = "pointer";
    const SHARING: Sharing = Sharing::Nothing;
    const COMPUTES: bool = false;
    const DESCRIPTOR: bool = false;

    fn tail<S: PageShape>(block: &BlockInfo) -> u64 {
        block.head.as_u64() | TAIL
    }

    #[inline(always)]
    fn is_tail<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> bool {
        word::<S>(load, page) & TAIL != 0
    }

    #[inline(always)]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
        let word = word::<S>(load, page);
        if word & TAIL != 0 {
            VirtAddr::trusted(word - TAIL)
        } else {
            page
        }
    }
}
