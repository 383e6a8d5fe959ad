//! Folding and unfolding: alone, beside a neighbour, in a batch, with failures.

use std::sync::Mutex;

use mm::addr::{NodeId, Order, Pfn};
use mm::machine::FailPoint;
use mm::page::PageList;
use mm::vmemmap::{Fill, HvoError, is_optimized};
use testkit::schedule::{Done, Story, View, explore, small};
use testkit::{Injection, Sabotage, World};

use crate::story::{OneBlock, READS, UnderReaders, fold, unfold, view};

const fn honest(order: u8, split: bool) -> UnderReaders {
    UnderReaders {
        order,
        split,
        multi_hit: None,
        sabotage: Sabotage::None,
    }
}

#[test]
fn order_7_under_readers() {
    let name = "order_7_under_readers";
    println!("{}", explore(name, &honest(7, false), 600));
    println!("{}", explore(name, &honest(7, true), 600));
}

#[test]
fn order_9_under_readers() {
    let name = "order_9_under_readers";
    println!("{}", explore(name, &honest(9, false), 400));
    println!("{}", explore(name, &honest(9, true), 400));
}

/// Where two sizes of one address are a machine check, readers on every CPU meet none.
#[test]
fn order_9_where_sizes_never_change() {
    let story = UnderReaders {
        multi_hit: Some(false),
        ..honest(9, false)
    };
    println!(
        "{}",
        explore("order_9_where_sizes_never_change", &story, 400)
    );
}

/// A whole slot: its table comes and goes while others walk through it.
struct WholeSlot;

impl Story for WholeSlot {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> OneBlock {
        let w = World::builder().ram(0, 112, 256).cpus(self.cpus()).boot();
        OneBlock::begin(w, 15)
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        if cpu == 0 {
            s.fold_and_unfold(random);
            s.done.set();
        } else {
            // As many as the folding CPU takes steps to check the tails.
            s.done.until(100_000, || s.view.read(&s.w.m, random));
        }
    }

    fn end(&self, s: OneBlock) {
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}

#[test]
fn order_15_under_readers() {
    let name = "order_15_under_readers";
    println!("{}", explore(name, &WholeSlot, 60));
}

/// Two slots: one CPU folds and unfolds them, the second to the shared table and back, now
/// from a leaf, now from a table of its own, to which it may come back.
struct TwoSlots;

impl Story for TwoSlots {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> OneBlock {
        let w = World::builder().ram(0, 240, 512).cpus(self.cpus()).boot();
        let s = OneBlock::begin(w, 16);
        if random.bool() {
            fold(&s.w, &s.view);
            to_singles(&s);
        }
        s
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        if cpu > 0 {
            return s
                .done
                .until(200_000, || read_and_forget(&s.w, &s.view, random));
        }
        fold(&s.w, &s.view);
        assert_eq!(s.w.vmemmap().ledger().totals().shared_slots, 1);
        for _ in 0..8 {
            s.view.read(&s.w.m, random);
        }
        if random.bool() {
            to_singles(s);
        } else {
            unfold(&s.w, &s.view);
        }
        s.done.set();
    }

    fn end(&self, s: OneBlock) {
        let totals = s.w.vmemmap().ledger().totals();
        assert_eq!((totals.shared_tables, totals.shared_slots), (1, 0));
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}

/// Reads; now and then all translations are lost, or nobody would walk any more once all has
/// been read.
fn read_and_forget(w: &World, view: &View, random: &mut fastrand::Rng) {
    if random.u8(..) == 0 {
        w.m.evict_all();
    }
    view.read(&w.m, random);
}

/// Unfolds; no 2 MiB block is to be had.
fn to_singles(s: &OneBlock) {
    s.w.m.fail(FailPoint::PageAlloc, Injection::Kth(1));
    unfold(&s.w, &s.view);
    s.w.m.fail(FailPoint::PageAlloc, Injection::Never);
}

#[test]
fn order_16_under_readers() {
    let name = "order_16_under_readers";
    println!("{}", explore(name, &TwoSlots, 40));
}

/// Two blocks with a slot of tails each: one stays folded, so that its readers are always in
/// the shared table or in the copy that it gets of it; the other's slot leaves the table and
/// comes back.
struct OneTableForTwo;

impl Story for OneTableForTwo {
    type State = TwoBlocks;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> TwoBlocks {
        let w = World::builder().ram(0, 240, 768).cpus(self.cpus()).boot();
        let views = [view(&w, 16, 0x11), view(&w, 16, 0x22)];
        views.iter().for_each(|view| fold(&w, view));
        let done = Done::default();
        TwoBlocks { w, views, done }
    }

