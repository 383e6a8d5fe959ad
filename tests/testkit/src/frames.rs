//! Allocators for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Order, Pfn, PfnRange};
use mm::machine::Memory as _;

use crate::machine::EmulatedMachine;

/// Hands out the frames of a range one after the other and takes none back: for
/// page tables and the like that a test needs before an allocator exists.
#[derive(Debug)]
pub struct Bump {
    next: AtomicU64,
    end: Pfn,
}

impl Bump {
    /// All of `range` is free.
    #[must_use]
    pub fn new(range: PfnRange) -> Self {
        Self {
            next: AtomicU64::new(range.start.as_u64()),
            end: range.end,
        }
    }

    /// The next block of `order`, naturally aligned, or `None` behind the end.
    pub fn take(&self, order: Order) -> Option<Pfn> {
        let mut block = None;
        let _end = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let first = next.next_multiple_of(order.pages());
                let end = first + order.pages();
                block = (end <= self.end.as_u64()).then_some(Pfn::new(first));
                block.map(|_| end)
            });
        block
    }

    /// First frame that has not been handed out.
    pub fn next(&self) -> Pfn {
        Pfn::new(self.next.load(Ordering::Relaxed))
    }
}

impl EmulatedMachine {
    /// A frame from `bump`, zeroed: an empty table.
    ///
    /// # Panics
    /// If `bump` is empty.
    pub fn zeroed(&self, bump: &Bump) -> Pfn {
        let frame = bump.take(Order::PAGE).expect("the test gave enough frames");
        self.fill_words(frame.phys(), 0, 512);
        frame
    }
}
