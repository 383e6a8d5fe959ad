//! Random use of huge page pools: they are resized, mapped from, forked, taken from
//! and put back to, while allocations and stores fail. A plain model says after each
//! step what the counters may be; what is in use, promised and owned is counted anew
//! from what the owners hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use mm::addr::{NodeId, Order, Pfn};
use mm::frames::Placement;
use mm::hugetlb::{Event, FaultError, Hstate, MapFlags, Mapping, Promise, Sharing, Slot};
use mm::machine::{FailPoint, Memory as _, Processors as _};
use mm::page::{Page, PageType};
use proptest::prelude::*;
use testkit::pool_model::{Counters, Model, NODES};
use testkit::{EmulatedMachine, Injection, World};

/// Below this many free pages a node may refuse what the model expects of it.
const TIGHT: u64 = 20_000;

/// One step. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    SetNr {
        node: Option<u8>,
        count: u64,
    },
    SetOvercommit(u64),
    SetOptimize(bool),
    Map {
        cpu: usize,
        flags: MapFlags,
        places: usize,
    },
    Touch {
        cpu: usize,
        map: usize,
        place: usize,
    },
    Write {
        cpu: usize,
        map: usize,
        place: usize,
    },
    Discard {
        map: usize,
        place: usize,
    },
    Fork(usize),
    Drop(usize),
    Take {
        node: Option<u8>,
    },
    /// By the size alone, which gives no surplus back, or by all of huge pages.
    Put {
        which: usize,
        lazily: bool,
    },
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || proptest::option::of(0u8..2);
    let count = prop_oneof![12 => 0u64..24, 1 => Just(400)];
    let flags = (any::<bool>(), any::<bool>(), node()).prop_map(|(shared, promised, bound)| {
        let flags = if shared {
            MapFlags::SHARED
        } else {
            MapFlags::PRIVATE
        };
        let flags = if promised { flags } else { flags.no_reserve() };
        match bound {
            Some(node) => flags.bound_to(Placement::Only(NodeId::of(node))),
            None => flags,
        }
    });
    let place = || (0usize..2, any::<usize>(), 0usize..16);
    prop_oneof![
        5 => (node(), count).prop_map(|(node, count)| Step::SetNr { node, count }),
        2 => (0u64..12).prop_map(Step::SetOvercommit),
        1 => any::<bool>().prop_map(Step::SetOptimize),
        5 => (0usize..2, flags, 0usize..7)
            .prop_map(|(cpu, flags, places)| Step::Map { cpu, flags, places }),
        6 => place().prop_map(|(cpu, map, place)| Step::Touch { cpu, map, place }),
        9 => place().prop_map(|(cpu, map, place)| Step::Write { cpu, map, place }),
        3 => place().prop_map(|(_, map, place)| Step::Discard { map, place }),
        3 => any::<usize>().prop_map(Step::Fork),
        3 => any::<usize>().prop_map(Step::Drop),
        2 => node().prop_map(|node| Step::Take { node }),
        2 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, lazily)| Step::Put { which, lazily }),
        1 => Just(Step::Retry),
    ]
}

type Trap = (FailPoint, Injection);

fn trap() -> impl Strategy<Value = Trap> {
    let point = prop_oneof![
        3 => Just(FailPoint::PageAlloc),
        1 => Just(FailPoint::VmemmapPte),
        1 => Just(FailPoint::VmemmapPmd),
    ];
    (point, 1u64..8, any::<bool>()).prop_map(|(point, nth, rest)| {
        let plan = if rest {
            Injection::From(nth)
        } else {
            Injection::Kth(nth)
        };
        (point, plan)
    })
}

/// Mostly a place that there is; 0 is the one behind the last.
fn place_in(len: usize, which: usize) -> usize {
    match which {
        0 => len,
        _ => (which - 1) % len.max(1),
    }
}

fn world() -> World {
    World::builder().ram(0, 1, 256).ram(1, 256, 512).boot()
}

fn pmd(w: &World) -> &Hstate {
    w.mm.hugetlb
        .hstate(Order::PMD)
        .expect("every CPU has 2 MiB pages")
}

/// Free pages and the huge pages in the pools, and what their memmap takes.
fn frames(w: &World) -> u64 {
    let totals = w.vmemmap().ledger().totals();
    let huge: u64 =
        w.mm.hugetlb
            .hstates()
            .map(|h| h.total(&w.m).nr * h.order().pages())
            .sum();
    w.free_pages() + huge + totals.boot_pages + totals.pages + totals.tables + totals.tails
}

