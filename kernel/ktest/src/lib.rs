#![cfg_attr(not(test), no_std)]
//! Self-tests for code that runs where no test harness does: a registry of
//! cases, checks that report instead of panicking, and a writer of KTAP.
//!
//! It allocates only for a case that fails or is skipped.
//!
//! Cases are registered by [`ktest!`] in a linker section, from any crate, and
//! run in the order of their names ([`Plan`]). The output is KTAP version 1,
//! nested by suite as KUnit prints it, so that the tools which read KUnit's
//! results read these.
//!
//! ```
//! ktest::ktest! { suite = arithmetic;
//!     /// One and one.
//!     fn adds() { ktest::check_eq!(1 + 1, 2); }
//! }
//! # fn main() {}
//! ```

extern crate alloc;

mod case;
mod filter;
mod plan;
mod report;
mod text;
mod trip;

#[doc(hidden)]
pub use linkme;

pub use case::{CASES, Case, Failure, Outcome, Stop};
pub use filter::{Selection, glob};
pub use plan::{MAX_CASES, Plan, Suite, TooMany};
pub use report::{Output, Running, Totals, diagnostic, list, note_abort, run, running};
pub use text::Text;
#[doc(hidden)]
pub use trip::trip;
pub use trip::{How, checks_seen, trip_at};
