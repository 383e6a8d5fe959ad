//! How large the kernel's struct pages are, what this build can share of them, and how
//! many frames they fill.

use super::encoding::{
    Chosen, Encoding, MemoryModel, PageShape, Refusal, Sharing, Support, support,
};
use crate::addr::{Order, PAGE_SHIFT, PAGE_SIZE};

/// The kernel's struct page, picked by `TAILFOLD_LAYOUT`.
#[cfg(page_size = "64")]
pub type Shape = super::encoding::Bytes64;
/// The kernel's struct page, picked by `TAILFOLD_LAYOUT`.
#[cfg(page_size = "56")]
pub type Shape = super::encoding::Bytes56;
#[cfg(not(any(page_size = "64", page_size = "56")))]
compile_error!("TAILFOLD_LAYOUT: the kernel's struct pages have 64 bytes, or 56 (pointer-56)");

/// What this build's combination can do. One that cannot be does not compile.
const SUPPORT: Support = match support::<Chosen, Shape>(MemoryModel::SparsememVmemmap) {
    Ok(support) => support,
    Err(refusal) => panic!("{}", refusal.reason()),
};
const _: () = assert!(
    !Chosen::DESCRIPTOR,
    "TAILFOLD_LAYOUT: the data of the kernel's folios are in its struct pages; memdesc has a memory map of its own, lab::memdesc"
);

/// What HVO shares in this build, or why there is none.
pub const HVO: Result<Sharing, Refusal> = SUPPORT.hvo;

/// Whether tails of all folios of an order are one frame.
pub const SHARES_ACROSS_NODE: bool = matches!(HVO, Ok(Sharing::AcrossNode));

/// Size of a struct page in bytes.
#[doc(alias = "sizeof(struct page)")]
pub const STRUCT_PAGE_SIZE: u64 = Shape::SIZE;

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