    fn act(&self, s: &TwoBlocks, cpu: usize, random: &mut fastrand::Rng) {
        if cpu > 0 {
            return s.done.until(200_000, || {
                read_and_forget(&s.w, &s.views[random.usize(..2)], random);
            });
        }
        unfold(&s.w, &s.views[0]);
        assert_eq!(s.w.vmemmap().ledger().totals().shared_slots, 1);
        s.views[1].read(&s.w.m, random);
        fold(&s.w, &s.views[0]);
        let (m, frames) = (&s.w.m, &s.w.mm.nodes);
        let head = s.views[1].head();
        let page = head.nth(40_000);
        let unshared = s.w.vmemmap().unshare_page(m, frames, head, page);
        assert_eq!(unshared, Ok(true));
        s.views[1].read(m, random);
        let shared = s.w.vmemmap().reshare_page(m, frames, head, page);
        assert_eq!(shared, Ok(true));
        s.done.set();
    }

    fn end(&self, s: TwoBlocks) {
        let totals = s.w.vmemmap().ledger().totals();
        // The copy stays.
        assert_eq!((totals.shared_tables, totals.shared_slots), (1, 1));
        s.w.check();
    }
}

#[test]
fn two_blocks_share_a_table_under_readers() {
    let name = "two_blocks_share_a_table_under_readers";
    println!("{}", explore(name, &OneTableForTwo, 20));
}

/// Two blocks in one 2 MiB leaf, each folded by its own CPU; a third reads both.
struct Neighbours;

struct TwoBlocks {
    w: World,
    views: [View; 2],
    done: Done,
}

impl Story for Neighbours {
    type State = TwoBlocks;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> TwoBlocks {
        let w = small(self.cpus());
        let views = [view(&w, 7, 0x11), view(&w, 7, 0x22)];
        TwoBlocks {
            w,
            views,
            done: Done::default(),
        }
    }

    fn act(&self, s: &TwoBlocks, cpu: usize, random: &mut fastrand::Rng) {
        match s.views.get(cpu) {
            Some(mine) => {
                fold(&s.w, mine);
                s.views[1 - cpu].read(&s.w.m, random);
                unfold(&s.w, mine);
                fold(&s.w, mine);
                s.done.set();
            }
            None => s.done.until(READS, || {
                s.views[random.usize(..2)].read(&s.w.m, random);
            }),
        }
    }

    fn end(&self, s: TwoBlocks) {
        let totals = s.w.vmemmap().ledger().totals();
        assert_eq!((totals.folded, totals.tables, totals.tails), (2, 1, 1));
        s.w.check();
    }
}

#[test]
fn neighbours_race_for_their_leaf() {
    let name = "neighbours_race_for_their_leaf";
    println!("{}", explore(name, &Neighbours, 800));
}

/// Three blocks with one flush, there and back.
struct Batch;

struct Blocks {
    w: World,
    views: Vec<View>,
    list: Mutex<PageList>,
    done: Done,
}

impl Story for Batch {
    type State = Blocks;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> Blocks {
        let w = small(self.cpus());
        let views: Vec<_> = (1..=3).map(|n| view(&w, 7, n)).collect();
        let mut list = PageList::new();
        for view in &views {
            list.push(&w.m, view.head());
        }
        Blocks {
            w,
            views,
            list: Mutex::new(list),
            done: Done::default(),
        }
    }

    fn act(&self, s: &Blocks, cpu: usize, random: &mut fastrand::Rng) {
        if cpu > 0 {
            return s.done.until(READS, || {
                s.views[random.usize(..s.views.len())].read(&s.w.m, random);
            });
        }
        let list = s.list.lock().expect("nobody else locks it");
        let (vmemmap, nodes, order) = (s.w.vmemmap(), &s.w.mm.nodes, Order::of(7));
        let flushes = vmemmap.ledger().totals().flushes;
        assert_eq!(vmemmap.optimize_folios(&s.w.m, nodes, &list, order), 3);
        let restored = vmemmap.restore_folios(&s.w.m, nodes, &list, order, Fill::Tails);
        assert_eq!(restored, 3);
        assert_eq!(vmemmap.ledger().totals().flushes - flushes, 2);
        s.done.set();
    }

