//! Breaking a promise on purpose, to show that a test notices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::{Pfn, VirtAddr};

use crate::sync::lock;

/// A bug to build in without touching `mm`. Counts start at 1 and run from the
/// moment the sabotage is ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sabotage {
    /// None: the machine keeps its promises.
    #[default]
    None,
    /// The `nth` flush instruction on `cpu` does nothing.
    DropFlush {
        /// The deaf CPU.
        cpu: usize,
        /// Which of its flush instructions.
        nth: u64,
    },
    /// The `nth` round to all CPUs reaches none of them: as if the code had no
    /// flush there.
    DropRound {
        /// Which round.
        nth: u64,
    },
    /// Every round to all CPUs stays on the CPU that asks: a forgotten IPI.
    LocalRoundsOnly,
    /// Rounds do not wait: the CPU that asks goes on at once, the others flush when
    /// they get round to it. Under the scheduler only.
    NoWait,
    /// What the flushes drop is dropped only after the next frames were freed:
    /// as if the code freed first and flushed then.
    FlushAfterFree,
    /// Entries that map data read-only are stored as writable.
    WritableEntries,
    /// The `nth` frame copy copies nothing.
    SkipCopy {
        /// Which copy.
        nth: u64,
    },
    /// Frames are copied only when the next round begins: after the entries that
    /// lead to the copy were stored.
    LateCopy,
}

/// A flush that has been put off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late {
    pub(crate) cpu: usize,
    /// A page, or everything.
    pub(crate) page: Option<VirtAddr>,
}

#[derive(Debug, Default)]
struct State {
    order: Sabotage,
    count: u64,
    done: u64,
    late: Vec<Late>,
    /// Copies put off: to, from.
    copies: Vec<(Pfn, Pfn)>,
}

/// Carries out the order in force.
#[derive(Debug, Default)]
pub(crate) struct Saboteur {
    /// Whether there is an order at all, so that honest machines stay fast.
    /// Relaxed: ordered and carried out by one test thread.
    active: AtomicBool,
    state: Mutex<State>,
}

impl Saboteur {
    pub(crate) fn order(&self, order: Sabotage) {
        self.active
            .store(order != Sabotage::None, Ordering::Relaxed);
        *lock(&self.state) = State {
            order,
            ..State::default()
        };
    }

    /// Whether there is an order at all.
    pub(crate) fn active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// How often it has struck.
    pub(crate) fn done(&self) -> u64 {
        lock(&self.state).done
    }

    /// Whether the flush is to be left out or, if `late`, put off.
    pub(crate) fn drops_flush(&self, flush: Late) -> bool {
        if !self.active() {
            return false;
        }
        let mut state = lock(&self.state);
        let strike = match state.order {
            Sabotage::DropFlush { cpu, nth } if cpu == flush.cpu => {
                state.count += 1;
                state.count == nth
            }
            Sabotage::FlushAfterFree => {
                state.late.push(flush);
                true
            }
            _ => false,
        };
        state.done += u64::from(strike);
        strike
    }

    /// Whether this round to all CPUs is to reach nobody.
    pub(crate) fn drops_round(&self) -> bool {
        if !self.active() {
            return false;
        }
        let mut state = lock(&self.state);
        let Sabotage::DropRound { nth } = state.order else {
            return false;
        };
        state.count += 1;
        let strike = state.count == nth;
        state.done += u64::from(strike);
        strike
    }

    /// Whether rounds reach the asking CPU only.
    pub(crate) fn keeps_local(&self) -> bool {
        if !self.active() {
            return false;
        }
        let mut state = lock(&self.state);
        let strike = state.order == Sabotage::LocalRoundsOnly;
        state.done += u64::from(strike);
        strike
    }

    /// Whether rounds do not wait for the others.
    pub(crate) fn does_not_wait(&self) -> bool {
        self.active() && lock(&self.state).order == Sabotage::NoWait
    }

    /// Puts a flush off until its CPU gets round to it.
    pub(crate) fn put_off(&self, flush: Late) {
        let mut state = lock(&self.state);
        state.late.push(flush);
        state.done += 1;
    }

    /// The flushes that `cpu` has put off.
    pub(crate) fn due_on(&self, cpu: usize) -> Vec<Late> {
        let mut state = lock(&self.state);
        if state.order != Sabotage::NoWait {
            return Vec::new();
        }
        let late = std::mem::take(&mut state.late);
        let (due, later) = late.into_iter().partition(|late| late.cpu == cpu);
        state.late = later;
        due
    }

    /// Whether this copy is put off.
    pub(crate) fn delays_copy(&self, to: Pfn, from: Pfn) -> bool {
        if !self.active() {
            return false;
        }
        let mut state = lock(&self.state);
        let strike = state.order == Sabotage::LateCopy;
        if strike {
            state.copies.push((to, from));
            state.done += 1;
        }
        strike
    }

    /// The copies that are due now that a round begins: to, from.
    pub(crate) fn due_copies(&self) -> Vec<(Pfn, Pfn)> {
        std::mem::take(&mut lock(&self.state).copies)
    }

    /// Whether this copy is to be left out.
    pub(crate) fn skips_copy(&self) -> bool {
        if !self.active() {
            return false;
        }
        let mut state = lock(&self.state);
        let Sabotage::SkipCopy { nth } = state.order else {
            return false;
        };
        state.count += 1;
        let strike = state.count == nth;
        state.done += u64::from(strike);
        strike
    }

    /// What is stored instead of `value`.
    pub(crate) fn alter_store(&self, value: u64) -> u64 {
        const PRESENT: u64 = 1 << 0;
        const WRITABLE: u64 = 1 << 1;
        const NO_EXECUTE: u64 = 1 << 63;
        /// Ignored by the processor and unused by any kernel entry, but set in a
        /// `compound_info`, which is stored by the same road.
        const SOFTWARE: u64 = 0x7ff << 52;
        if !self.active() {
            return value;
        }
        let mut state = lock(&self.state);
        let kind = value & (PRESENT | WRITABLE | NO_EXECUTE | SOFTWARE);
        let strike = state.order == Sabotage::WritableEntries && kind == PRESENT | NO_EXECUTE;
        state.done += u64::from(strike);
        if strike { value | WRITABLE } else { value }
    }

    /// The flushes that are due now that frames were freed.
    pub(crate) fn due(&self) -> Vec<Late> {
        if !self.active() {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        if state.order == Sabotage::NoWait {
            return Vec::new();
        }
        std::mem::take(&mut state.late)
    }
}
