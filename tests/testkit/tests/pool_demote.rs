//! Both sizes of huge pages at once: pools are resized, demoted and promoted while some of
//! the pages are mapped and promised, and while allocations and stores fail. The model of
//! each size says what its counters may be; which blocks can be promoted is read from
//! the struct pages, not from the pools.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use mm::addr::{NodeId, Order, Pfn};
use mm::hugetlb::{FaultError, Hstate, MapFlags, Mapping, Promise, Slot};
use mm::machine::{FailPoint, Memory as _, Processors as _};
use mm::page::{self, PageType};
use proptest::prelude::*;
use testkit::pool_model::{Counters, Model, NODES, node_id};
use testkit::{EmulatedMachine, Injection, World};

/// Smaller pages in a larger one.
const PARTS: u64 = 512;
/// Below this many free pages a node may refuse what the model expects of it.
const TIGHT: u64 = 20_000;
/// Places of the sizes in arrays.
const SMALL: usize = 0;
const LARGE: usize = 1;

/// One step. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    SetNr {
        size: usize,
        node: Option<u8>,
        count: u64,
    },
    Demote {
        node: Option<u8>,
        count: u64,
    },
    Promote {
        node: Option<u8>,
        count: u64,
    },
    SetOptimize(bool),
    Map {
        size: usize,
        promise: Promise,
        places: usize,
    },
    Touch {
        cpu: usize,
        map: usize,
        place: usize,
    },
    Unmap(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || proptest::option::of(0u8..2);
    let small = prop_oneof![2 => 0u64..6, 1 => 500u64..1100];
    let promise = prop_oneof![Just(Promise::Reserve), Just(Promise::NoReserve)];
    prop_oneof![
        2 => (node(), small).prop_map(|(node, count)| Step::SetNr { size: SMALL, node, count }),
        3 => (node(), 0u64..4).prop_map(|(node, count)| Step::SetNr { size: LARGE, node, count }),
        5 => (node(), 0u64..3).prop_map(|(node, count)| Step::Demote { node, count }),
        5 => (node(), 0u64..3).prop_map(|(node, count)| Step::Promote { node, count }),
        1 => any::<bool>().prop_map(Step::SetOptimize),
        3 => (0usize..2, promise, 1usize..4)
            .prop_map(|(size, promise, places)| Step::Map { size, promise, places }),
        5 => (0usize..2, any::<usize>(), any::<usize>())
            .prop_map(|(cpu, map, place)| Step::Touch { cpu, map, place }),
        2 => any::<usize>().prop_map(Step::Unmap),
    ]
}

/// How every history begins: with both sizes on both nodes, and something in use.
const FIRST: [Step; 5] = [
    Step::SetNr {
        size: LARGE,
        node: None,
        count: 4,
    },
    Step::Demote {
        node: None,
        count: 3,
    },
    Step::Map {
        size: SMALL,
        promise: Promise::NoReserve,
        places: 3,
    },
    Step::Touch {
        cpu: 0,
        map: 0,
        place: 0,
    },
    Step::Touch {
        cpu: 1,
        map: 0,
        place: 1,
    },
];

type Trap = (FailPoint, u64);

fn trap() -> impl Strategy<Value = Trap> {
    let point = prop_oneof![
        Just(FailPoint::PageAlloc),
        Just(FailPoint::VmemmapPte),
        Just(FailPoint::VmemmapPmd),
    ];
    (point, prop_oneof![1u64..8, 1u64..5000])
}

/// Two blocks of 1 GiB on each node, and something beside them.
fn world() -> World {
    let builder = World::builder().ram(0, 0, 3328).ram(1, 3328, 6400);
    builder.boot()
}

/// Free pages and the huge pages in the pools, and what their memmap takes.
fn frames(w: &World) -> u64 {
    let totals = w.vmemmap().ledger().totals();
    let pages = |h: &Hstate| h.total(&w.m).nr * h.order().pages();
    let huge: u64 = w.mm.hugetlb.hstates().map(pages).sum();
    w.free_pages() + huge + totals.boot_pages + totals.pages + totals.tables + totals.tails
}

struct Owned<'a> {
    size: usize,
    map: Mapping<'a, EmulatedMachine, Vec<Slot>>,
    places: Vec<Slot>,
}

struct Run<'a> {
    w: &'a World,
    sizes: [&'a Hstate; 2],
    models: [Model; 2],
    maps: Vec<Owned<'a>>,
    /// What was written to each page in use.
    stamps: BTreeMap<Pfn, u64>,
    next_stamp: u64,
    frames: u64,
}

