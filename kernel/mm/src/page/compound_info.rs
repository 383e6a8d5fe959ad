//! `compound_info`: how a tail knows the way to its head.
//!
//! It holds no pointer but a mask. A block of 2^order pages is naturally aligned,
//! and so is its run of struct pages, as long as the vmemmap's base is; clearing the
//! low `order + 6` bits of a tail's own vmemmap address then gives its head's. Bit 0
//! says "tail". All tails of one order are therefore the same 64 bytes, whichever
//! block they belong to.

use super::geometry::STRUCT_PAGE_SIZE;
use crate::addr::{Order, VirtAddr};

/// The word at offset 8 of a struct page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
#[doc(alias = "compound_head")]
pub struct CompoundInfo(u64);

impl CompoundInfo {
    /// Of a page that is no tail.
    pub const NONE: Self = Self(0);

    /// Of a tail of a compound page of `order`: the mask, and bit 0.
    #[inline]
    #[must_use]
    #[doc(alias = "set_compound_head")]
    pub const fn tail(order: Order) -> Self {
        let shift = order.get() as u32 + STRUCT_PAGE_SIZE.trailing_zeros();
        Self((u64::MAX << shift) | 1)
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

    /// Whether the page is a tail.
    #[inline]
    #[must_use]
    pub const fn is_tail(self) -> bool {
        self.0 & 1 == 1
    }

    /// The address of the head, given the address of the struct page that holds
    /// this word. No branch: for a page that is no tail the mask becomes all ones.
    #[inline]
    #[must_use]
    pub const fn head_address(self, own: VirtAddr) -> VirtAddr {
        own.masked((self.0 & 1).wrapping_sub(1) | self.0)
    }

    /// The order of the compound page, if this is a tail's word.
    #[must_use]
    pub const fn order(self) -> Option<Order> {
        if !self.is_tail() {
            return None;
        }
        let shift = (self.0 & !1).trailing_zeros();
        match shift.checked_sub(STRUCT_PAGE_SIZE.trailing_zeros()) {
            Some(order) if order <= Order::MAX.get() as u32 => Some(Order::clamped(order)),
            _ => None,
        }
    }
}
