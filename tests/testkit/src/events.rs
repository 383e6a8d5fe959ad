//! What happened in which order, for tests about order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::{Pfn, PhysAddr, VirtAddr};

use crate::sync::lock;

/// One thing the machine did while events were being recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// 8 bytes stored by physical address: a table entry, most often.
    WritePhys {
        /// Where.
        at: PhysAddr,
        /// What.
        value: u64,
    },
    /// A frame copied.
    CopyFrame {
        /// Target.
        to: Pfn,
        /// Source.
        from: Pfn,
    },
    /// One page dropped from a translation cache.
    FlushPage {
        /// Of this CPU.
        cpu: usize,
        /// Any address in the page.
        at: VirtAddr,
    },
    /// A translation cache emptied.
    FlushAll {
        /// Of this CPU.
        cpu: usize,
    },
    /// Frames handed out.
    Alloc {
        /// The first.
        first: Pfn,
        /// How many.
        pages: u64,
    },
    /// Frames taken back.
    Free {
        /// The first.
        first: Pfn,
        /// How many.
        pages: u64,
    },
}

/// The record, off until switched on.
#[derive(Debug, Default)]
pub(crate) struct Events {
    on: AtomicBool,
    list: Mutex<Vec<Event>>,
}

impl Events {
    /// Relaxed: tests that record events run the machine from one thread.
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(crate) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn push(&self, event: Event) {
        if self.are_on() {
            lock(&self.list).push(event);
        }
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.list))
    }
}
