//! Where a CPU can be stopped.

use std::cell::Cell;

use super::fiber;
use crate::machine::THIS_CPU;

/// What a CPU is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Point {
    /// A load or store of data.
    Access,
    /// A store or exchange by physical address, most often of a table entry, or a
    /// frame copied.
    Table,
    /// A flush instruction, or one CPU of a round to all.
    Flush,
    /// The interrupt flag changes.
    Irq,
    /// Nothing, until another CPU has done something.
    Wait,
}

impl Point {
    /// Whether an order of steps is likely to hang on what happens here: few points
    /// of many are such.
    pub(super) const fn is_eventful(self) -> bool {
        matches!(self, Self::Table | Self::Flush | Self::Irq)
    }
}

thread_local! {
    /// The CPU whose work this fiber is, whichever CPU it plays at the moment.
    static OWN: Cell<usize> = const { Cell::new(0) };
    /// CPUs that handle an interrupt, one bit each: their work stands still while
    /// the fiber that sent it plays them.
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// Whether this is the work of a CPU under the scheduler.
pub(crate) fn is_scheduled() -> bool {
    fiber::is_running()
}

/// Whether this is the work of one CPU that plays another: an interrupt's.
pub(crate) fn is_handler() -> bool {
    fiber::is_running() && OWN.get() != THIS_CPU.get()
}

/// Lets the scheduler pick who goes on; a random number that belongs to the
/// schedule. Does nothing outside of it.
pub(crate) fn point(point: Point) -> u64 {
    if !fiber::is_running() {
        return 0;
    }
    let (own, cpu) = (OWN.get(), THIS_CPU.get());
    let mut random = fiber::suspend(point);
    while HELD.get() >> own & 1 == 1 {
        random = fiber::suspend(Point::Wait);
    }
    OWN.set(own);
    THIS_CPU.set(cpu);
    random
}

/// Begins the work of `cpu`.
pub(super) fn begin(cpu: usize) {
    OWN.set(cpu);
    THIS_CPU.set(cpu);
}

/// Nobody is interrupted: before a run, and after one that was broken off.
pub(super) fn reset(cpu: usize) {
    HELD.set(0);
    begin(cpu);
}

/// Keeps the ordinary work of `cpu` from going on while it handles an interrupt.
pub(crate) fn hold(cpu: usize) -> Held {
    HELD.set(HELD.get() | 1 << cpu);
    Held(cpu)
}

/// A CPU that handles an interrupt.
#[derive(Debug)]
pub(crate) struct Held(usize);

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(HELD.get() & !(1 << self.0));
    }
}