struct Owned<'a> {
    map: Mapping<'a, EmulatedMachine>,
    flags: MapFlags,
    places: Vec<Slot>,
}

struct Run<'a> {
    w: &'a World,
    h: &'a Hstate,
    model: Model,
    maps: Vec<Owned<'a>>,
    taken: Vec<Page>,
    /// What was written last to each folio in use.
    stamps: BTreeMap<Pfn, u64>,
    next_stamp: u64,
    frames: u64,
    /// Mappings that were not made, touches that found nothing.
    refused: [u64; 2],
}

impl<'a> Run<'a> {
    fn new(w: &'a World) -> Self {
        let model = Model {
            may: BTreeSet::from([Counters::default()]),
            overcommit: 0,
            loose: false,
        };
        let run = Self {
            w,
            h: pmd(w),
            model,
            maps: Vec::new(),
            taken: Vec::new(),
            stamps: BTreeMap::new(),
            next_stamp: 1,
            frames: frames(w),
            refused: [0; 2],
        };
        run.check();
        run
    }

    fn is_tight(&self) -> bool {
        let nodes = &self.w.mm.nodes;
        nodes
            .online()
            .any(|node| nodes.get(node).free_pages(&self.w.m) < TIGHT)
    }

    fn node_of(&self, head: Page) -> usize {
        usize::from(head.node(&self.w.m).get())
    }

    fn pfn(&self, head: Page) -> Pfn {
        self.w.memmap().pfn(head)
    }

    fn step(&mut self, step: &Step, trap: Option<&Trap>) {
        let before = Counters::read(&self.w.m, self.h);
        let mut sure = !self.is_tight();
        if let Some((point, plan)) = trap {
            self.w.m.fail(*point, plan.clone());
        }
        let said = self.take_step(step);
        if let Some((point, _)) = trap {
            sure &= self.w.m.hits(*point).1 == 0;
            self.w.m.fail(*point, Injection::Never);
        }
        sure &= !self.is_tight();
        let now = Counters::read(&self.w.m, self.h);
        for node in 0..NODES {
            let resized = match *step {
                Step::SetNr { node: only, .. } => only.is_none_or(|n| usize::from(n) == node),
                _ => false,
            };
            assert!(
                resized || now.persistent_on(node) == before.persistent_on(node),
                "what stays on node {node} changed: {before:?}, now {now:?}"
            );
        }
        if sure {
            let may = &self.model.may;
            assert!(
                may.contains(&now),
                "{now:?} is none of {may:#?}, was {before:?}"
            );
            assert!(said, "the answer is not what the model expects");
        } else {
            self.model.loose = true;
        }
        self.model.loose &= now.surplus() > 0;
        self.model.may = BTreeSet::from([now]);
        self.w.m.take_log();
        self.check();
    }

