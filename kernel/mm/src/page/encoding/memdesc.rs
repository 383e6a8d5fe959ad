//! Every page of a folio holds the address of its descriptor, and what kind that is: the
//! memdesc of the plan for struct pages of one word. No page is a head or a tail.
//!
//! This file is the word and the way from it; what is behind it is `lab::memdesc`. The
//! kernel's own struct pages cannot use it, because their folios' data are in them.

use super::{BlockInfo, Encoding, PageShape, Sharing, word};
use crate::addr::VirtAddr;

/// Descriptor pointer with the type in its low four bits.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "page->memdesc")]
pub struct Memdesc;

impl Memdesc {
    /// Bits of the type: descriptors are aligned to 16 bytes.
    pub const TYPE_BITS: u64 = 0xf;
    /// The type of a folio's descriptor.
    pub const FOLIO: u64 = 1;
}

impl Encoding for Memdesc {
    const NAME: &'static str = "memdesc";
    const SHARING: Sharing = Sharing::WithinFolio;
    const COMPUTES: bool = false;
    const DESCRIPTOR: bool = true;

    fn tail<S: PageShape>(block: &BlockInfo) -> u64 {
        block.descriptor.map_or(0, |at| at.as_u64() | Self::FOLIO)
    }

    fn head<S: PageShape>(block: &BlockInfo) -> u64 {
        Self::tail::<S>(block)
    }

    /// Never: all pages of a folio are equal.
    #[inline(always)]
    fn is_tail<S: PageShape>(_: &impl Fn(VirtAddr) -> u64, _: VirtAddr) -> bool {
        false
    }

    #[inline(always)]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr {
        let word = word::<S>(load, page);
        if word & Self::TYPE_BITS == Self::FOLIO {
            VirtAddr::trusted(word - Self::FOLIO)
        } else {
            VirtAddr::NULL
        }
    }
}
