//! Faults on demand: which operation at each [`FailPoint`] fails.
//!
//! Two ways at once: the `n`th from now on, for self-tests, and Linux's attributes, for a
//! person at the shell. All numbers are relaxed: they are set before the operations that
//! they are meant for, and whoever else comes by takes part.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use mm::addr::PAGE_SIZE;
use mm::machine::FailPoint;

/// What decides about one point.
#[derive(Debug)]
#[doc(alias = "struct fault_attr")]
pub(crate) struct Attributes {
    /// How many operations still succeed before one fails; [`NEVER`]: all.
    countdown: AtomicU64,
    /// Chance in percent that an operation fails.
    pub(crate) probability: AtomicU32,
    /// Only one in so many operations can.
    pub(crate) interval: AtomicU64,
    /// Failures that are left; below 0: no end.
    pub(crate) times: AtomicI64,
    /// Bytes that are still given first; an operation is a page.
    pub(crate) space: AtomicU64,
    /// Operations so far, of those that could fail by `probability`.
    seen: AtomicU64,
    random: AtomicU64,
    /// Failures so far, of either way.
    injected: AtomicU64,
}

/// A countdown that fails nothing.
const NEVER: u64 = u64::MAX;

static POINTS: [Attributes; 3] = [const { Attributes::new() }; 3];

/// What decides about `point`.
pub(crate) fn attributes(point: FailPoint) -> &'static Attributes {
    &POINTS[point as usize]
}

impl Attributes {
    const fn new() -> Self {
        Self {
            countdown: AtomicU64::new(NEVER),
            probability: AtomicU32::new(0),
            interval: AtomicU64::new(1),
            times: AtomicI64::new(1),
            space: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
            injected: AtomicU64::new(0),
        }
    }

    /// Sets the chance, 100 at most.
    pub(crate) fn set_probability(&self, percent: u64) {
        let percent = u32::try_from(percent.min(100)).unwrap_or(100);
        self.probability.store(percent, Ordering::Relaxed);
    }

    /// Makes the `nth` operation from now on fail, counted from 0, or none.
    pub(crate) fn fail_nth(&self, nth: Option<u64>) {
        self.countdown
            .store(nth.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Whether the operation now under way is to fail.
    #[inline]
    pub(crate) fn should_fail(&self) -> bool {
        // The usual case is two loads.
        let counting = self.countdown.load(Ordering::Relaxed) != NEVER;
        let fails = (counting && self.count_down())
            || (self.probability.load(Ordering::Relaxed) != 0 && self.by_chance());
        if fails {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        fails
    }

    /// Operations that were made to fail, since start.
    pub(crate) fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    #[cold]
    fn count_down(&self) -> bool {
        let step = |left| match left {
            NEVER => None,
            0 => Some(NEVER),
            n => Some(n - 1),
        };
        let relaxed = Ordering::Relaxed;
        self.countdown.fetch_update(relaxed, relaxed, step) == Ok(0)
    }

    /// In the order in which Linux asks.
    #[cold]
    #[doc(alias = "should_fail_ex")]
    fn by_chance(&self) -> bool {
        let relaxed = Ordering::Relaxed;
        if self.times.load(relaxed) == 0 {
            return false;
        }
        let spend = |left: u64| (left > 0).then(|| left.saturating_sub(PAGE_SIZE));
        if self.space.fetch_update(relaxed, relaxed, spend).is_ok() {
            return false;
        }
        let seen = self.seen.fetch_add(1, relaxed) + 1;
        if !seen.is_multiple_of(self.interval.load(relaxed).max(1)) {
            return false;
        }
        if u64::from(self.probability.load(relaxed)) <= self.roll() {
            return false;
        }
        let one_less = |left: i64| match left {
            0 => None,
            n if n < 0 => Some(n),
            n => Some(n - 1),
        };
        self.times.fetch_update(relaxed, relaxed, one_less).is_ok()
    }

    /// A number below 100. (xorshift64*, Vigna 2016.)
    fn roll(&self) -> u64 {
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.store(x, Ordering::Relaxed);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % 100
    }
}
