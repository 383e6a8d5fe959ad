//! Every layout at once: a memory map of its own for each encoding, size of struct
//! page and memory model, beside the kernel's.
//!
//! ```text
//!   Map<E, S, Mo>     E: how a page finds its folio      (page::encoding)
//!                     S: how large its struct page is    (page::encoding::PageShape)
//!                     Mo: how a pfn becomes its address  (model)
//! ```
//!
//! The frames that a [`Map`] describes need not exist: its struct pages are real
//! memory, and nothing behind them is touched. So a small machine can try how a folio
//! of 16 GiB is found, or what a TiB of 2 MiB folios costs. A combination that cannot
//! work does not compile, or is refused with the reason ([`Map::try_new`]).
//!
//! A map is used by one CPU; readers on others may look at its struct pages at any
//! time, also while it folds.

mod align;
mod audit;
mod compound;
mod cost;
mod descriptors;
mod error;
mod fields;
mod fold;
mod ledger;
mod map;
mod model;
mod unfold;

pub use align::samples;
pub use audit::{Finding, Leaf};
pub use cost::{Bytes, Cost, SECTION_TABLE, cost, write_table};
pub use descriptors::DESCRIPTOR_SIZE;
pub use error::LayoutError;
pub use fields::PageBits;
pub use ledger::Ledger;
pub use map::Map;
pub use model::{DIRECT_MAP, Flatmem, Model, Place, Sparsemem, Spec, Vmemmap, WINDOW};
