//! Several CPUs at once, each a thread of the host: shared tails are made once,
//! leaves are split once, and readers never see anything but what belongs there.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::{NodeId, Order};
use mm::machine::{Memory as _, Processors as _};
use mm::page::Page;
use mm::vmemmap::Fill;
use testkit::World;
use testkit::records::{self, Folio};

const CPUS: usize = 4;

fn world() -> World {
    World::builder().ram(0, 1, 768).cpus(CPUS).boot()
}

/// Runs `work` on every CPU at once; all start together.
fn on_all(w: &World, work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(w.m.cpus());
    std::thread::scope(|scope| {
        for cpu in 0..w.m.cpus() {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                w.m.on_cpu(cpu, || {
                    barrier.wait();
                    work(cpu);
                });
            });
        }
    });
}

/// T21: of all CPUs that make the same shared tail page at once one wins, all use
/// it, and the losers' frames come back.
#[test]
fn one_cpu_makes_the_shared_tail() {
    for _ in 0..16 {
        let w = world();
        for order in Order::range_inclusive(Order::of(7), Order::MAX) {
            let free = w.free_pages();
            let made = std::sync::Mutex::new(Vec::new());
            on_all(&w, |_| {
                let nodes = &w.mm.nodes;
                let tail = w.vmemmap().shared_tail(&w.m, nodes, NodeId::ZERO, order);
                made.lock()
                    .expect("no panic")
                    .push(tail.expect("enough memory"));
            });
            let made = made.into_inner().expect("no panic");
            assert!(made.iter().all(|tail| *tail == made[0]), "{made:?}");
            assert_eq!(free - w.free_pages(), 1, "order {order}: the losers leak");
        }
        assert_eq!(w.vmemmap().ledger().totals().tails, 16);
        w.check();
    }
}

/// Of all CPUs that replace the same 2 MiB leaf at once one wins, and no fold is
/// lost.
#[test]
fn one_cpu_splits_the_leaf() {
    let order = Order::of(7);
    for _ in 0..8 {
        // Half-way through writing its table, a CPU is likely to be overtaken.
        let w = World::builder()
            .ram(0, 0, 16)
            .cpus(CPUS)
            .jitter(1.0 / 256.0)
            .boot();
        let heads: Vec<Page> = (0..CPUS)
            .map(|_| w.compound(0, order, true).expect("room"))
            .collect();
        on_all(&w, |cpu| w.fold(heads[cpu], order).expect("memory"));
        assert_eq!(w.vmemmap().ledger().totals().tables, 1);
        w.check();
        for head in heads {
            w.unfold(head, order, Fill::Tails).expect("memory");
            w.dissolve(head, order);
        }
        w.check();
    }
}

/// Neighbours in one slot are folded and unfolded by different CPUs, which race
/// to split its leaf, while each CPU also reads what the others are at.
#[test]
fn neighbours_fold_and_unfold_at_once() {
    let w = world();
    let order = Order::of(8);
    let folios: Vec<(Page, Folio)> = (0..CPUS * 4)
        .map(|n| {
            let head = w.compound(0, order, true).expect("room");
            let at = head.address();
            let mut folio = Folio {
                head: at,
                node: 0,
                order: 8,
                folded: false,
                tails: true,
                mark: 0,
            };
            folio.write_mark(&w.m, n as u64 + 1);
            (head, folio)
        })
        .collect();
    let lock: Vec<std::sync::Mutex<Folio>> = folios
        .iter()
        .map(|(_, folio)| std::sync::Mutex::new(folio.clone()))
        .collect();
    on_all(&w, |cpu| {
        for round in 0..40 {
            for (n, (head, _)) in folios.iter().enumerate() {
                if n % CPUS == cpu {
                    let mut folio = lock[n].lock().expect("no panic");
                    w.fold(*head, order).expect("mine alone");
                    folio.folded = true;
                    folio.compare(&w.m, 7).expect("folded");
                    w.unfold(*head, order, Fill::Tails).expect("memory");
                    folio.folded = false;
                    folio.compare(&w.m, 7).expect("unfolded");
                } else {
                    // Somebody else's: any tail, at any moment, is that tail.
                    let page = 64 + (round * 7 + n as u64) % (order.pages() - 64);
                    let at = head.nth(page).address();
                    let expected = records::tail(0, 8);
                    assert_eq!(
                        records::read(&w.m, at),
                        expected,
                        "tail {page} of folio {n}"
                    );
                    assert!(
                        !mm::page::folio_try_get(&w.m, head.nth(page)),
                        "a tail has no count"
                    );
                    assert_eq!(head.nth(page).compound_head(&w.m), *head);
                }
            }
        }
    });
    for (n, (head, _)) in folios.iter().enumerate() {
        let mut folio = lock[n].lock().expect("no panic");
        folio.check(&w.m, 1);
        folio.write_mark(&w.m, 0);
        w.dissolve(*head, order);
    }
    w.check();
}

/// Sets a flag when dropped.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whole slots: tables come and go while others walk through them.
#[test]
fn whole_slots_fold_and_unfold_under_readers() {
    let w = world();
    let order = Order::of(15);
    let heads: Vec<Page> = (0..3)
        .map(|_| w.compound(0, order, true).expect("room"))
        .collect();
    let done = AtomicBool::new(false);
    on_all(&w, |cpu| {
        if let Some(head) = heads.get(cpu) {
            // Also when a step panics: the readers would never end.
            let _done = SetAtEnd(&done);
            for _ in 0..6 {
                w.fold(*head, order).expect("mine alone");
                w.unfold(*head, order, Fill::Tails).expect("memory");
            }
            return;
        }
        let mut n = 0usize;
        while n < 1000 || !done.load(Ordering::Relaxed) {
            n += 1;
            let head = heads[n % heads.len()];
            let page = 64 + n as u64 * 613 % (order.pages() - 64);
            let found = records::read(&w.m, head.nth(page).address());
            assert_eq!(found, records::tail(0, 15), "tail {page}");
        }
    });
    w.check();
    for head in heads {
        w.dissolve(head, order);
    }
    w.check();
}

/// Allocations and frees from all CPUs: no frame is ever handed out twice.
#[test]
fn no_frame_has_two_owners() {
    use mm::frames::{FrameSource, Placement};
    let w = world();
    let free = w.free_pages();
    on_all(&w, |cpu| {
        let placement = Placement::Prefer(NodeId::ZERO);
        let mut mine = Vec::new();
        for n in 0usize..400 {
            let order = Order::clamped(u32::try_from(n % 5).expect("below 5"));
            let block = w.mm.nodes.alloc(&w.m, order, placement).expect("room");
            let stamp = (n << 8 | cpu) as u64;
            w.m.fill_words(block.phys(), stamp, order.pages() * 512);
            mine.push((block, order, stamp));
            if n % 3 == 0 {
                let (block, order, stamp) = mine.swap_remove(n / 2 % mine.len());
                for word in [0, order.pages() * 512 - 1] {
                    assert_eq!(w.m.read_phys(block.phys().offset(word * 8)), stamp);
                }
                w.mm.nodes.free(&w.m, block, order);
            }
        }
        for (block, order, stamp) in mine {
            assert_eq!(w.m.read_phys(block.phys()), stamp);
            w.mm.nodes.free(&w.m, block, order);
        }
    });
    assert_eq!(w.free_pages(), free);
    w.check();
}
