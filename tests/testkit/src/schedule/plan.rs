//! Who goes on: strategies, and the text by which a schedule is named.

use core::fmt;
use core::str::FromStr;

/// What a schedule took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steps {
    /// Points passed by all CPUs together.
    pub points: u64,
    /// Those of them at which data is loaded or stored.
    pub accesses: u64,
    /// Those at which tables, caches or interrupt flags change.
    pub events: u64,
    /// How often another CPU went on than before.
    pub switches: u64,
}

/// How the next CPU is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// At random. How long a CPU goes on, on average, is drawn once a schedule: 1, 4,
    /// 16 or 64 steps; and whether one CPU falls asleep where it stands now and then,
    /// for up to a few thousand steps of others, as under a hypervisor.
    Random,
    /// By priorities, which change at a few random points (probabilistic concurrency
    /// testing, Burckhardt et al. 2010): finds what needs few preemptions, but those
    /// in the right places.
    Pct {
        /// Half of the points lie among so many accesses,
        accesses: u64,
        /// the others among so many events: stores to tables, flushes, changes of the
        /// interrupt flag.
        events: u64,
    },
}

/// One schedule: same plan, same order of steps. Written `random:SEED` or
/// `pct:ACCESSES:EVENTS:SEED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How CPUs are picked.
    pub strategy: Strategy,
    /// Of the generator that picks.
    pub seed: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strategy {
            Strategy::Random => write!(f, "random:{}", self.seed),
            Strategy::Pct { accesses, events } => {
                write!(f, "pct:{accesses}:{events}:{}", self.seed)
            }
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is no schedule: write random:SEED or pct:ACCESSES:EVENTS:SEED");
        let number = |word: &str| word.parse().map_err(|_| bad());
        let words: Vec<_> = text.split(':').collect();
        let (strategy, seed) = match words[..] {
            ["random", seed] => (Strategy::Random, number(seed)?),
            ["pct", accesses, events, seed] => {
                let (accesses, events) = (number(accesses)?, number(events)?);
                (Strategy::Pct { accesses, events }, number(seed)?)
            }
            _ => return Err(bad()),
        };
        Ok(Self { strategy, seed })
    }
}

/// Preemptions of a [`Strategy::Pct`] schedule, at most.
const MAX_CHANGES: usize = 4;

/// Carries out a plan.
#[derive(Debug)]
pub(super) struct Chooser {
    random: fastrand::Rng,
    how: How,
}

#[derive(Debug)]
enum How {
    Random {
        /// The chance that another CPU is picked.
        change: f64,
        /// The CPU that falls asleep, and its chance at each step.
        sleepy: usize,
        stall: f64,
        /// The step until which it sleeps.
        until: u64,
        /// Steps so far.
        now: u64,
    },
    Priorities {
        /// Of each CPU; the largest goes on.
        of: Vec<i64>,
        /// Accesses after which the CPU that goes on falls behind, last first.
        at_accesses: Vec<u64>,
        /// Events, likewise.
        at_events: Vec<u64>,
        /// Below every priority handed out so far.
        lowest: i64,
    },
}

impl Chooser {
    pub(super) fn new(plan: Plan, cpus: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let how = match plan.strategy {
            Strategy::Random => How::Random {
                change: [1.0, 0.25, 0.0625, 0.015_625][random.usize(..4)],
                sleepy: random.usize(..cpus.max(1)),
                stall: [0.0, 0.0, 0.004, 0.03][random.usize(..4)],
                until: 0,
                now: 0,
            },
            Strategy::Pct { accesses, events } => {
                let mut of: Vec<i64> = (0..).take(cpus).collect();
                random.shuffle(&mut of);
                let count = random.usize(1..=MAX_CHANGES);
                let of_events = random.usize(..=count);
                let mut draw = |count: usize, horizon: u64| {
                    let one = |_| random.u64(1..=horizon.max(1));
                    let mut changes: Vec<u64> = (0..count).map(one).collect();
                    changes.sort_unstable_by(|a, b| b.cmp(a));
                    changes
                };
                How::Priorities {
                    of,
                    at_accesses: draw(count - of_events, accesses),
                    at_events: draw(of_events, events),
                    lowest: -1,
                }
            }
        };
        Self { random, how }
    }

    /// For the CPU that is resumed.
    pub(super) fn number(&mut self) -> u64 {
        self.random.u64(..)
    }

    /// `cpu` has come to the last of `steps`.
    pub(super) fn at(&mut self, cpu: usize, steps: &Steps) {
        let How::Priorities {
            of,
            at_accesses,
            at_events,
            lowest,
        } = &mut self.how
        else {
            return;
        };
        let mut falls = false;
        for (changes, now) in [(at_accesses, steps.accesses), (at_events, steps.events)] {
            while changes.last().is_some_and(|change| *change <= now) {
                changes.pop();
                falls = true;
            }
        }
        if falls {
            of[cpu] = *lowest;
            *lowest -= 1;
        }
    }

    /// One of `ready`, which is not empty; `last` went on before.
    pub(super) fn pick(&mut self, ready: &[usize], last: usize) -> usize {
        let random = &mut self.random;
        match &mut self.how {
            How::Random {
                change,
                sleepy,
                stall,
                until,
                now,
            } => {
                *now += 1;
                if *stall > 0.0 && last == *sleepy && random.f64() < *stall {
                    *until = *now + (1 << random.u64(4..=13));
                }
                let (sleepy, sleeps) = (*sleepy, *until > *now);
                let awake = |cpu: &usize| *cpu != sleepy || !sleeps;
                if ready.contains(&last) && awake(&last) && random.f64() >= *change {
                    return last;
                }
                let awake: Vec<usize> = ready.iter().copied().filter(awake).collect();
                let from = if awake.is_empty() { ready } else { &awake };
                from[random.usize(..from.len())]
            }
            How::Priorities { of, .. } => {
                let first = ready.iter().copied();
                first.max_by_key(|cpu| of[*cpu]).unwrap_or(last)
            }
        }
    }
}
