#![no_std]
//! Kernel tests.
