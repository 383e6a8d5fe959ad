//! TLB flushes that are still to be done.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{PAGE_SIZE, VirtRange};
use crate::machine::Machine;
use crate::sync::assert_no_lock_held;

/// Above this many pages all translations are dropped instead of single ones, unless
/// the command line says otherwise: Linux's default on x86. `bench --time` measures
/// where the two cost the same.
pub const FULL_FLUSH_CEILING: u64 = 33;

static UNSPENT: AtomicU64 = AtomicU64::new(0);

// Relaxed: set at boot. Either way of flushing is right at any time.
static CEILING: AtomicU64 = AtomicU64::new(FULL_FLUSH_CEILING);

/// The largest range, in pages, that is flushed page by page.
#[must_use]
pub fn full_flush_ceiling() -> u64 {
    CEILING.load(Ordering::Relaxed)
}

/// Drops all translations for ranges above `pages` pages from now on; at 0, always.
#[doc(alias = "tlb_single_page_flush_ceiling")]
pub fn set_full_flush_ceiling(pages: u64) {
    CEILING.store(pages, Ordering::Relaxed);
}

/// How many [`Flush`]es were dropped without being spent since start: 0, or
/// there is a bug. Relaxed: a statistic.
#[must_use]
pub fn unspent_flushes() -> u64 {
    UNSPENT.load(Ordering::Relaxed)
}

/// The addresses whose translations other CPUs, and this one, may still hold in
/// an older form.
#[derive(Debug)]
#[must_use = "until the flush is spent, stale translations reach the old frames"]
pub struct Flush {
    range: VirtRange,
}

impl Flush {
    /// Returns a flush of `range` that is still to be done.
    pub const fn new(range: VirtRange) -> Self {
        Self { range }
    }

    /// The addresses it is owed for.
    #[must_use]
    pub const fn range(&self) -> VirtRange {
        self.range
    }

    /// Both at once: one round for the range that covers the two.
    pub fn merge(self, other: Self) -> Self {
        let merged = Self {
            range: self.range.merge(other.range),
        };
        core::mem::forget((self, other));
        merged
    }

    /// Flushes the range on every CPU and waits: on return no CPU holds a translation of it that is
    /// older than the call. Entries of larger size that cover a page of it are dropped, too.
    #[doc(alias = "flush_tlb_kernel_range")]
    pub fn flush<M: Machine>(self, m: &M) {
        let start = self.range.start.align_down(PAGE_SIZE);
        let pages = self
            .range
            .end
            .as_u64()
            .wrapping_sub(start.as_u64())
            .div_ceil(PAGE_SIZE);
        core::mem::forget(self);
        assert_no_lock_held(m);
        if pages > full_flush_ceiling() {
            m.on_each_cpu(&|| m.flush_all_local());
        } else {
            m.on_each_cpu(&|| {
                for n in 0..pages {
                    m.flush_page_local(start.offset(n * PAGE_SIZE));
                }
            });
        }
    }

    /// Owes nothing after all, because no CPU can have used the address yet or
    /// the whole TLB is about to go. `why` is for the reader.
    pub fn ignore(self, why: &'static str) {
        let _ = why;
        core::mem::forget(self);
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        UNSPENT.fetch_add(1, Ordering::Relaxed);
    }
}
