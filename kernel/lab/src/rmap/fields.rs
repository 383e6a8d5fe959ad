//! The fields that only a folio has, in its first tail.
//!
//! ```text
//! first tail
//! byte  0        8               16               20                24              28
//!       +--------+---------------+----------------+-----------------+---------------+-----------+
//!       | flags  | compound_info | _large_mapcount| _nr_pages_mapped| _entire_      | _pincount |
//!       |        |               |                |                 |     mapcount  |           |
//!       +--------+---------------+----------------+-----------------+---------------+-----------+
//! byte  32          36   40                        48          52          56
//!       +-----------+----+-------------------------+-----------+-----------+
//!       | _nr_pages |    | order                   | _mapcount | _refcount |
//!       |           |    |                         |           | always 0  |
//!       +-----------+----+-------------------------+-----------+-----------+
//! ```
//!
//! The offsets are those of Linux, but for `_nr_pages` and the order, which are behind
//! `_refcount` and in `flags` there; `_mm_ids` Tailfold has no use for. Map counts
//! start at -1, so a first tail of zeroes is one whose fields were never initialised;
//! `_nr_pages` says so too.
//! Every page of the folio has its own `_mapcount` besides, for mappings by 4 KiB
//! entries. The first tail is in the frame of memmap that a fold leaves alone (INV-2);
//! a `_mapcount` behind that frame is not, so a folded folio is mapped by one entry
//! or not at all.
//!
//! All are changed by locked adds: two address spaces may map one folio at once.

use core::mem::offset_of;

use mm::addr::{Order, VirtAddr};
use mm::machine::Machine;
use mm::page::{HEAD_PAGES, Page, PageType, STRUCT_PAGE_SIZE};

/// The layout, for the compiler to check. Never instantiated.
#[repr(C)]
struct FirstTail {
    flags: u64,
    compound_info: u64,
    large_mapcount: u32,
    nr_pages_mapped: u32,
    entire_mapcount: u32,
    pincount: u32,
    nr_pages: u32,
    unused: u32,
    order: u64,
    mapcount: u32,
    refcount: u32,
}

const LARGE_MAPCOUNT: u64 = 16;
const NR_PAGES_MAPPED: u64 = 20;
const ENTIRE_MAPCOUNT: u64 = 24;
const PINCOUNT: u64 = 28;
const NR_PAGES: u64 = 32;
const MAPCOUNT: u64 = 48;

const _: () = {
    assert!(offset_of!(FirstTail, large_mapcount) as u64 == LARGE_MAPCOUNT);
    assert!(offset_of!(FirstTail, nr_pages_mapped) as u64 == NR_PAGES_MAPPED);
    assert!(offset_of!(FirstTail, entire_mapcount) as u64 == ENTIRE_MAPCOUNT);
    assert!(offset_of!(FirstTail, pincount) as u64 == PINCOUNT);
    assert!(offset_of!(FirstTail, mapcount) as u64 == MAPCOUNT);
    assert!(offset_of!(FirstTail, nr_pages) as u64 == NR_PAGES);
    assert!(size_of::<FirstTail>() as u64 <= STRUCT_PAGE_SIZE);
    // The page that they are in is one that a fold never replaces.
    assert!(FIELDS_PAGE < HEAD_PAGES);
};

/// Which page of the folio holds its fields.
const FIELDS_PAGE: u64 = 1;

/// Added to `_nr_pages_mapped` while there is a mapping by one entry.
pub const ENTIRELY_MAPPED: u32 = 0x80_0000;
/// The part of `_nr_pages_mapped` that counts pages.
pub const FOLIO_PAGES_MAPPED: u32 = ENTIRELY_MAPPED - 1;

/// -1: mapped nowhere.
const UNMAPPED: u32 = u32::MAX;

/// A field of the first tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    LargeMapcount,
    NrPagesMapped,
    EntireMapcount,
    Pincount,
    NrPages,
}

impl Field {
    const fn offset(self) -> u64 {
        match self {
            Self::LargeMapcount => LARGE_MAPCOUNT,
            Self::NrPagesMapped => NR_PAGES_MAPPED,
            Self::EntireMapcount => ENTIRE_MAPCOUNT,
            Self::Pincount => PINCOUNT,
            Self::NrPages => NR_PAGES,
        }
    }

