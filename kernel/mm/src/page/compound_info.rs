//! `compound_info`: the word that says which folio a struct page belongs to, by the rule
//! of the [encoding](super::encoding) that this build has.

use super::encoding::{BlockInfo, Chosen, Encoding};
use super::geometry::Shape;
use crate::addr::{Order, VirtAddr};

/// The word at offset 8 of a struct page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
#[doc(alias = "compound_head")]
pub struct CompoundInfo(u64);

impl CompoundInfo {
    /// Of a page that is no tail.
    pub const NONE: Self = Self(0);

    /// Of a tail of any compound page of `order`: for encodings that share tails across
    /// a node, whose word does not depend on the head.
    #[inline]
    #[must_use]
    pub fn any_tail(order: Order) -> Self {
        const { assert!(Chosen::COMPUTES || !super::SHARES_ACROSS_NODE) }
        Self::of(VirtAddr::NULL, order)
    }

    /// Returns the word of a tail of the compound page of `order` whose head's struct page is at
    /// `head`.
    #[inline]
    pub(super) fn of(head: VirtAddr, order: Order) -> Self {
        Self(Chosen::tail::<Shape>(&BlockInfo {
            head,
            order,
            descriptor: None,
        }))
    }

    /// The word itself.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Whether the word is a tail's. One that is none's may still stand in a frame that
    /// shows its folio's head again: [`Page::is_tail`](super::Page::is_tail) knows.
    #[inline]
    #[must_use]
    pub const fn is_tail(self) -> bool {
        self.0 & 1 == 1
    }
}
