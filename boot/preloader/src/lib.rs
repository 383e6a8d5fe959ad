//! What the firmware of a PC with UEFI starts before the boot loader.
//!
//! The boot loader resets the machine where it lacks NX and where the firmware left 5-level paging
//! on. `preloader` lies in its place, says the first and undoes the second, and starts it
//! (docs/adr/0020-preloader.md). `five-levels` is for tests: it makes a machine as servers'
//! firmware leaves it.
#![no_std]

pub mod chain;
pub mod exit;
pub mod levels;
