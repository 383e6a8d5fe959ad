//! The host side of Tailfold: builds the kernel and its disk images, runs them in
//! QEMU or Bochs, reads their KTAP, writes USB sticks. `cargo run` starts it; the tests
//! that boot machines use it as a library.
//!
//! It knows nothing of what is in the kernel. The two share the command line, the first line of
//! output, KTAP, and QEMU's exit status.

pub mod accel;
pub mod artifact;
pub mod bochs;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod error;
pub mod firmware;
pub mod ktap;
pub mod machine;
pub mod partition;
pub mod payload;
pub mod photo;
pub mod progress;
pub mod qemu;
pub mod ramdisk;
pub mod screen;
pub mod size;
pub mod usb;
pub mod verdict;
pub mod workspace;
