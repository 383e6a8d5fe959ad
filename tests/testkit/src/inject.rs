//! Failures on demand.

use std::sync::Mutex;

use mm::machine::FailPoint;

use crate::sync::lock;

const POINTS: usize = 3;

/// When an operation at one [`FailPoint`] fails.
#[derive(Clone, Debug, Default)]
pub enum Injection {
    /// Never.
    #[default]
    Never,
    /// The `k`th time from now, counted from 1, and only then.
    Kth(u64),
    /// Every time from the `k`th on, counted from 1: memory has run out.
    From(u64),
    /// With this probability, 0.0 to 1.0, by a generator of this seed.
    Random {
        /// Probability.
        chance: f64,
        /// Same seed, same failures.
        seed: u64,
    },
}

#[derive(Debug, Default)]
struct Point {
    plan: Injection,
    random: Option<fastrand::Rng>,
    /// Since the plan was made.
    hits: u64,
    failures: u64,
}

impl Point {
    fn hit(&mut self) -> bool {
        self.hits += 1;
        let fail = match self.plan {
            Injection::Never => false,
            Injection::Kth(k) => self.hits == k,
            Injection::From(k) => self.hits >= k,
            Injection::Random { chance, .. } => self
                .random
                .as_mut()
                .is_some_and(|random| random.f64() < chance),
        };
        self.failures += u64::from(fail);
        fail
    }
}

/// The plan and the counts of every point.
#[derive(Debug, Default)]
pub(crate) struct Injector {
    points: [Mutex<Point>; POINTS],
}

impl Injector {
    pub(crate) fn plan(&self, point: FailPoint, plan: Injection) {
        let random = match plan {
            Injection::Random { seed, .. } => Some(fastrand::Rng::with_seed(seed)),
            _ => None,
        };
        *lock(self.point(point)) = Point {
            plan,
            random,
            ..Point::default()
        };
    }

    pub(crate) fn hit(&self, point: FailPoint) -> bool {
        lock(self.point(point)).hit()
    }

    /// Hits and failures since the plan was made.
    pub(crate) fn counts(&self, point: FailPoint) -> (u64, u64) {
        let point = lock(self.point(point));
        (point.hits, point.failures)
    }

    fn point(&self, point: FailPoint) -> &Mutex<Point> {
        &self.points[match point {
            FailPoint::PageAlloc => 0,
            FailPoint::VmemmapPte => 1,
            FailPoint::VmemmapPmd => 2,
        }]
    }
}
