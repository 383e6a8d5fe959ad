#![no_std]
//! The memory map of struct pages.
