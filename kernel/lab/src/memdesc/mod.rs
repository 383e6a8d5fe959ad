//! Memdesc: a memory map whose struct pages only say what a page is and where its
//! descriptor lies.
//!
//! ```text
//!   struct pages (vmemmap, folded)        descriptors (slab frames, direct map)
//!   +-----------------------------+      +--------------------------------------+
//!   | page | page | page | ...    |      | folio: flags, counts, pfn, order, lru, |
//!   +--|------|------|------------+      |        mapping, index, private, memcg  |
//!      |      |      |   same word       +--------------------------------------+
//!      +------+------+-- address | type --^
//! ```
//!
//! It lives beside the kernel's own memmap, over one block of frames from the
//! allocator, and is generic over the size of struct page ([`StructPage`]). All pages
//! of a folio hold the **same** word, head included: one read-only frame can stand for
//! the whole memmap of a folio, but never for two folios. That is the trade against
//! the mask of `compound_info`, whose shared tail serves all folios of an order.
//!
//! What follows from the word not changing while a folio lives: a folio can be folded
//! while others hold references, without being frozen; folding needs no memory; and a
//! folio is freed with its memmap folded, by storing the word of a free page into that
//! one frame. Memory is needed to unfold only, that is, to allocate smaller blocks
//! from a folded one. Promises MD-1 to MD-6 of docs/MODEL.md.

mod audit;
mod descriptor;
mod error;
mod flags;
mod fold;
mod layout;
mod ledger;
mod lookup;
mod map;
mod owner;
mod page_flags;
mod refs;
mod slab;
mod space;
mod word;

pub use audit::{Audit, Finding};
pub use descriptor::{Bare, Descriptor, Folio, Kind, Ptdesc, Slab};
pub(crate) use descriptor::{init, set_folded};
pub use error::{MemdescBug, MemdescError};
pub use layout::{Page, Page8, Page16, Page32, Page64, StructPage};
pub use ledger::Totals;
pub use lookup::{page_folio, page_memdesc, page_ptdesc, page_slab};
pub use map::{DEFAULT_BASE, MemdescMap};
pub use page_flags::PageFlags;
pub(crate) use slab::{Cache, capacity};
pub use word::{Memdesc, MemdescType};
