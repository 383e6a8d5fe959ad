//! The struct page: 64 bytes of bookkeeping for every 4 KiB frame.
//!
//! ```text
//! byte  0        8               16        24       32     40       48         52         56
//!       +--------+---------------+---------+--------+------+--------+----------+----------+------+
//!       | flags  | compound_info | lru.prev| mapping| index| private| _mapcount| _refcount|unused|
//!       |        | or lru.next   |         |        |      |        | or type  |          |      |
//!       +--------+---------------+---------+--------+------+--------+----------+----------+------+
//! ```
//!
//! The offsets are those of Linux. There is no Rust value of this type anywhere,
//! and no reference to one (INV-1): a [`Page`] is an address, and every field is
//! reached through the [`Machine`](crate::machine::Machine), atomically.

mod check;
mod compound;
mod compound_info;
pub mod encoding;
mod flags;
mod folio;
mod geometry;
mod list;
mod memmap;
mod reorder;
mod struct_page;

pub use check::allocated_order;
pub use check::{BadPage, PAGE_CHECKS, check_unused};
pub(crate) use check::{allocated_mark, assert_unused, mark_allocated};
pub(crate) use compound::clear_first_tail;
pub use compound::{
    page_folio, prep_compound_head, prep_compound_tails, undo_compound_head, undo_compound_tails,
};
pub use compound_info::CompoundInfo;
pub use flags::{Flags, PageType};
pub(crate) use folio::any_page_hwpoisoned;
pub use folio::{
    folio_nr_pages, folio_order, folio_order_seen, folio_put, folio_ref_count, folio_try_get,
    folio_try_get_seen, has_hwpoisoned,
};
pub use geometry::{
    HEAD_PAGES, HVO, SHARES_ACROSS_NODE, STRUCT_PAGE_SIZE, Shape, VMEMMAP_TAIL_MIN_ORDER,
    vmemmap_pages,
};
pub use list::PageList;
pub use memmap::Memmap;
pub(crate) use reorder::{merge_compound, part_head_record, set_first_frame_order, split_compound};
pub use struct_page::{Page, Record, clean_record, tail_record};
