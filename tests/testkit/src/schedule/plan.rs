//! Who goes on: strategies, and the text by which a schedule is named.

use core::fmt;
use core::str::FromStr;

use super::point::Point;

/// How the next CPU is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// At random. How long a CPU is left alone, on average, is drawn once a
    /// schedule: 1, 4, 16 or 64 steps.
    Random,
    /// By priorities, which change at a few random points (probabilistic concurrency
    /// testing, Burckhardt et al. 2010): finds what needs few preemptions, but those
    /// in the right places.
    Pct {
        /// The points lie among so many steps, weighted.
        horizon: u64,
    },
}

/// One schedule: same plan, same order of steps. Written `random:SEED` or
/// `pct:HORIZON:SEED`.
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
            Strategy::Pct { horizon } => write!(f, "pct:{horizon}:{}", self.seed),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no schedule: write random:SEED or pct:HORIZON:SEED");
        let number = |word: &str| word.parse().map_err(|_| bad());
        let words: Vec<_> = text.split(':').collect();
        let (strategy, seed) = match words[..] {
            ["random", seed] => (Strategy::Random, number(seed)?),
            ["pct", horizon, seed] => {
                let horizon = number(horizon)?;
                (Strategy::Pct { horizon }, number(seed)?)
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
    /// The chance that another CPU is picked.
    Random { change: f64 },
    Priorities {
        /// Of each CPU; the largest goes on.
        of: Vec<i64>,
        /// Weighted steps after which the CPU that goes on falls behind, last first.
        changes: Vec<u64>,
        /// Weighted steps so far.
        now: u64,
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
            },
            Strategy::Pct { horizon } => {
                let mut of: Vec<i64> = (0..).take(cpus).collect();
                random.shuffle(&mut of);
                let count = random.usize(1..=MAX_CHANGES);
                let mut changes: Vec<u64> =
                    (0..count).map(|_| random.u64(..horizon.max(1))).collect();
                changes.sort_unstable_by(|a, b| b.cmp(a));
                How::Priorities {
                    of,
                    changes,
                    now: 0,
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

    /// `cpu` stands at `point`.
    pub(super) fn at(&mut self, cpu: usize, point: Point) {
        if let How::Priorities {
            of,
            changes,
            now,
            lowest,
        } = &mut self.how
        {
            *now += point.weight();
            let mut falls = false;
            while changes.last().is_some_and(|change| change < now) {
                changes.pop();
                falls = true;
            }
            if falls {
                of[cpu] = *lowest;
                *lowest -= 1;
            }
        }
    }

    /// One of `ready`, which is not empty; `last` went on before.
    pub(super) fn pick(&mut self, ready: &[usize], last: usize) -> usize {
        match &self.how {
            How::Random { change } => {
                if *change < 1.0 && ready.contains(&last) && self.random.f64() >= *change {
                    return last;
                }
                ready[self.random.usize(..ready.len())]
            }
            How::Priorities { of, .. } => {
                let first = ready.iter().copied();
                first.max_by_key(|cpu| of[*cpu]).unwrap_or(last)
            }
        }
    }
}