    /// Whether the answer was what the model says.
    fn take_step(&mut self, step: &Step) -> bool {
        let (w, h) = (self.w, self.h);
        let (m, hugetlb, backing) = (&w.m, &w.mm.hugetlb, w.mm.backing());
        match *step {
            Step::SetNr { node, count } => {
                self.model.set_nr(node.map(usize::from), count);
                let is = hugetlb.set_nr(m, backing, h, node.map(NodeId::of), count);
                let now = Counters::read(m, h);
                let found = node.map_or(now.persistent(), |n| now.persistent_on(n.into()));
                assert_eq!(is, found, "set_nr miscounts");
                is == count
            }
            Step::SetOvercommit(most) => {
                h.set_overcommit(m, most);
                self.model.overcommit = most;
                h.overcommit(m) == most
            }
            Step::SetOptimize(on) => {
                hugetlb.set_optimize(on);
                true
            }
            Step::Map { cpu, flags, places } => self.map(cpu, flags, places),
            Step::Touch { cpu, map, place } => self.touch(cpu, map, place, false),
            Step::Write { cpu, map, place } => self.touch(cpu, map, place, true),
            Step::Discard { map, place } => self.discard(map, place),
            Step::Fork(map) => {
                let len = self.maps.len().max(1);
                let Some(parent) = self.maps.get(map % len) else {
                    return true;
                };
                let slots = vec![Slot::Empty; parent.places.len()].leak();
                let present = |slot: &Slot| match *slot {
                    Slot::Present(head) => Slot::Present(head),
                    _ => Slot::Empty,
                };
                let child = Owned {
                    map: parent.map.fork(slots),
                    flags: parent.flags.no_reserve(),
                    places: parent.places.iter().map(present).collect(),
                };
                self.maps.push(child);
                true
            }
            Step::Drop(map) => {
                let len = self.maps.len().max(1);
                if map % len < self.maps.len() {
                    let owned = self.maps.swap_remove(map % len);
                    let reserved = self.let_go(&owned.places);
                    if reserved > 0 {
                        self.model.unreserve(reserved);
                    }
                }
                true
            }
            Step::Take { node } => self.take(node),
            Step::Put { which, lazily } => {
                let len = self.taken.len().max(1);
                if which % len >= self.taken.len() {
                    return true;
                }
                let head = self.taken.swap_remove(which % len);
                let node = self.node_of(head);
                self.stamps.remove(&self.pfn(head));
                if lazily {
                    self.model.each(|c| c.free[node] += 1);
                    self.model.loose = true;
                    h.put(m, head);
                } else {
                    self.model.put(node);
                    hugetlb.put(m, backing, h, head);
                }
                true
            }
            Step::Retry => {
                self.model.retry();
                hugetlb.retry_surplus(m, backing, h);
                let once = Counters::read(m, h);
                // What can go went at once.
                hugetlb.retry_surplus(m, backing, h) == 0 && Counters::read(m, h) == once
            }
        }
    }

    /// The near node and the only one, if there is but one.
    fn placement(flags: MapFlags, cpu: usize) -> (usize, bool) {
        match flags.bound {
            Some(placement) => (placement.node().index(), true),
            None => (cpu, false),
        }
    }

    fn map(&mut self, cpu: usize, flags: MapFlags, places: usize) -> bool {
        let w = self.w;
        let (near, only) = Self::placement(flags, cpu);
        let count = places as u64;
        let mut expected = true;
        let mut slot = Slot::Empty;
        if flags.promise == Promise::Reserve {
            slot = Slot::Reserved;
            let before = *self.model.may.first().expect("one state before a step");
            let mut missing = count.saturating_sub(before.available());
            if only {
                missing = missing.max(count.saturating_sub(before.free[near]));
            }
            let room = self.model.overcommit.saturating_sub(before.surplus());
            expected = missing <= room;
            if expected {
                self.model.each(|c| {
                    c.add(near, missing);
                    c.surplus[near] += missing;
                    c.resv += count;
                });
            }
        }
        let slots = vec![Slot::Empty; places].leak();
        let made = w.m.on_cpu(cpu, || {
            w.mm.hugetlb.map(&w.m, w.mm.backing(), self.h, flags, slots)
        });
        let is_ok = made.is_ok();
        self.refused[0] += u64::from(!is_ok);
        if let Ok(map) = made {
            let places = vec![slot; places];
            self.maps.push(Owned { map, flags, places });
        }
        is_ok == expected
    }

    /// A folio for somebody who was promised none: from where, or none.
    fn take_or_make(model: &mut Model, near: usize, only: bool) -> Option<usize> {
        let before = *model.may.first().expect("one state before a step");
        let mut row = vec![near];
        row.extend((!only).then_some(1 - near));
        if before.available() > 0
            && let Some(node) = row.into_iter().find(|node| before.free[*node] > 0)
        {
            model.each(|c| c.free[node] -= 1);
            return Some(node);
        }
        if before.surplus() >= model.overcommit {
            return None;
        }
        model.each(|c| {
            c.nr[near] += 1;
            c.surplus[near] += 1;
        });
        Some(near)
    }

