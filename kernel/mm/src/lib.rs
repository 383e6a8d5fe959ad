//! The memory map of struct pages, and how little of it a machine needs.
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
