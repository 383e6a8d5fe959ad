//! How large struct pages are, and how many frames they fill.

use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE};

/// Size of a struct page in bytes: a power of two, or HVO could not be.
#[doc(alias = "sizeof(struct page)")]
pub const STRUCT_PAGE_SIZE: u64 = 64;

/// Struct pages that fit in one frame, and so stay private to a folded block:
/// the head and the first 63 tails.
#[doc(alias = "HUGETLB_VMEMMAP_RESERVE_SIZE")]
pub const HEAD_PAGES: u64 = PAGE_SIZE / STRUCT_PAGE_SIZE;

/// The lowest order whose struct pages fill two frames or more.
pub const VMEMMAP_TAIL_MIN_ORDER: Order = Order::clamped((2 * HEAD_PAGES).ilog2());

/// Frames of memmap that a block of `order` has, if that is one or more.
#[must_use]
#[doc(alias = "hugetlb_vmemmap_size")]
pub const fn vmemmap_pages(order: Order) -> u64 {
    (order.pages() * STRUCT_PAGE_SIZE) >> PAGE_SHIFT
}
