//! The processor's instructions behind `mm::machine::Machine`: one for each load, store
//! and exchange at an address that `mm` gives, and the table of those that may fault.
//!
//! Bare metal and a process on the host run the same ones, each with handlers of its own.
//! They are unsafe: whoever calls promises what the module `plain` says. Instructions that may
//! fault are safe to fault, and write only what their caller may: [`try_compare_exchange32`] and
//! [`probe`] are unsafe for that.
#![no_std]

mod faulting;
mod plain;

pub use faulting::{fixup, probe, try_compare_exchange32, try_load32};
pub use plain::{
    compare_exchange32, compare_exchange64, copy, fetch_add32, fill, load32, load64, store32,
    store64,
};
