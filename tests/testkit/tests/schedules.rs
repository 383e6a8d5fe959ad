//! Thousands of interleavings, step by step: folds and unfolds on one CPU under the
//! eyes of others. A failure prints its seed and how to replay it.

use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::Order;
use mm::vmemmap::Fill;
use testkit::schedule::{Found, Story, View, explore, search};
use testkit::{Sabotage, World};

/// A machine that boots in milliseconds: it does so for each schedule.
fn small(cpus: usize) -> World {
    World::builder().ram(0, 0, 8).cpus(cpus).boot()
}

/// One CPU folds and unfolds a block, the others read it.
struct UnderReaders {
    order: u8,
    /// Whether a table maps the block's memmap from the start.
    split: bool,
    /// What the machine does wrong from the first step on.
    sabotage: Sabotage,
}

impl UnderReaders {
    const fn honest(order: u8) -> Self {
        Self {
            order,
            split: false,
            sabotage: Sabotage::None,
        }
    }
}

struct OneBlock {
    w: World,
    view: View,
    done: AtomicBool,
}

/// Reads of a reader, at most.
const READS: u32 = 2000;

impl OneBlock {
    fn begin(cpus: usize, order: u8) -> Self {
        let w = small(cpus);
        let head = w.compound(0, Order::of(order), true);
        let head = head.expect("an empty machine");
        let view = View::new(&w.m, head, 0, order, 0x1234);
        let done = AtomicBool::new(false);
        Self { w, view, done }
    }

    fn fold_and_unfold(&self, random: &mut fastrand::Rng) {
        let (head, order) = (self.view.head(), self.view.order());
        self.w.fold(head, order).expect("memory");
        for _ in 0..8 {
            self.view.read(&self.w.m, random);
        }
        self.w.unfold(head, order, Fill::Tails).expect("memory");
    }

    /// Reads until whoever folds is done.
    fn read(&self, random: &mut fastrand::Rng) {
        for _ in 0..READS {
            self.view.read(&self.w.m, random);
            if self.done.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

impl Story for UnderReaders {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> OneBlock {
        let s = OneBlock::begin(self.cpus(), self.order);
        if self.split {
            s.fold_and_unfold(random);
        }
        s.w.m.sabotage(self.sabotage);
        s
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        if cpu > 0 {
            return s.read(random);
        }
        s.fold_and_unfold(random);
        s.done.store(true, Ordering::Relaxed);
    }

    fn end(&self, s: OneBlock) {
        if self.sabotage == Sabotage::NoWait {
            // What a CPU has not flushed by now is no longer the schedule's doing.
            s.w.m.evict_all();
        }
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}

#[test]
fn order_7_under_readers() {
    let story = UnderReaders::honest(7);
    println!("{}", explore("order_7_under_readers", &story, 500));
}

#[test]
fn order_9_under_readers() {
    let story = UnderReaders::honest(9);
    println!("{}", explore("order_9_under_readers", &story, 500));
}

/// Schedules within which a broken promise must be found.
const BUDGET: u64 = 300;

fn must_find(order: u8, split: bool, sabotage: Sabotage) -> Found {
    let story = UnderReaders {
        order,
        split,
        sabotage,
    };
    match search(&story, BUDGET) {
        Ok(explored) => panic!("{sabotage:?}, order {order}: not noticed in {explored}"),
        Err(found) => {
            println!("{sabotage:?}, order {order}: {found}");
            found
        }
    }
}

/// Each flush instruction of each CPU, left out alone: one a page of memmap to fold,
/// as many to unfold.
#[test]
fn a_flush_skipped_on_one_cpu_is_found() {
    for cpu in 0..3 {
        for nth in 1..=4 {
            must_find(7, true, Sabotage::DropFlush { cpu, nth });
        }
    }
}

#[test]
fn a_round_nobody_waits_for_is_found() {
    must_find(7, false, Sabotage::NoWait);
    must_find(9, true, Sabotage::NoWait);
}

#[test]
fn frames_freed_before_the_flush_are_found() {
    must_find(7, false, Sabotage::FlushAfterFree);
    must_find(9, true, Sabotage::FlushAfterFree);
}

/// Nothing is left of this one in the end: only a reader in between can see it.
#[test]
fn a_head_copied_after_the_remap_is_found() {
    for (order, split) in [(7, false), (7, true), (9, false), (9, true)] {
        let found = must_find(order, split, Sabotage::LateCopy);
        let reader = ["CPU 1", "CPU 2"].map(|cpu| found.text.starts_with(cpu));
        assert!(reader.contains(&true), "{found}");
    }
}