impl<'a> Run<'a> {
    fn new(w: &'a World) -> Self {
        let hugetlb = &w.mm.hugetlb;
        hugetlb.set_optimize(true);
        let size = |order| hugetlb.hstate(order).expect("a machine with both sizes");
        let model = Model {
            may: BTreeSet::from([Counters::default()]),
            overcommit: 0,
            loose: false,
        };
        Self {
            w,
            sizes: [size(Order::PMD), size(Order::PUD)],
            models: [model.clone(), model],
            maps: Vec::new(),
            stamps: BTreeMap::new(),
            next_stamp: 1,
            frames: frames(w),
        }
    }

    fn read(&self) -> [Counters; 2] {
        self.sizes.map(|h| Counters::read(&self.w.m, h))
    }

    fn is_tight(&self) -> bool {
        let nodes = &self.w.mm.nodes;
        let free = |node| nodes.get(node).free_pages(&self.w.m);
        nodes.online().any(|node| free(node) < TIGHT)
    }

    fn step(&mut self, step: &Step, trap: Option<Trap>) {
        let before = self.read();
        let mut sure = !self.is_tight();
        if let Some((point, nth)) = trap {
            self.w.m.fail(point, Injection::Kth(nth));
        }
        let said = self.take_step(step);
        if let Some((point, _)) = trap {
            sure &= self.w.m.hits(point).1 == 0;
            self.w.m.fail(point, Injection::Never);
        }
        sure &= !self.is_tight();
        let now = self.read();
        let bytes = |read: [Counters; 2], node: usize| {
            read[SMALL].persistent_on(node) + PARTS * read[LARGE].persistent_on(node)
        };
        for node in 0..NODES {
            let resized = match *step {
                Step::SetNr { node: only, .. } => only.is_none_or(|n| usize::from(n) == node),
                _ => false,
            };
            assert!(
                resized || bytes(before, node) == bytes(now, node),
                "{step:?} changed what stays on node {node}: {before:?}, now {now:?}"
            );
        }
        for (model, now) in self.models.iter_mut().zip(now) {
            if sure {
                let may = &model.may;
                assert!(may.contains(&now), "{step:?}: {now:?} is none of {may:#?}");
                assert!(said, "{step:?}: the answer is not what the model expects");
            } else {
                model.loose = true;
            }
            model.loose &= now.surplus() > 0;
            model.may = BTreeSet::from([now]);
        }
        self.w.m.take_log();
        self.check();
    }

    /// Whether the answer was what the model says.
    fn take_step(&mut self, step: &Step) -> bool {
        let w = self.w;
        let (m, hugetlb, backing) = (&w.m, &w.mm.hugetlb, w.mm.backing());
        match *step {
            Step::SetNr { size, node, count } => {
                let h = self.sizes[size];
                let model = &mut self.models[size];
                model.set_nr(node.map(usize::from), count);
                let is = hugetlb.set_nr(m, backing, h, node.map(NodeId::of), count);
                if size == LARGE && is < count {
                    // Where 1 GiB is left in one piece is the buddy allocator's affair.
                    model.may.insert(Counters::read(m, h));
                    return true;
                }
                is == count
            }
            Step::Demote { node, count } => {
                let before = self.read()[LARGE].nr;
                self.demote(node.map(usize::from), count);
                let large = self.sizes[LARGE];
                let done = hugetlb.demote(m, backing, large, node.map(NodeId::of), count);
                let now = self.read()[LARGE].nr;
                let gone: u64 = before.iter().sum::<u64>() - now.iter().sum::<u64>();
                assert_eq!(done, gone, "demote miscounts");
                true
            }
            Step::Promote { node, count } => {
                let expected = self.promote(node.map(usize::from), count);
                let large = self.sizes[LARGE];
                hugetlb.promote(m, backing, large, node.map(NodeId::of), count) == expected
            }
            Step::SetOptimize(on) => {
                hugetlb.set_optimize(on);
                true
            }
            Step::Map {
                size,
                promise,
                places,
            } => self.map(size, promise, places),
            Step::Touch { cpu, map, place } => self.touch(cpu, map, place),
            Step::Unmap(map) => {
                let len = self.maps.len().max(1);
                if map % len < self.maps.len() {
                    let owned = self.maps.swap_remove(map % len);
                    self.unmap(&owned);
                }
                true
            }
        }
    }

    /// What demotion may make of the counters: nodes in turn from either one, each
    /// as long as it has a free persistent page that nobody was promised.
    fn demote(&mut self, asked: Option<usize>, count: u64) {
        let [small, large] = self.read();
        let taken = |read: &Counters| [0, 1].map(|node| large.nr[node] - read.nr[node]);
        let model = &mut self.models[LARGE];
        model.turns(asked, |_| count, |c, node| c.remove(node, false));
        let after = model.may.iter().map(|read| {
            let mut now = small;
            for (node, taken) in taken(read).into_iter().enumerate() {
                now.add(node, taken * PARTS);
            }
            now
        });
        self.models[SMALL].may = after.collect();
    }

