//! One schedule, from the first step to the last.

use core::fmt;
use std::any::Any;

use corosensei::CoroutineResult;

use super::fiber::{self, Fiber};
use super::plan::{Chooser, Plan, Steps};
use super::point::{self, Point};
use crate::machine::THIS_CPU;

/// Steps after which a schedule counts as one that never ends.
pub const LIMIT: u64 = 5_000_000;

/// How a schedule failed.
pub enum Failure {
    /// The work of a CPU panicked.
    Panicked {
        /// Which.
        cpu: usize,
        /// With what.
        payload: Box<dyn Any + Send>,
    },
    /// Every CPU that is not done waits for another.
    Deadlock {
        /// The CPUs that wait.
        waiting: Vec<usize>,
    },
    /// [`LIMIT`] steps and no end.
    Livelock {
        /// The CPUs that are not done.
        running: Vec<usize>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { cpu, payload } => {
                write!(f, "CPU {cpu}: {}", text(payload.as_ref()))
            }
            Self::Deadlock { waiting } => {
                write!(f, "deadlock: CPUs {waiting:?} wait for each other")
            }
            Self::Livelock { running } => {
                write!(
                    f,
                    "livelock: CPUs {running:?} have not ended after {LIMIT} steps"
                )
            }
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a panic said.
pub(super) fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| {
        payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
    })
    .unwrap_or_else(|| "a panic without text".to_owned())
}

/// One CPU under the scheduler.
struct Lane<'a> {
    fiber: Fiber<'a>,
    done: bool,
    /// The number of steps others had made when it began to wait.
    waits_since: Option<u64>,
}

/// Puts this thread back to the CPU that it played.
struct Back(usize);

impl Drop for Back {
    fn drop(&mut self) {
        point::reset(self.0);
    }
}

/// Runs `work(cpu)` of every CPU below `cpus`, interleaved as `plan` says.
///
/// # Errors
/// [`Failure`]; the other CPUs' work is unwound from where it stood.
///
/// # Panics
/// If called by work that is itself under the scheduler.
pub fn run(cpus: usize, plan: Plan, work: &dyn Fn(usize)) -> Result<Steps, Failure> {
    assert!(!fiber::is_running(), "a schedule inside a schedule");
    assert!(cpus <= 64, "{cpus} CPUs: the scheduler has room for 64");
    let _back = Back(THIS_CPU.get());
    point::reset(0);
    let lane = |cpu| Lane {
        fiber: Fiber::new(move || {
            point::begin(cpu);
            work(cpu);
        }),
        done: false,
        waits_since: None,
    };
    let mut lanes: Vec<Lane<'_>> = (0..cpus).map(lane).collect();
    let mut chooser = Chooser::new(plan, cpus);
    let mut steps = Steps::default();
    // Steps that may have changed what somebody waits for.
    let mut progress = 0;
    let mut last = 0;
    let mut ready = Vec::with_capacity(cpus);
    loop {
        let running = || (0..cpus).filter(|cpu| !lanes[*cpu].done);
        ready.clear();
        ready
            .extend(running().filter(|cpu| lanes[*cpu].waits_since.is_none_or(|at| at < progress)));
        if ready.is_empty() {
            let waiting: Vec<_> = running().collect();
            if waiting.is_empty() {
                return Ok(steps);
            }
            return Err(Failure::Deadlock { waiting });
        }
        if steps.points == LIMIT {
            let running = running().collect();
            return Err(Failure::Livelock { running });
        }
        let next = chooser.pick(&ready, last);
        steps.switches += u64::from(next != last);
        last = next;
        let lane = &mut lanes[next];
        match lane.fiber.resume(chooser.number()) {
            CoroutineResult::Yield(Point::Wait) => lane.waits_since = Some(progress),
            CoroutineResult::Yield(point) => {
                lane.waits_since = None;
                progress += 1;
                if point.is_eventful() {
                    steps.events += 1;
                } else {
                    steps.accesses += 1;
                }
                chooser.at(next, &steps);
            }
            CoroutineResult::Return(Ok(())) => {
                lane.done = true;
                progress += 1;
            }
            CoroutineResult::Return(Err(payload)) => {
                return Err(Failure::Panicked { cpu: next, payload });
            }
        }
        steps.points += 1;
    }
}
