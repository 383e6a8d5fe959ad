//! The emulated machine of the host tests, and the oracles its results are held
//! against.
//!
//! [`EmulatedMachine`] implements `mm`'s door to hardware with everything that
//! makes hardware unforgiving: a translation cache per CPU that stays stale until
//! it is flushed, read-only pages that fault, RAM that is not zero, and frames
//! that bite when they are used after they were freed. [`raw`] reads table bytes,
//! [`model`] keeps plain maps of what should be there, [`records`] knows what
//! struct pages should hold; none of them shares a line or a constant with `mm`.

mod events;
mod frames;
mod inject;
mod interrupts;
mod machine;
mod memory;
pub mod model;
pub mod pool_model;
mod random;
pub mod raw;
pub mod records;
mod sabotage;
pub mod schedule;
mod sync;
mod tlb;
mod violation;
mod walker;
mod watch;
mod world;

pub use events::Event;
pub use frames::Bump;
pub use inject::Injection;
pub use machine::{Builder, EmulatedMachine};
pub use memory::{FREED_POISON, FRESH_POISON};
pub use random::{same_from, same_in_every_run};
pub use sabotage::Sabotage;
pub use violation::{Access, Violation};
pub use world::{World, WorldBuilder};
