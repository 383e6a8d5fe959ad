//! A seeded scheduler: several CPUs on one host thread, interleaved at every step
//! the machine makes for them.
//!
//! Each CPU's work is a coroutine. Before every memory access, table store, copy,
//! flush, change of the interrupt flag and turn of a wait the machine passes a
//! point, where the coroutine stops and the scheduler picks who goes on. All
//! choices come from a seed, so a run that fails can be run again, step by step the
//! same ([`explore`] prints how).
//!
//! What interleaves is sequentially consistent: weak memory is loom's subject
//! (`tests/publication.rs`), stale translations are the machine's.

mod explore;
mod fiber;
mod plan;
mod point;
mod runner;
mod story;
mod view;

pub use explore::{Explored, Found, Story, explore, search};
pub use plan::{Plan, Steps, Strategy};
pub(crate) use point::{Point, hold, is_handler, is_scheduled, point};
pub use runner::{Failure, LIMIT, run};
pub use story::{Done, small};
pub use view::View;
