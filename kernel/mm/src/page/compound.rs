//! Compound pages: one head, and tails that know the way to it.
//!
//! `compound_info` of a tail holds no pointer but a mask. A block of 2^order
//! pages is naturally aligned, and so is its run of struct pages, as long as the
//! vmemmap's base is; clearing the low `order + 6` bits of a tail's own vmemmap
//! address then gives its head's. Bit 0 says "tail". All tails of one order are
//! therefore the same 64 bytes, whichever block they belong to.

use super::flags::Flags;
use super::layout::{HEAD_PAGES, Page, STRUCT_PAGE_SIZE};
use crate::addr::{Order, VirtAddr};
use crate::machine::Machine;

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

/// Makes the block of `order` at `head` a compound page as far as the first
/// frame of its memmap goes: the head and up to 63 tails. A block that will be
/// folded needs no more, because the other tails are about to be replaced.
///
/// The caller owns the block, frozen (count 0); `order` is at least 1, and at most
/// [`Memmap::max_aligned_order`](super::Memmap::max_aligned_order).
#[doc(alias = "prep_compound_page")]
pub fn prep_compound_head<M: Machine>(m: &M, head: Page, order: Order) {
    debug_assert!(order > Order::PAGE);
    head.set_flags(m, head.flags(m).with(Flags::HEAD));
    let tails = order.pages().min(HEAD_PAGES) - 1;
    head.nth(1)
        .set_compound_infos(m, tails, CompoundInfo::tail(order));
    head.nth(1).set_private(m, u64::from(order.get()));
}

/// Makes tails of the struct pages behind the first frame of the memmap: the
/// other half of [`prep_compound_head`], for a block that stays unfolded.
#[doc(alias = "prep_compound_tail")]
pub fn prep_compound_tails<M: Machine>(m: &M, head: Page, order: Order) {
    let tails = order.pages().saturating_sub(HEAD_PAGES);
    head.nth(HEAD_PAGES)
        .set_compound_infos(m, tails, CompoundInfo::tail(order));
}

/// Undoes [`prep_compound_head`]: the pages of the first frame of the memmap are
/// plain again, field by field. For a block whose other tails came back unused.
pub fn undo_compound_head<M: Machine>(m: &M, head: Page, order: Order) {
    debug_assert!(!head.flags(m).contains(Flags::VMEMMAP_OPTIMIZED));
    head.set_flags(m, head.flags(m).without(Flags::HEAD));
    head.nth(1).set_private(m, 0);
    let tails = order.pages().min(HEAD_PAGES) - 1;
    head.nth(1).set_compound_infos(m, tails, CompoundInfo::NONE);
}

/// Undoes [`prep_compound_tails`].
#[doc(alias = "destroy_compound_gigantic_folio")]
pub fn undo_compound_tails<M: Machine>(m: &M, head: Page, order: Order) {
    let tails = order.pages().saturating_sub(HEAD_PAGES);
    head.nth(HEAD_PAGES)
        .set_compound_infos(m, tails, CompoundInfo::NONE);
}

/// The head of the folio that `page` belongs to, or `None` if the page belongs
/// to none: a free page, page table, memmap frame or reserved page.
pub fn page_folio<M: Machine>(m: &M, page: Page) -> Option<Page> {
    let head = page.compound_head(m);
    let folio = head.is_head(m) || head.ref_count(m) > 0;
    (folio && !head.flags(m).contains(Flags::RESERVED)).then_some(head)
}
