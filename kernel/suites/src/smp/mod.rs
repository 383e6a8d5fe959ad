//! What only several CPUs can show: readers beside a fold, races, flushes that have
//! to reach everybody.
//!
//! The work of each case is bounded by operations, not by time, so that a slow machine
//! takes longer and does not do less.

mod arena;
pub mod broken;
mod changes;
pub mod churn;
pub mod faults;
pub mod locks;
mod party;
mod poison;
pub mod readers;
pub mod tlb;

use ktest::{Stop, skip};
use mm::machine::Machine;

use crate::Env;
use party::Party;

/// The number of CPUs, or a skip if there is but one.
fn several<M: Machine>(env: &Env<'_, M>) -> Result<usize, Stop> {
    match env.m.cpus() {
        1 => skip!("one CPU is online"),
        cpus => Ok(cpus),
    }
}
