//! A tail holds its head's address, and a folded folio's memmap is its head's frame,
//! over and over: every frame starts with what looks like the head. Linux until 2026.
//!
//! Whoever meets a page with the head flag at the start of a frame therefore looks at
//! the next page, too: a head's first tail points to it, a fake head's to another page.

use super::{BlockInfo, Encoding, PageShape, Pointer, Sharing, TAIL, word};
use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::page::Flags;

/// Head pointer with detection of fake heads.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "page_fixed_fake_head")]
pub struct FakeHead;

/// Where the head of a page that says it is none's tail really is.
#[inline(always)]
fn fixed<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
    if !page.is_aligned(PAGE_SIZE) {
        return page;
    }
    let flags = Flags::from_raw(load(page.offset(S::FLAGS.unwrap_or(0))));
    if !flags.contains(Flags::HEAD) {
        // The frame may have shown the head when the word was loaded, and since then have
        // been unfolded.
        let again = word::<S>(load, page);
        return if again & TAIL != 0 {
            VirtAddr::trusted(again - TAIL)
        } else {
            page
        };
    }
    // The page behind a head is in the same frame, and a tail.
    let next = word::<S>(load, page.offset(S::SIZE));
    if next & TAIL != 0 {
        VirtAddr::trusted(next - TAIL)
    } else {
        page
    }
}

impl Encoding for FakeHead {
    const NAME: &'static str = "fake-head";
    const SHARING: Sharing = Sharing::WithinFolio;
    const COMPUTES: bool = false;
    const DESCRIPTOR: bool = false;

    fn tail<S: PageShape>(block: &BlockInfo) -> u64 {
        Pointer::tail::<S>(block)
    }

    #[inline(always)]
    fn is_tail<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> bool {
        Self::folio::<S>(load, page) != page
    }

    #[inline(always)]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
        let word = word::<S>(load, page);
        if word & TAIL != 0 {
            VirtAddr::trusted(word - TAIL)
        } else {
            fixed::<S>(load, page)
        }
    }
}
