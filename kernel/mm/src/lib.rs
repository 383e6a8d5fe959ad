//! The memory map of struct pages, and how little of it a machine needs.
//!
//! The crate knows no hardware. From the door to a fold:
//!
//! 1. [`machine::Machine`] is what it needs of a machine: memory, processors, and what tests use.
//!    [`machine`] has a whole one of some hundred lines, on which all of this runs.
//! 2. [`system::Mm`] is a memory manager: it builds the memmap and takes the memory over.
//! 3. [`page::Page`] is a struct page, by its address; [`page::prep_compound_head`] makes a block of
//!    [`node::Nodes`] a compound page.
//! 4. [`vmemmap::Vmemmap::optimize_folio`] folds its struct pages, and
//!    [`vmemmap::Vmemmap::restore_folio`] gives them back.
//! 5. [`hugetlb::HugeTlb`] does both for pools of huge pages, as Linux's control files ask.
//!
//! [`audit::audit`] checks all of it with code of its own. What is promised, and why it is safe, is
//! in docs/MODEL.md; items are cited by their numbers.
#![no_std]

pub mod addr;
pub mod audit;
pub mod buddy;
pub mod frames;
pub mod hugetlb;
pub mod hwpoison;
pub mod machine;
pub mod memblock;
pub mod node;
pub mod numa;
pub mod page;
pub mod paging;
mod progress_lock;
pub mod report;
pub mod sync;
pub mod system;
pub mod vmemmap;
