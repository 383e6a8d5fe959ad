//! A processor on which two sizes of one address in the TLB are a machine check: nothing may
//! change the size of a page of the memmap there, whatever is folded, unfolded, demoted,
//! promoted or undone.

use mm::addr::Order;
use mm::machine::FailPoint;
use suites::Random;
use testkit::{Injection, Violation, World};

/// Three GiB on two nodes; every CPU holds translations nobody asked for.
fn world(hidden: bool) -> World {
    let builder = World::builder().ram(0, 0, 3072).ram(1, 3072, 4096);
    let world = builder.cpus(2).multi_hit(hidden).boot();
    world.speculate(0.2, 7);
    world.mm.hugetlb.set_optimize(true);
    world
}

/// Reads the memmap in many places on each CPU, some of them in each 2 MiB.
fn touch(w: &World) {
    for cpu in 0..2 {
        let window = w.window();
        for at in (0..window.bytes()).step_by(37 * 4096) {
            let _ = w.load_as(cpu, window.start.offset(at));
        }
    }
}

/// Pools of both sizes grow, shrink, are demoted and promoted, with and without failures; the
/// CPUs look at struct pages all the while.
fn story(w: &World, seed: u64) {
    let (m, mm) = (&w.m, &w.mm);
    let mut random = Random::new(seed);
    for step in 0..40 {
        touch(w);
        let point = [FailPoint::PageAlloc, FailPoint::VmemmapPte][usize::from(step % 2 == 0)];
        if random.below(3) == 0 {
            m.fail(point, Injection::Kth(1 + random.below(40)));
        }
        let order = [Order::PMD, Order::PUD][usize::from(random.below(3) == 0)];
        let h = mm.hugetlb.hstate(order).expect("both sizes");
        let count = 1 + random.below(3);
        match random.below(3) {
            0 => mm.hugetlb.grow(m, mm.backing(), h, None, count),
            1 => mm.hugetlb.shrink(m, mm.backing(), h, None, count),
            _ => mm.hugetlb.demote(m, mm.backing(), h, None, 1),
        };
        m.fail(point, Injection::Never);
        let report = w.audit();
        assert!(report.is_ok(), "seed {seed}, step {step}: {report}");
    }
}

/// The memmap is mapped by 4 KiB pages from boot on, and stays so.
#[test]
fn sizes_never_change() {
    for seed in 1..=2 {
        let w = world(false);
        assert_eq!(w.audit().leaves, 0, "2 MiB leaves after boot");
        story(&w, seed);
        let report = w.audit();
        assert_eq!(report.leaves, 0, "2 MiB leaves after seed {seed}");
        assert_eq!(w.m.take_violations(), [], "seed {seed}");
    }
}

/// The same on a processor that is thought to be any other is the end of it, by the first fold.
#[test]
fn a_leaf_replaced_in_use_is_a_machine_check() {
    let w = world(true);
    assert!(w.audit().leaves > 0, "no leaf to replace");
    let caught = w.m.expect_violation(|| story(&w, 1));
    assert!(matches!(caught, Violation::MultiHit { .. }), "{caught}");
}

/// In two steps a leaf is split, and that flushed, before an entry changes: two flushes a fold, and
/// nothing else is different. Neither is right on that processor: a split changes the size.
#[test]
fn two_steps_cost_a_flush() {
    for two_steps in [false, true] {
        let w = World::builder().ram(0, 0, 3072).cpus(2).boot();
        w.speculate(0.2, 7);
        w.mm.vmemmap.set_two_steps(two_steps);
        w.mm.hugetlb.set_optimize(true);
        let h = w.mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
        let flushes = || w.mm.vmemmap.ledger().totals().flushes;
        let before = flushes();
        w.mm.hugetlb.grow(&w.m, w.mm.backing(), h, None, 1);
        assert_eq!(
            flushes() - before,
            1 + u64::from(two_steps),
            "the first fold of a leaf"
        );
        let before = flushes();
        w.mm.hugetlb.grow(&w.m, w.mm.backing(), h, None, 1);
        assert_eq!(flushes() - before, 1, "a fold where there is a table");
        w.mm.hugetlb.shrink(&w.m, w.mm.backing(), h, None, 2);
        if two_steps {
            story(&w, 3);
        }
        assert_eq!(w.m.take_violations(), []);
    }
    let w = world(true);
    w.mm.vmemmap.set_two_steps(true);
    let caught = w.m.expect_violation(|| story(&w, 1));
    assert!(matches!(caught, Violation::MultiHit { .. }), "{caught}");
}
