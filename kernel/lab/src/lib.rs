//! Experiments on struct pages, beside the kernel's own memory map.
//!
//! [`layouts`]: every encoding with every size of struct page and every memory model, as maps that
//! run. [`memdesc`]: struct pages of one word that point to descriptors. [`rmap`]: what happens
//! when compound pages that are no folios are mapped, under each policy that was proposed.
//!
//! The kernel needs none of it: `mm` knows nothing of this crate, and without the feature `lab`
//! the kernel is built without it.
#![no_std]

pub mod layouts;
pub mod memdesc;
pub mod rmap;
