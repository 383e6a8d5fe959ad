//! The processor's own counts of misses, where it lets us have them.

use perf_event::events::{Cache, CacheId, CacheOp, CacheResult, Hardware};
use perf_event::{Builder, Counter, Group};

/// Misses counted over some lookups.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Misses {
    /// Loads that missed the last-level cache.
    pub(super) cache: u64,
    /// Loads that missed the data TLB.
    pub(super) dtlb: u64,
}

/// Counters that are running or could.
pub(super) struct Counters {
    group: Group,
    cache: Counter,
    dtlb: Counter,
}

impl Counters {
    /// Opens them.
    pub(super) fn open() -> std::io::Result<Self> {
        let mut group = Group::new()?;
        let cache = group.add(&Builder::new(Hardware::CACHE_MISSES))?;
        let dtlb = group.add(&Builder::new(Cache {
            which: CacheId::DTLB,
            operation: CacheOp::READ,
            result: CacheResult::MISS,
        }))?;
        Ok(Self { group, cache, dtlb })
    }

    /// Counts over `work`.
    pub(super) fn over<R>(&mut self, work: impl FnOnce() -> R) -> (R, std::io::Result<Misses>) {
        let started = self.group.reset().and_then(|()| self.group.enable());
        let result = work();
        let read = started.and_then(|()| {
            self.group.disable()?;
            let counts = self.group.read()?;
            Ok(Misses {
                cache: counts[&self.cache],
                dtlb: counts[&self.dtlb],
            })
        });
        (result, read)
    }
}
