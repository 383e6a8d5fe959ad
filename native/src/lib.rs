//! Machine number three: an ordinary Linux process, on the processor it finds.
//!
//! [`Machine`] implements `mm`'s door to hardware. RAM is a memfd, and an offset in it a
//! physical address. `mm` keeps its four-level page tables there, as it does everywhere;
//! what plays the TLB is the process's own address space: the pages that Linux has mapped
//! for us are the translations this machine has cached.
//!
//! - A page that is touched for the first time faults; the handler of `SIGSEGV` walks the
//!   tables and maps what it finds. So "not present" is never cached.
//! - What is mapped stays mapped, whatever the tables say by then, until it is flushed
//!   . A flush walks the tables again and maps the same range anew, or not at all.
//! - A read-only entry becomes a read-only mapping: that a write to a shared tail faults,
//!   locked instructions that store nothing included, is the processor's doing.
//!
//! All CPUs share one such TLB. A flush on one is a flush on all, so tests that need a
//! translation to be stale on one CPU only have nothing to see here.

mod fault;
mod host;
mod interrupts;
pub mod limits;
mod machine;
mod ram;
mod shadow;
mod window;
mod world;

pub use host::{HostError, size};
pub use machine::{Builder, Machine};
pub use world::{World, WorldBuilder};