    const fn at(self, head: Page) -> VirtAddr {
        head.nth(FIELDS_PAGE).address().offset(self.offset())
    }

    pub(super) fn load<M: Machine>(self, m: &M, head: Page) -> u32 {
        m.load32(self.at(head))
    }

    pub(super) fn store<M: Machine>(self, m: &M, head: Page, value: u32) {
        m.store32(self.at(head), value);
    }

    /// Adds `delta`, modulo 2^32; the value before.
    pub(super) fn add<M: Machine>(self, m: &M, head: Page, delta: u32) -> u32 {
        m.fetch_add32(self.at(head), delta)
    }
}

/// Adds `delta` to a page's own `_mapcount`; the value before.
pub(super) fn add_mapcount<M: Machine>(m: &M, page: Page, delta: u32) -> u32 {
    m.fetch_add32(page.address().offset(MAPCOUNT), delta)
}

/// The fields of a large folio as they are, map counts with 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FolioFields {
    /// Mappings of the folio and of pages of it.
    #[doc(alias = "_large_mapcount")]
    pub large_mapcount: u32,
    /// Mappings of the folio by one entry.
    #[doc(alias = "_entire_mapcount")]
    pub entire_mapcount: u32,
    /// Pages that are mapped by entries of their own, and [`ENTIRELY_MAPPED`]. A
    /// hugetlb folio does not use it.
    #[doc(alias = "_nr_pages_mapped")]
    pub nr_pages_mapped: u32,
    /// Pins.
    #[doc(alias = "_pincount")]
    pub pincount: u32,
    /// Base pages; 0 if the fields were never initialised.
    #[doc(alias = "_nr_pages")]
    pub nr_pages: u32,
}

impl FolioFields {
    /// Of the large folio with head `head`.
    pub fn of<M: Machine>(m: &M, head: Page) -> Self {
        Self {
            large_mapcount: Field::LargeMapcount.load(m, head).wrapping_add(1),
            entire_mapcount: Field::EntireMapcount.load(m, head).wrapping_add(1),
            nr_pages_mapped: Field::NrPagesMapped.load(m, head),
            pincount: Field::Pincount.load(m, head),
            nr_pages: Field::NrPages.load(m, head),
        }
    }

    /// Nothing mapped, nothing pinned, `nr_pages` pages.
    #[must_use]
    pub const fn unused(nr_pages: u32) -> Self {
        Self {
            large_mapcount: 0,
            entire_mapcount: 0,
            nr_pages_mapped: 0,
            pincount: 0,
            nr_pages,
        }
    }
}

/// How often `page` itself is mapped by an entry of its own.
pub fn page_mapcount<M: Machine>(m: &M, page: Page) -> u32 {
    m.load32(page.address().offset(MAPCOUNT)).wrapping_add(1)
}

/// Base pages of a folio of `order`, as `_nr_pages` has it: the largest folio has 2^22.
pub(super) const fn nr_pages(order: Order) -> u32 {
    1 << order.get()
}

/// Writes every field: nothing mapped, nothing pinned. `head` has `order` at least 1
/// and nobody else can find it.
pub(super) fn init<M: Machine>(m: &M, head: Page, order: Order) {
    Field::LargeMapcount.store(m, head, UNMAPPED);
    Field::EntireMapcount.store(m, head, UNMAPPED);
    Field::NrPagesMapped.store(m, head, 0);
    Field::Pincount.store(m, head, 0);
    Field::NrPages.store(m, head, nr_pages(order));
}

/// Zeroes every field, whoever used it for what: a first tail as the allocator wants it.
pub(super) fn clear<M: Machine>(m: &M, head: Page) {
    for field in [
        Field::LargeMapcount,
        Field::EntireMapcount,
        Field::NrPagesMapped,
        Field::Pincount,
        Field::NrPages,
    ] {
        field.store(m, head, 0);
    }
}

/// Sets the type of each page of the block of `order` at `first`.
pub(super) fn set_types<M: Machine>(m: &M, first: Page, order: Order, page_type: PageType) {
    for n in 0..order.pages() {
        first.nth(n).set_page_type(m, page_type);
    }
}