    /// What promotion makes of the counters: node after node, as long as a block of it
    /// consists of free pages, and as many as that are persistent and promised to nobody.
    fn promote(&mut self, asked: Option<usize>, count: u64) -> u64 {
        let [mut small, mut large] = self.read();
        let mut blocks = [0, 1].map(|node| self.free_blocks(node));
        let mut done = 0;
        while done < count {
            let can = |node: &usize| {
                asked.is_none_or(|asked| asked == *node)
                    && blocks[*node] > 0
                    && small.persistent_on(*node) >= PARTS
                    && small.available() >= PARTS
            };
            let Some(node) = (0..NODES).find(can) else {
                break;
            };
            blocks[node] -= 1;
            small.nr[node] -= PARTS;
            small.free[node] -= PARTS;
            large.add(node, 1);
            done += 1;
        }
        self.models[SMALL].may = BTreeSet::from([small]);
        self.models[LARGE].may = BTreeSet::from([large]);
        done
    }

    /// Naturally aligned blocks of 1 GiB on `node` that are nothing but free 2 MiB pages.
    fn free_blocks(&self, node: usize) -> u64 {
        let (m, memmap) = (&self.w.m, self.w.memmap());
        let is_free = |pfn: Pfn| {
            let head = memmap.page(pfn);
            head.page_type(m) == PageType::HUGETLB
                && page::folio_order_seen(m, head) == Some(Order::PMD)
                && head.ref_count(m) == 0
        };
        let mut count = 0;
        for ram in self.w.ram().filter(|ram| ram.node == node_id(node)) {
            let mut at = Pfn::new(
                ram.range
                    .start
                    .as_u64()
                    .next_multiple_of(Order::PUD.pages()),
            );
            while at.offset(Order::PUD.pages()) <= ram.range.end {
                let mut parts = (0..PARTS).map(|n| at.offset(n * Order::PMD.pages()));
                count += u64::from(parts.all(is_free));
                at = at.offset(Order::PUD.pages());
            }
        }
        count
    }

    fn map(&mut self, size: usize, promise: Promise, places: usize) -> bool {
        let (w, h) = (self.w, self.sizes[size]);
        let count = places as u64;
        let (mut flags, mut slot, mut expected) = (MapFlags::SHARED, Slot::Reserved, true);
        if promise == Promise::NoReserve {
            (flags, slot) = (flags.no_reserve(), Slot::Empty);
        } else {
            expected = self.read()[size].available() >= count;
            if expected {
                self.models[size].each(|c| c.resv += count);
            }
        }
        let slots = vec![Slot::Empty; places];
        let made = w.mm.hugetlb.map_own(&w.m, w.mm.backing(), h, flags, slots);
        let is_ok = made.is_ok();
        if let Ok(map) = made {
            let places = vec![slot; places];
            self.maps.push(Owned { size, map, places });
        }
        is_ok == expected
    }

    fn touch(&mut self, cpu: usize, map: usize, place: usize) -> bool {
        let w = self.w;
        let len = self.maps.len().max(1);
        let Some(owned) = self.maps.get_mut(map % len) else {
            return true;
        };
        let place = place % owned.places.len();
        let before = Counters::read(&w.m, self.sizes[owned.size]);
        let old = owned.places[place];
        let expected = match old {
            Slot::Present(_) => None,
            Slot::Empty if before.available() == 0 => None,
            _ => [cpu, 1 - cpu].into_iter().find(|n| before.free[*n] > 0),
        };
        if let Some(node) = expected {
            let kept = u64::from(old == Slot::Reserved);
            self.models[owned.size].each(|c| {
                c.free[node] -= 1;
                c.resv -= kept;
            });
        }
        let touched = w.m.on_cpu(cpu, || owned.map.touch(place));
        let Ok(head) = touched else {
            assert_eq!(touched, Err(FaultError::NoFolio));
            assert_ne!(old, Slot::Reserved, "a promise was broken");
            return expected.is_none();
        };
        owned.places[place] = Slot::Present(head);
        if let Slot::Present(old) = old {
            assert_eq!(head, old, "a page moved");
            return true;
        }
        let pfn = w.memmap().pfn(head);
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        let other = self.stamps.insert(pfn, stamp);
        assert_eq!(other, None, "{head:?} has two owners");
        w.m.fill_words(last_word(pfn, self.sizes[owned.size]), stamp, 1);
        expected == Some(usize::from(head.node(&w.m).get()))
    }