    fn touch(&mut self, cpu: usize, map: usize, place: usize, write: bool) -> bool {
        let w = self.w;
        let len = self.maps.len().max(1);
        let Some(owned) = self.maps.get_mut(map % len) else {
            return true;
        };
        let (near, only) = Self::placement(owned.flags, cpu);
        let place = place_in(owned.places.len(), place);
        let Some(old) = owned.places.get(place).copied() else {
            let result = w.m.on_cpu(cpu, || owned.map.touch(place));
            assert_eq!(result, Err(FaultError::OutOfRange(place)));
            return true;
        };
        // First as a reader.
        let before = *self.model.may.first().expect("one state before a step");
        let expected = match old {
            Slot::Present(head) => Some(usize::from(head.node(&w.m).get())),
            Slot::Empty => Self::take_or_make(&mut self.model, near, only),
            Slot::Reserved => {
                let other = (!only).then_some(1 - near);
                let from = [Some(near), other].into_iter().flatten();
                let node = from.into_iter().find(|node| before.free[*node] > 0);
                if let Some(node) = node {
                    self.model.each(|c| {
                        c.free[node] -= 1;
                        c.resv -= 1;
                    });
                }
                node
            }
        };
        let read = w.m.on_cpu(cpu, || owned.map.touch(place));
        let Ok(head) = read else {
            assert_eq!(read, Err(FaultError::NoFolio));
            self.refused[1] += 1;
            let promised = old == Slot::Reserved && !only;
            assert!(!promised, "a promise was broken");
            return expected.is_none();
        };
        let node = usize::from(head.node(&w.m).get());
        assert!(!only || node == near, "a folio of another node");
        let said = expected == Some(node);
        owned.places[place] = Slot::Present(head);
        if let Slot::Present(old) = old {
            assert_eq!(head, old, "a folio moved");
        } else {
            self.stamp(head, None);
        }
        if !said || !write {
            return said;
        }
        self.write(cpu, map % len, place, head)
    }

    /// Writes to a place where `old` is.
    fn write(&mut self, cpu: usize, map: usize, place: usize, old: Page) -> bool {
        let w = self.w;
        let shared = self.users(old) > 1;
        let owned = &mut self.maps[map];
        let (near, only) = Self::placement(owned.flags, cpu);
        let copies = shared && owned.flags.sharing == Sharing::Private;
        let expected = if copies {
            Self::take_or_make(&mut self.model, near, only)
        } else {
            Some(usize::from(old.node(&w.m).get()))
        };
        let written = w.m.on_cpu(cpu, || owned.map.write(place));
        let Ok(head) = written else {
            assert_eq!(written, Err(FaultError::NoFolio));
            self.refused[1] += 1;
            assert!(copies, "a write that needs no folio fails");
            return expected.is_none();
        };
        assert_eq!(head != old, copies, "who shares gets a copy, nobody else");
        owned.places[place] = Slot::Present(head);
        let content = self.stamps[&self.pfn(old)];
        self.stamp(head, Some((copies, content)));
        expected == Some(usize::from(head.node(&w.m).get()))
    }

    /// Writes something new into a folio: one that nobody had, a copy of another, or
    /// the one there was.
    fn stamp(&mut self, head: Page, was: Option<(bool, u64)>) {
        let pfn = self.w.memmap().pfn(head);
        let is_new = was.is_none_or(|(copy, _)| copy);
        assert_eq!(
            self.stamps.contains_key(&pfn),
            !is_new,
            "{head:?} has two owners"
        );
        let last = pfn.phys().offset(Order::PMD.bytes() - 8);
        if let Some((_, content)) = was {
            assert_eq!(self.w.m.read_phys(last), content, "content of {head:?}");
        }
        self.w.m.fill_words(last, self.next_stamp, 1);
        self.stamps.insert(pfn, self.next_stamp);
        self.next_stamp += 1;
    }

    fn discard(&mut self, map: usize, place: usize) -> bool {
        let len = self.maps.len().max(1);
        let Some(owned) = self.maps.get_mut(map % len) else {
            return true;
        };
        let place = place_in(owned.places.len(), place);
        let result = owned.map.discard(place);
        let Some(slot) = owned.places.get_mut(place) else {
            return result == Err(FaultError::OutOfRange(place));
        };
        let slot = std::mem::take(slot);
        let reserved = self.let_go(&[slot]);
        if reserved > 0 {
            self.model.unreserve(1);
        }
        result == Ok(())
    }

    /// The folios in `places`, which are no mapping's any more, are put; how many
    /// promises there are besides.
    fn let_go(&mut self, places: &[Slot]) -> u64 {
        let mut reserved = 0;
        for slot in places {
            match *slot {
                Slot::Present(head) => {
                    if self.users(head) == 0 {
                        self.model.put(self.node_of(head));
                        self.stamps.remove(&self.pfn(head));
                    }
                }
                Slot::Reserved => reserved += 1,
                Slot::Empty => {}
            }
        }
        reserved
    }

