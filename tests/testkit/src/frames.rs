//! Allocators for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Order, Pfn, PfnRange};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;

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

/// An allocator whose frames the machine watches: freed ones are poisoned, and
/// using them, or being able to, is caught.
#[derive(Debug)]
pub struct Tracked<S> {
    inner: S,
}

impl<S: FrameSource<EmulatedMachine>> Tracked<S> {
    /// Watches `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The allocator that is watched.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: FrameSource<EmulatedMachine>> FrameSource<EmulatedMachine> for Tracked<S> {
    fn alloc(&self, m: &EmulatedMachine, order: Order, placement: Placement) -> Option<Pfn> {
        let block = self.inner.alloc(m, order, placement)?;
        m.mark_allocated(block, order.pages());
        Some(block)
    }

    fn free(&self, m: &EmulatedMachine, block: Pfn, order: Order) {
        m.mark_freed(block, order.pages());
        self.inner.free(m, block, order);
    }

    fn split(&self, m: &EmulatedMachine, block: Pfn, order: Order) {
        self.inner.split(m, block, order);
    }

    fn free_pages(&self, m: &EmulatedMachine, first: Pfn, pages: u64) {
        m.mark_freed(first, pages);
        self.inner.free_pages(m, first, pages);
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