    /// The model of what dropping `owned` does.
    fn unmap(&mut self, owned: &Owned<'_>) {
        let model = &mut self.models[owned.size];
        let mut reserved = 0;
        for slot in &owned.places {
            match *slot {
                Slot::Present(head) => {
                    self.stamps.remove(&self.w.memmap().pfn(head));
                    model.put(usize::from(head.node(&self.w.m).get()));
                }
                Slot::Reserved => reserved += 1,
                Slot::Empty => {}
            }
        }
        if reserved > 0 {
            model.unreserve(reserved);
        }
    }

    /// What holds whatever failed.
    fn check(&self) {
        let m = &self.w.m;
        for ((size, h), now) in self.sizes.iter().enumerate().zip(self.read()) {
            let total = h.total(m);
            assert_eq!(total.nr, now.nr.iter().sum::<u64>(), "{now:?}");
            assert_eq!(total.free, now.free.iter().sum::<u64>(), "{now:?}");
            assert_eq!(total.surplus, now.surplus(), "{now:?}");
            assert!(now.resv <= total.free, "promises without pages: {now:?}");
            let own = || self.maps.iter().filter(|owned| owned.size == size);
            let promised: u64 = own().map(|owned| owned.map.reserved()).sum();
            assert_eq!(now.resv, promised, "promises that nobody has, or too few");
            let mut used = [0; NODES];
            for slot in own().flat_map(|owned| &owned.places) {
                let Slot::Present(head) = *slot else { continue };
                let pfn = self.w.memmap().pfn(head);
                used[usize::from(head.node(m).get())] += 1;
                assert_eq!(head.ref_count(m), 1, "{head:?}");
                assert_eq!(page::folio_order_seen(m, head), Some(h.order()), "{head:?}");
                let word = m.read_phys(last_word(pfn, h));
                assert_eq!(
                    Some(&word),
                    self.stamps.get(&pfn),
                    "{head:?} was written to"
                );
            }
            for (node, used) in used.into_iter().enumerate() {
                assert_eq!(now.nr[node] - now.free[node], used, "{now:?}");
            }
        }
        let locks = m.held_locks().load(Ordering::Relaxed);
        assert_eq!(locks, 0, "a lock is held still");
        assert_eq!(frames(self.w), self.frames, "frames got lost, or too many");
        self.w.check();
    }

    /// Gives everything back.
    fn end(mut self) {
        while !self.maps.is_empty() {
            self.step(&Step::Unmap(0), None);
        }
        let (m, hugetlb, backing) = (&self.w.m, &self.w.mm.hugetlb, self.w.mm.backing());
        for h in self.sizes {
            hugetlb.shrink(m, backing, h, None, u64::MAX);
        }
        assert_eq!(self.read(), [Counters::default(); 2]);
        self.check();
        let totals = self.w.vmemmap().ledger().totals();
        assert_eq!((totals.folded, totals.saved), (0, 0));
    }
}

/// The last word of a page: of the last of its parts, if it has any.
fn last_word(pfn: Pfn, h: &Hstate) -> mm::addr::PhysAddr {
    pfn.phys().offset(h.order().bytes() - 8)
}

proptest! {
    #![proptest_config(testkit::same_in_every_run(12))]

    #[test]
    fn sizes_turn_into_each_other(
        steps in proptest::collection::vec((step(), proptest::option::weighted(0.2, trap())), 1..40),
    ) {
        let w = world();
        let mut run = Run::new(&w);
        for step in FIRST {
            run.step(&step, None);
        }
        for (step, trap) in &steps {
            run.step(step, *trap);
        }
        run.end();
    }
}

/// Looking for a block to promote, no CPU keeps interrupts off for as long as the free list is:
/// a block is looked at, and then the lock is given back.
#[test]
fn a_search_is_no_longer_for_a_longer_list() {
    let w = World::builder().ram(0, 0, 5120).boot();
    let (m, mm) = (&w.m, &w.mm);
    let [small, large] = [Order::PMD, Order::PUD].map(|order| mm.hugetlb.hstate(order).unwrap());
    // The first part of every large block is somebody's: none can be promoted.
    let env = w.env();
    let mut held = env.hold_nothing();
    while let Ok(block) = env.block(Order::PMD) {
        held.push((block, Order::PMD));
    }
    let (kept, free): (Vec<_>, Vec<_>) = held
        .drain(..)
        .partition(|(block, _)| block.is_aligned(Order::PUD));
    free.iter()
        .for_each(|(block, order)| env.free(*block, *order));
    held.extend(kept);
    let grown = mm.hugetlb.grow(m, mm.backing(), small, None, 4096);
    assert!(grown > 1500, "{grown}");
    m.take_most_masked();
    assert_eq!(mm.hugetlb.promote(m, mm.backing(), large, None, 1), 0);
    let most = m.take_most_masked();
    assert!(
        most < grown / 10,
        "{most} steps with interrupts off, {grown} folios"
    );
}