    fn take(&mut self, node: Option<u8>) -> bool {
        let (w, h) = (self.w, self.h);
        let before = *self.model.may.first().expect("one state before a step");
        let row: &[usize] = match node {
            Some(0) => &[0],
            Some(_) => &[1],
            None => &[0, 1],
        };
        let from = row.iter().copied().find(|n| before.free[*n] > 0);
        let from = from.filter(|_| before.available() > 0);
        if let Some(node) = from {
            self.model.each(|c| c.free[node] -= 1);
        }
        let head = match node {
            Some(node) => h.take(&w.m, NodeId::of(node)),
            None => w.m.on_cpu(0, || h.take_near(&w.m, &w.mm.nodes)),
        };
        if let Some(head) = head {
            self.stamp(head, None);
            self.taken.push(head);
        }
        head.map(|head| self.node_of(head)) == from
    }

    /// How many places have the folio.
    fn users(&self, head: Page) -> usize {
        let places = self.maps.iter().flat_map(|owned| &owned.places);
        places.filter(|slot| **slot == Slot::Present(head)).count()
            + self.taken.iter().filter(|taken| **taken == head).count()
    }

    /// What holds whatever failed: MODEL.md, P-1, and that nothing is lost.
    fn check(&self) {
        let (m, now) = (&self.w.m, Counters::read(&self.w.m, self.h));
        let total = self.h.total(m);
        assert_eq!(total.nr, now.nr.iter().sum::<u64>(), "{now:?}");
        assert_eq!(total.free, now.free.iter().sum::<u64>(), "{now:?}");
        assert_eq!(total.surplus, now.surplus(), "{now:?}");
        assert!(now.resv <= total.free, "promises without folios: {now:?}");
        let mut used = [0; NODES];
        let mut promised = 0;
        for owned in &self.maps {
            for (n, slot) in owned.places.iter().enumerate() {
                assert_eq!(owned.map.slot(n), Some(*slot), "place {n}");
            }
            promised += owned.map.reserved();
        }
        assert_eq!(now.resv, promised, "promises that nobody has, or too few");
        let events = self.w.mm.hugetlb.events();
        let counted = [Event::ReserveFail, Event::TouchFail].map(|event| events.get(event));
        assert_eq!(counted, self.refused, "mappings and touches refused");
        for (pfn, stamp) in &self.stamps {
            let head = self.w.memmap().page(*pfn);
            used[self.node_of(head)] += 1;
            assert_eq!(head.page_type(m), PageType::HUGETLB, "{head:?}");
            assert_eq!(head.ref_count(m) as usize, self.users(head), "{head:?}");
            let last = pfn.phys().offset(Order::PMD.bytes() - 8);
            assert_eq!(m.read_phys(last), *stamp, "{head:?} was written to");
        }
        for (node, used) in used.into_iter().enumerate() {
            assert!(now.surplus[node] <= now.nr[node], "{now:?}");
            assert_eq!(now.nr[node] - now.free[node], used, "{now:?}");
        }
        assert_eq!(
            m.held_locks().load(Ordering::Relaxed),
            0,
            "a lock is held still"
        );
        assert_eq!(frames(self.w), self.frames, "frames got lost, or too many");
        self.w.check();
    }

    /// Gives everything back.
    fn end(mut self) {
        while !self.maps.is_empty() {
            self.step(&Step::Drop(0), None);
        }
        while !self.taken.is_empty() {
            let put = Step::Put {
                which: 0,
                lazily: false,
            };
            self.step(&put, None);
        }
        self.step(
            &Step::SetNr {
                node: None,
                count: 0,
            },
            None,
        );
        // Free surplus that was promised stays, as in Linux, when another folio was
        // taken for the promise.
        let (m, hugetlb) = (&self.w.m, &self.w.mm.hugetlb);
        hugetlb.shrink(m, self.w.mm.backing(), self.h, None, u64::MAX);
        assert_eq!(Counters::read(m, self.h), Counters::default());
        self.check();
        let totals = self.w.vmemmap().ledger().totals();
        assert_eq!((totals.folded, totals.saved), (0, 0));
    }
}

proptest! {
    #![proptest_config(testkit::same_in_every_run(80))]

    #[test]
    fn counters_are_what_the_model_says(
        steps in proptest::collection::vec((step(), proptest::option::weighted(0.15, trap())), 1..120),
    ) {
        let w = world();
        let mut run = Run::new(&w);
        for (step, trap) in &steps {
            run.step(step, trap.as_ref());
        }
        run.end();
    }
}