    fn end(&self, s: Blocks) {
        let mut list = s.list.lock().expect("the work is done");
        while list.pop(&s.w.m).is_some() {}
        for view in &s.views {
            view.write_as_owner(&s.w.m);
        }
        s.w.check();
    }
}

#[test]
fn a_batch_under_readers() {
    let name = "a_batch_under_readers";
    println!("{}", explore(name, &Batch, 400));
}

/// A store fails half-way through a fold, or memory runs out in an unfold.
struct Failing;

impl Story for Failing {
    type State = OneBlock;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, random: &mut fastrand::Rng) -> OneBlock {
        let s = OneBlock::begin(small(self.cpus()), 9);
        if random.bool() {
            s.fold_and_unfold(random);
        }
        s
    }

    fn act(&self, s: &OneBlock, cpu: usize, random: &mut fastrand::Rng) {
        let (m, head, order) = (&s.w.m, s.view.head(), s.view.order());
        if cpu > 0 {
            return s.done.until(READS, || s.view.read(m, random));
        }
        for point in [FailPoint::VmemmapPte, FailPoint::VmemmapPmd] {
            m.fail(point, Injection::Kth(random.u64(1..=8)));
        }
        let result = s.w.fold(head, order);
        m.fail(FailPoint::VmemmapPte, Injection::Never);
        m.fail(FailPoint::VmemmapPmd, Injection::Never);
        match result {
            Err(error) => {
                assert_eq!(error, HvoError::Injected);
                assert!(!is_optimized(m, head), "the flag stays");
                fold(&s.w, &s.view);
            }
            Ok(()) => assert!(is_optimized(m, head)),
        }
        m.fail(FailPoint::PageAlloc, Injection::From(random.u64(1..=8)));
        let result = s.w.unfold(head, order, Fill::Tails);
        m.fail(FailPoint::PageAlloc, Injection::Never);
        if result.is_err() {
            assert_eq!(result, Err(HvoError::NoMemory));
            assert!(is_optimized(m, head), "it is folded still");
            unfold(&s.w, &s.view);
        }
        s.done.set();
    }

    fn end(&self, s: OneBlock) {
        s.view.write_as_owner(&s.w.m);
        s.w.check();
    }
}

#[test]
fn failures_under_readers() {
    let name = "failures_under_readers";
    println!("{}", explore(name, &Failing, 600));
}

/// Every CPU makes the same shared tail, and the same shared table.
struct OneTail;

struct Tails {
    w: World,
    free: u64,
    made: Mutex<Vec<[Pfn; 4]>>,
}

impl Story for OneTail {
    type State = Tails;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> Tails {
        let w = small(self.cpus());
        let free = w.free_pages();
        let made = Mutex::default();
        Tails { w, free, made }
    }

    fn act(&self, s: &Tails, _: usize, _: &mut fastrand::Rng) {
        let (vmemmap, nodes) = (s.w.vmemmap(), &s.w.mm.nodes);
        let [a, b] = [7, 18].map(|order| {
            let tail = vmemmap.shared_tail(&s.w.m, nodes, NodeId::ZERO, Order::of(order));
            tail.expect("memory")
        });
        let [c, d] = [17, 18].map(|order| {
            let (node, order) = (NodeId::ZERO, Order::of(order));
            let tail = vmemmap.shared_tail(&s.w.m, nodes, node, order);
            tail.expect("memory");
            let table = vmemmap.shared_table(&s.w.m, nodes, node, order);
            table.expect("memory")
        });
        let made = [a, b, c, d];
        s.made.lock().expect("no step is made with it").push(made);
    }

    fn end(&self, s: Tails) {
        let made = s.made.lock().expect("the work is done");
        assert!(made.iter().all(|tails| *tails == made[0]), "{made:?}");
        assert_eq!(s.free - s.w.free_pages(), 5, "the losers leak");
        let totals = s.w.vmemmap().ledger().totals();
        let shared = (totals.tails, totals.shared_tables, totals.tables);
        assert_eq!(shared, (3, 2, 2));
        s.w.check();
    }
}

#[test]
fn one_cpu_makes_the_shared_tail() {
    let name = "one_cpu_makes_the_shared_tail";
    println!("{}", explore(name, &OneTail, 1500));
}
