//! One pool and several CPUs, each a thread of the host, that resize it, map from it,
//! fork, take and put at once.

use std::sync::Barrier;

use mm::addr::{NodeId, Order};
use mm::hugetlb::{Counts, MapFlags, Slot};
use mm::machine::Memory as _;
use mm::page::Page;
use testkit::World;

const CPUS: usize = 3;
const ROUNDS: usize = 150;
/// Most surplus folios.
const OVERCOMMIT: u64 = 3;
/// Folios there are to begin with.
const NR: u64 = 1;

/// What the CPUs do beside mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// They change how many folios stay.
    Resize,
    /// Nothing, so there is never more surplus than may be made.
    Nothing,
}

/// Free pages, those in the pools, and what their memmap takes.
fn frames(w: &World) -> u64 {
    let totals = w.vmemmap().ledger().totals();
    let huge = |h: &mm::hugetlb::Hstate| h.total(&w.m).nr * h.order().pages();
    w.free_pages()
        + w.mm.hugetlb.hstates().map(huge).sum::<u64>()
        + totals.boot_pages
        + totals.pages
        + totals.tables
        + totals.tails
}

/// Writes `stamp` at the end of a folio, which nobody else may.
fn write(w: &World, head: Page, stamp: u64) {
    let last = w.memmap().pfn(head).phys().offset(Order::PMD.bytes() - 8);
    w.m.fill_words(last, stamp, 1);
}

fn read(w: &World, head: Page) -> u64 {
    let last = w.memmap().pfn(head).phys().offset(Order::PMD.bytes() - 8);
    w.m.read_phys(last)
}

/// What one CPU does.
fn work(w: &World, cpu: usize, beside: Beside, seed: u64) {
    let (m, hugetlb, backing) = (&w.m, &w.mm.hugetlb, w.mm.backing());
    let h = hugetlb
        .hstate(Order::PMD)
        .expect("every CPU has 2 MiB pages");
    let look = || {
        let now = h.total(m);
        assert!(now.free <= now.nr && now.surplus <= now.nr, "{now:?}");
        assert!(
            beside == Beside::Resize || now.surplus <= OVERCOMMIT,
            "more surplus than may be: {now:?}"
        );
    };
    let mut random = fastrand::Rng::with_seed(seed * 8 + cpu as u64);
    for round in 0..ROUNDS {
        let stamp = ((round << 8 | cpu) as u64) << 8;
        match random.u8(..8) {
            0 | 1 if beside == Beside::Resize => {
                let node = [None, Some(NodeId::ZERO), Some(NodeId::of(1))][random.usize(..3)];
                hugetlb.set_optimize(random.bool());
                hugetlb.set_nr(m, backing, h, node, random.u64(..8));
            }
            2 => {
                let Some(head) = h.take_near(m, backing.nodes) else {
                    continue;
                };
                write(w, head, stamp);
                std::thread::yield_now();
                assert_eq!(read(w, head), stamp, "{head:?} has two owners");
                hugetlb.put(m, backing, h, head);
            }
            _ => {
                let mut slots = [Slot::Empty; 3];
                let places = random.usize(1..=3);
                let flags = MapFlags::PRIVATE;
                let Ok(mut map) = hugetlb.map(m, backing, h, flags, &mut slots[..places]) else {
                    continue;
                };
                look();
                let touched = random.usize(..=places);
                for place in 0..touched {
                    let head = map.write(place).expect("promised, and near will do");
                    write(w, head, stamp + place as u64);
                }
                let mut child = [Slot::Empty; 3];
                let mut child = map.fork(&mut child[..places]);
                if touched > 0
                    && let Ok(copy) = child.write(0)
                {
                    assert_eq!(read(w, copy), stamp, "the child got another content");
                    write(w, copy, !stamp);
                }
                for place in 0..touched {
                    let head = map.touch(place).expect("there already");
                    assert_eq!(
                        read(w, head),
                        stamp + place as u64,
                        "{head:?} has two owners"
                    );
                }
                map.discard(0).expect("there is one place at least");
            }
        }
        look();
    }
}

fn all_at_once(beside: Beside, seed: u64) {
    let w = World::builder()
        .ram(0, 1, 128)
        .ram(1, 128, 256)
        .cpus(CPUS)
        .jitter(1.0 / 4096.0)
        .boot();
    let (m, hugetlb, backing) = (&w.m, &w.mm.hugetlb, w.mm.backing());
    let h = hugetlb
        .hstate(Order::PMD)
        .expect("every CPU has 2 MiB pages");
    let before = frames(&w);
    hugetlb.set_optimize(true);
    h.set_overcommit(m, OVERCOMMIT);
    assert_eq!(hugetlb.set_nr(m, backing, h, None, NR), NR);
    let barrier = Barrier::new(CPUS);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (w, barrier) = (&w, &barrier);
            scope.spawn(move || {
                w.m.on_cpu(cpu, || {
                    barrier.wait();
                    work(w, cpu, beside, seed);
                });
            });
        }
    });
    w.check();
    let now = h.total(m);
    assert_eq!(h.resv(m), 0, "promises that nobody has");
    assert_eq!(now.free, now.nr, "folios that nobody has");
    if beside == Beside::Nothing {
        assert_eq!(now.persistent(), NR);
    }
    let nodes = [NodeId::ZERO, NodeId::of(1)].map(|node| h.counts(m, node));
    assert_eq!(now.nr, nodes[0].nr + nodes[1].nr);
    assert_eq!(now.free, nodes[0].free + nodes[1].free);
    assert_eq!(now.surplus, nodes[0].surplus + nodes[1].surplus);
    // What was being made is here or will not be: all that may be made still may.
    let most = usize::try_from(OVERCOMMIT + now.persistent()).expect("few");
    let mut slots = vec![Slot::Empty; most];
    let all = hugetlb.map(m, backing, h, MapFlags::SHARED, &mut slots);
    drop(all.expect("as many as stay, and as may be made beyond"));
    hugetlb.shrink(m, backing, h, None, u64::MAX);
    assert_eq!(h.total(m), Counts::default());
    assert_eq!(frames(&w), before, "frames got lost, or too many");
    w.check();
}

#[test]
fn cpus_map_and_resize_one_pool() {
    for seed in 0..4 {
        all_at_once(Beside::Resize, seed);
    }
}

#[test]
fn surplus_of_all_cpus_is_what_may_be() {
    for seed in 4..8 {
        all_at_once(Beside::Nothing, seed);
    }
}
