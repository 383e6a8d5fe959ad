//! The churn that a soak is made of, on the emulated machine: honest, it ends as it
//! began; with a promise broken it notices.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use ktest::Stop;
use suites::churn::Churn;
use testkit::{Sabotage, World};

/// Steps of the first CPU in a round.
const STEPS: u64 = 400;

fn world(cpus: usize) -> World {
    let world = World::builder()
        .ram(0, 1, 512)
        .ram(1, 768, 1024)
        .cpus(cpus)
        .boot();
    world.speculate(0.02, 1);
    world
}

/// Says yes so many times.
fn times(n: u64) -> impl Fn() -> bool + Sync {
    let asked = AtomicU64::new(0);
    move || asked.fetch_add(1, Ordering::Relaxed) + 1 < n
}

fn ok(outcome: ktest::Outcome) {
    match outcome {
        Ok(()) => {}
        Err(Stop::Failed(failure)) => panic!("{failure}"),
        Err(Stop::Skipped(reason)) => panic!("skipped: {reason}"),
    }
}

fn soak(w: &World, seed: u64) {
    let env = w.env();
    let churn = Churn::new(&env, seed);
    for round in 1..=3 {
        ok(churn.round(&times(STEPS)));
        w.check();
        assert!(churn.operations() >= round * STEPS);
    }
    assert!(churn.operations_by_cpu().all(|done| done > 0));
    ok(churn.finish());
    w.check();
}

#[test]
fn ends_as_it_began() {
    for cpus in [1, 2, 4] {
        for seed in 0..2 {
            let w = world(cpus);
            w.mm.hugetlb.set_optimize(seed % 2 == 0);
            let h = w.mm.hugetlb.hstates().next().expect("2 MiB");
            let grown = w.mm.hugetlb.grow(&w.m, w.mm.backing(), h, None, 20);
            soak(&w, seed);
            assert_eq!(h.total(&w.m).nr, grown);
            assert_eq!(h.total(&w.m).free, grown);
            assert_eq!(w.mm.hugetlb.optimizes(), seed % 2 == 0);
        }
    }
}

/// Whether churn on a machine with this bug is stopped by it.
fn is_noticed(bug: Sabotage) -> bool {
    let w = world(3);
    w.mm.hugetlb.set_optimize(true);
    w.m.sabotage(bug);
    let noticed = catch_unwind(AssertUnwindSafe(|| soak(&w, 7))).is_err();
    assert!(w.m.sabotaged() > 0, "{bug:?} did not happen");
    noticed
}

#[test]
fn notices_a_forgotten_interrupt() {
    assert!(is_noticed(Sabotage::LocalRoundsOnly));
}

#[test]
fn notices_a_free_before_the_flush() {
    assert!(is_noticed(Sabotage::FlushAfterFree));
}

#[test]
fn notices_writable_tails() {
    assert!(is_noticed(Sabotage::WritableEntries));
}

/// The content of a head that is lost is noticed at the latest when it is unfolded.
#[test]
fn notices_a_copy_left_out() {
    assert!(is_noticed(Sabotage::SkipCopy { nth: 5 }));
}
