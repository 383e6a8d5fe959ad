//! Broken frames where the suites cannot go: what is leaked for good, lists longer than a
//! frame, random stories against a model, and the promises broken one at a time.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mm::addr::{NodeId, Order, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::hugetlb::{Hstate, MapFlags, ReadError, Slot};
use mm::hwpoison::{Handled, PoisonError, PoisonPolicy};
use mm::machine::{FailPoint, Memory as _};
use mm::page::{Flags, Page};
use mm::paging;
use mm::vmemmap::HvoError;
use suites::Random;
use testkit::{Injection, Sabotage, World};

const POLICIES: [PoisonPolicy; 2] = [PoisonPolicy::List, PoisonPolicy::CopyOnWrite];

struct Bed {
    w: World,
}

impl Bed {
    /// One node; HVO on; every CPU holds translations nobody asked for.
    fn new(mib: u64, policy: PoisonPolicy) -> Self {
        let w = World::builder().ram(0, 1, mib).gbpages(true).boot();
        w.speculate(0.05, 1);
        w.mm.hugetlb.set_optimize(true);
        w.mm.hwpoison.set_policy(policy);
        Self { w }
    }

    fn h(&self, order: Order) -> &Hstate {
        self.w.mm.hugetlb.hstate(order).expect("both sizes")
    }

    fn grow(&self, order: Order, count: u64) -> u64 {
        let (m, mm) = (&self.w.m, &self.w.mm);
        mm.hugetlb.grow(m, mm.backing(), self.h(order), None, count)
    }

    fn shrink(&self, order: Order, count: u64) -> u64 {
        let (m, mm) = (&self.w.m, &self.w.mm);
        mm.hugetlb
            .shrink(m, mm.backing(), self.h(order), None, count)
    }

    /// A new folio with a count of one.
    fn taken(&self, order: Order) -> (Page, Pfn) {
        assert_eq!(self.grow(order, 1), 1, "room for a folio");
        let head = self.h(order).take_near(&self.w.m, &self.w.mm.nodes);
        let head = head.expect("a free folio");
        (head, self.w.memmap().pfn(head))
    }

    fn put(&self, order: Order, head: Page) {
        let mm = &self.w.mm;
        mm.hugetlb.put(&self.w.m, mm.backing(), self.h(order), head);
    }

    fn fail(&self, pfn: Pfn) -> Result<Handled, PoisonError> {
        self.w.mm.memory_failure(&self.w.m, pfn)
    }

    fn is_broken(&self, pfn: Pfn) -> bool {
        let memmap = self.w.memmap();
        let hugetlb = &self.w.mm.hugetlb;
        hugetlb.is_raw_hwpoison(&self.w.m, memmap, memmap.page(pfn))
    }

    fn with_failures<R>(&self, plan: Injection, work: impl FnOnce() -> R) -> R {
        self.w.m.fail(FailPoint::PageAlloc, plan);
        let result = work();
        self.w.m.fail(FailPoint::PageAlloc, Injection::Never);
        result
    }

    /// Free frames and those of the memmap, its tables and shared tails.
    fn owned(&self) -> u64 {
        let t = self.w.vmemmap().ledger().totals();
        self.w.free_pages() + t.pages + t.boot_pages + t.tables + t.tails
    }
}

/// No memory for a node of the list: the folio counts as broken throughout, is given to nobody,
/// and stays out for good, folded as it is.
#[test]
fn unreliable_folio_is_leaked() {
    for listed_before in [0, 3] {
        let bed = Bed::new(512, PoisonPolicy::List);
        let (head, first) = bed.taken(Order::PMD);
        // Nodes come from one frame: use up its places with another folio.
        let (other, others) = bed.taken(Order::PMD);
        for n in 0..listed_before {
            bed.fail(first.offset(n)).expect("in use");
        }
        let filler = 255 - listed_before;
        for n in 0..filler {
            bed.fail(others.offset(n)).expect("in use");
        }
        let bad = first.offset(400);
        let handled = bed.with_failures(Injection::From(1), || bed.fail(bad));
        assert_eq!(handled, Ok(Handled::Delayed));
        assert_eq!(bed.w.mm.hwpoison.known(), 255);
        assert_eq!(bed.w.mm.hwpoison.pages(), 256);
        assert!((0..512).all(|n| bed.is_broken(first.offset(n))));
        let unpoisoned = bed.w.mm.unpoison_memory(&bed.w.m, bad);
        assert_eq!(unpoisoned, Err(PoisonError::Busy(bad)));
        let again = bed.fail(first.offset(9));
        assert_eq!(again, Err(PoisonError::AlreadyPoisoned(first.offset(9))));
        let read = bed
            .w
            .mm
            .hugetlb
            .read(&bed.w.m, bed.w.memmap(), head, 8192, &mut [0; 4]);
        assert_eq!(read, Err(ReadError::Broken(first.offset(2))));
        bed.w.check();

        let (nr, free) = (bed.h(Order::PMD).total(&bed.w.m).nr, bed.w.free_pages());
        bed.put(Order::PMD, head);
        assert_eq!(bed.h(Order::PMD).total(&bed.w.m).nr, nr - 1);
        assert_eq!(bed.w.free_pages(), free, "a leaked folio is not free");
        assert_eq!(bed.w.vmemmap().ledger().totals().folded, 2);
        bed.w.check();

        bed.put(Order::PMD, other);
        assert_eq!(bed.h(Order::PMD).total(&bed.w.m).nr, nr - 2);
        // The other one, without its broken pages; its memmap; the shared frame of nodes
        // only if the leaked folio has nothing in it.
        let nodes = u64::from(listed_before == 0);
        assert_eq!(bed.w.free_pages(), free + 512 - filler - 7 + nodes);
        bed.w.check();
    }
}

/// A free folio is leaked at once.
#[test]
fn free_unreliable_folio_is_leaked() {
    let bed = Bed::new(512, PoisonPolicy::List);
    bed.grow(Order::PMD, 2);
    let h = bed.h(Order::PMD);
    let head = h.take_near(&bed.w.m, &bed.w.mm.nodes).expect("two");
    h.put(&bed.w.m, head);
    let first = bed.w.memmap().pfn(head);
    let free = bed.w.free_pages();
    let handled = bed.with_failures(Injection::From(1), || bed.fail(first.offset(5)));
    assert_eq!(handled, Ok(Handled::Recovered));
    assert_eq!(h.total(&bed.w.m).nr, 1);
    assert_eq!(bed.w.free_pages(), free);
    bed.w.check();
    assert_eq!(bed.shrink(Order::PMD, 1), 1, "the other one is whole");
    bed.w.check();
}

/// Every page of a folio breaks: a list of three frames, or a memmap wholly its own.
#[test]
fn all_pages_break() {
    for policy in POLICIES {
        let bed = Bed::new(512, policy);
        let before = bed.w.free_pages();
        let (head, first) = bed.taken(Order::PMD);
        for n in 0..512 {
            // From both ends, so that lists are not in order.
            let n = if n % 2 == 0 { n } else { 512 - n };
            assert_eq!(
                bed.fail(first.offset(n)),
                Ok(Handled::Delayed),
                "{policy:?}"
            );
        }
        let (frames, unshared) = match policy {
            PoisonPolicy::List => (3, 0),
            PoisonPolicy::CopyOnWrite => (0, 7),
        };
        assert_eq!(bed.w.mm.hugetlb.raw_hwp_frames(&bed.w.m), frames);
        assert_eq!(bed.w.vmemmap().ledger().totals().unshared, unshared);
        bed.w.check();
        bed.put(Order::PMD, head);
        assert_eq!(bed.h(Order::PMD).total(&bed.w.m).nr, 0);
        assert_eq!(bed.w.mm.hugetlb.raw_hwp_frames(&bed.w.m), 0);
        bed.w.check();
        for n in 0..512 {
            let page = bed.w.memmap().page(first.offset(n));
            assert!(page.flags(&bed.w.m).contains(Flags::HWPOISON), "page {n}");
            assert_eq!(bed.w.mm.unpoison_memory(&bed.w.m, first.offset(n)), Ok(()));
        }
        bed.w.check();
        // The shared tail page and the split leaf's table stay.
        assert_eq!(bed.w.free_pages(), before - 2, "{policy:?}");
    }
}

/// A restore with single frames asks for as many as are shared: a page of memmap that has its
/// own frame keeps it.
#[test]
fn restore_keeps_what_is_unshared() {
    for (policy, needed) in [(PoisonPolicy::List, 7), (PoisonPolicy::CopyOnWrite, 4)] {
        let bed = Bed::new(512, policy);
        let (head, first) = bed.taken(Order::PMD);
        for n in [64, 200, 450] {
            bed.fail(first.offset(n)).expect("in use");
        }
        let env = bed.w.env();
        let held = env.take_all_but(16).expect("enough memory");
        let mut failed = 0;
        // The block is asked for first.
        bed.with_failures(Injection::From(2), || bed.put(Order::PMD, head));
        loop {
            let total = bed.h(Order::PMD).total(&bed.w.m);
            bed.w.check();
            if total.nr == 0 {
                break;
            }
            failed += 1;
            assert_eq!((total.nr, total.surplus), (1, 1), "{policy:?}");
            let (m, mm) = (&bed.w.m, &bed.w.mm);
            bed.with_failures(Injection::From(2 + failed), || {
                mm.hugetlb.retry_surplus(m, mm.backing(), bed.h(Order::PMD))
            });
        }
        drop(held);
        assert_eq!(failed, needed, "{policy:?}");
        bed.w.check();
    }
}

/// The first folio on the free list is broken and cannot go: whoever asks, with a promise or
/// without, gets the one behind it, and no more than that are promised.
#[test]
fn the_next_folio_is_given_instead() {
    let bed = Bed::new(512, PoisonPolicy::List);
    let (m, mm, h) = (&bed.w.m, &bed.w.mm, bed.h(Order::PMD));
    assert_eq!(bed.grow(Order::PMD, 2), 2);
    let head = h.take_near(m, &mm.nodes).expect("two");
    h.put(m, head);
    let first = bed.w.memmap().pfn(head);
    let env = bed.w.env();
    let held = env.take_all_but(16).expect("enough memory");
    // One frame for the list, none for a restore.
    let handled = bed.with_failures(Injection::From(2), || bed.fail(first.offset(99)));
    assert_eq!(handled, Ok(Handled::Delayed));
    let counts = h.total(m);
    assert_eq!((counts.nr, counts.free, counts.surplus), (2, 2, 1));
    let taken = h.take_near(m, &mm.nodes).expect("the other one is whole");
    assert_ne!(taken, head);
    assert_eq!(h.take_near(m, &mm.nodes), None);
    h.put(m, taken);
    let map = |slots| mm.hugetlb.map(m, mm.backing(), h, MapFlags::SHARED, slots);
    let mut two = [Slot::Empty; 2];
    assert!(map(&mut two).is_err(), "a broken folio was promised");
    let mut one = [Slot::Empty; 1];
    let mut mapping = map(&mut one).expect("one is whole");
    assert_eq!(mapping.touch(0), Ok(taken));
    bed.w.check();
    drop(mapping);
    drop(held);
    mm.hugetlb.retry_surplus(m, mm.backing(), h);
    assert_eq!(h.total(m).nr, 1, "the broken one has gone");
    bed.w.check();
}

/// A broken folio that waits for memory to go does not become one that stays: who asks for a
/// pool of one gets one that can be used.
#[test]
fn a_pool_is_set_to_sound_folios() {
    for policy in POLICIES {
        let bed = Bed::new(512, policy);
        let (m, mm, h) = (&bed.w.m, &bed.w.mm, bed.h(Order::PMD));
        let (head, first) = bed.taken(Order::PMD);
        bed.put(Order::PMD, head);
        let env = bed.w.env();
        let held = env.take_all_but(16).expect("enough memory");
        let handled = bed.with_failures(Injection::From(2), || bed.fail(first.offset(77)));
        assert_eq!(handled, Ok(Handled::Delayed), "{policy:?}");
        assert_eq!(h.stuck(m), 1, "{policy:?}");
        drop(held);
        assert_eq!(mm.hugetlb.set_nr(m, mm.backing(), h, None, 1), 1);
        let total = h.total(m);
        assert_eq!((total.nr, total.surplus), (1, 0), "{policy:?}");
        let sound = h.take_near(m, &mm.nodes).expect("a folio of the pool");
        bed.put(Order::PMD, sound);
        bed.w.check();
    }
}

/// Folding, demoting and promoting refuse a block that has a broken frame, by name.
#[test]
fn blocks_with_broken_frames_stay_as_they_are() {
    for policy in POLICIES {
        let bed = Bed::new(4096, policy);
        let (m, mm) = (&bed.w.m, &bed.w.mm);
        assert_eq!(bed.grow(Order::PUD, 1), 1);
        let h = bed.h(Order::PUD);
        let head = h.take_near(m, &mm.nodes).expect("one");
        h.put(m, head);
        let first = bed.w.memmap().pfn(head);
        let env = bed.w.env();
        let held = env.take_all_but(4200).expect("enough memory");
        // Noted, then no memory for a restore: it stays in the pool.
        let handled = bed.with_failures(Injection::From(2), || bed.fail(first.offset(70)));
        assert_eq!(handled, Ok(Handled::Delayed), "{policy:?}");
        bed.w.check();
        // Persistent again, so that nothing but the mark is in the way.
        bed.with_failures(Injection::From(2), || {
            mm.hugetlb.set_nr(m, mm.backing(), h, None, 1)
        });
        let total = h.total(m);
        assert_eq!((total.nr, total.surplus), (1, 0));
        assert_eq!(
            mm.hugetlb.demote(m, mm.backing(), h, None, 1),
            0,
            "{policy:?}"
        );
        let mut list = mm::page::PageList::new();
        assert_eq!(h.take_near(m, &mm.nodes), None);
        drop(held);
        assert_eq!(bed.shrink(Order::PUD, 1), 1);
        bed.w.check();
        assert_eq!(mm.unpoison_memory(m, first.offset(70)), Ok(()));

        let head = bed.w.compound(0, Order::PUD, true).expect("room");
        let flags = head.flags(m);
        head.set_flags(m, flags.with(Flags::HAS_HWPOISONED));
        let refused = bed.w.fold(head, Order::PUD);
        assert_eq!(refused, Err(HvoError::Poisoned(head)));
        head.set_flags(m, flags);
        bed.w.fold(head, Order::PUD).expect("whole");
        head.set_flags(m, head.flags(m).with(Flags::HAS_HWPOISONED));
        list.push(m, head);
        let vmemmap = bed.w.vmemmap();
        let demoted = vmemmap.demote_folios(m, &mm.nodes, &list, Order::PUD, Order::PMD);
        list.pop(m);
        assert_eq!(demoted, 0, "{policy:?}");
        head.set_flags(m, head.flags(m).without(Flags::HAS_HWPOISONED));
        bed.w.check();
    }
}

/// Random stories: what breaks, is soft offlined, mended, taken, put, grown and shrunk, by both
/// policies and with failures, against a set of broken frames; an audit after each step.
#[test]
fn random_stories() {
    for seed in 1..=6 {
        story(seed);
    }
}

fn story(seed: u64) {
    let bed = Bed::new(256, PoisonPolicy::List);
    let (m, mm) = (&bed.w.m, &bed.w.mm);
    let mut random = Random::new(seed * 7919);
    let mut broken = BTreeSet::new();
    let mut held: Vec<Page> = Vec::new();
    let owned = bed.owned();
    bed.grow(Order::PMD, 6);
    for step in 0..250 {
        let around = format!("seed {seed}, step {step}");
        // Near each other, so that frames of memmap and of nodes are shared.
        let near = held.last().map(|head| bed.w.memmap().pfn(*head));
        let pfn = match (near, random.below(3)) {
            (Some(first), 0 | 1) => first.offset(random.below(512)),
            _ => Pfn::new(random.below(256 << 8)),
        };
        let short = random.below(4) == 0;
        let plan = if short {
            // A node or a copy can be had, so that nothing is unreliable.
            Injection::Kth(2 + random.below(4))
        } else {
            Injection::Never
        };
        match random.below(8) {
            0..=2 => {
                let known = broken.contains(&pfn);
                match bed.with_failures(plan, || bed.fail(pfn)) {
                    Ok(_) => assert!(broken.insert(pfn), "{around}: broke twice"),
                    Err(PoisonError::AlreadyPoisoned(_)) => assert!(known, "{around}"),
                    Err(_) => assert!(!known, "{around}"),
                }
            }
            3 => {
                let soft = || mm.soft_offline_page(m, pfn);
                match bed.with_failures(plan, soft) {
                    Ok(Handled::Already) => assert!(broken.contains(&pfn), "{around}"),
                    Ok(_) => assert!(broken.insert(pfn), "{around}"),
                    Err(_) => assert!(!broken.contains(&pfn), "{around}"),
                }
            }
            4 => {
                let at = broken.range(pfn..).next().or(broken.first()).copied();
                if let Some(at) = at {
                    assert_eq!(mm.unpoison_memory(m, at), Ok(()), "{around}");
                    broken.remove(&at);
                }
            }
            5 => {
                if let Some(head) = bed.h(Order::PMD).take_near(m, &mm.nodes) {
                    let first = bed.w.memmap().pfn(head);
                    let block = first.block(Order::PMD);
                    let bad = broken.range(block.start..block.end).next();
                    assert_eq!(bad, None, "{around}: given a broken folio");
                    held.push(head);
                }
            }
            6 => {
                if !held.is_empty() {
                    let which = random.below(held.len() as u64);
                    let head = held.swap_remove(usize::try_from(which).expect("small"));
                    bed.with_failures(plan, || bed.put(Order::PMD, head));
                }
            }
            _ => {
                let policy = POLICIES[usize::from(random.below(2) == 0)];
                mm.hwpoison.set_policy(policy);
                if random.below(2) == 0 {
                    bed.grow(Order::PMD, 1 + random.below(3));
                } else {
                    bed.with_failures(plan, || bed.shrink(Order::PMD, 1 + random.below(2)));
                }
            }
        }
        assert_eq!(mm.hwpoison.known(), broken.len() as u64, "{around}");
        assert_eq!(mm.hwpoison.pages(), broken.len() as u64, "{around}");
        for pfn in &broken {
            assert!(bed.is_broken(*pfn), "{around}: {pfn:?} forgotten");
        }
        if let Some(pfn) = near {
            for pfn in pfn.block(Order::PMD).iter() {
                assert_eq!(
                    bed.is_broken(pfn),
                    broken.contains(&pfn),
                    "{around}: {pfn:?}"
                );
            }
        }
        let report = bed.w.audit();
        assert!(report.is_ok(), "{around}: {report}");
    }
    // All of it can be undone.
    for head in held {
        bed.put(Order::PMD, head);
    }
    for pfn in broken {
        assert_eq!(mm.unpoison_memory(m, pfn), Ok(()), "seed {seed}");
    }
    bed.shrink(Order::PMD, 1 << 20);
    let totals = bed.w.vmemmap().ledger().totals();
    assert_eq!((totals.folded, totals.saved, totals.unshared), (0, 0, 0));
    assert_eq!(mm.hugetlb.raw_hwp_frames(m), 0, "seed {seed}");
    assert_eq!(mm.hwpoison.pages(), 0, "seed {seed}");
    bed.w.check();
    assert_eq!(bed.owned(), owned, "seed {seed}: frames lost or won");
}

/// What unsharing a page of memmap rests on, broken one at a time: each is noticed.
#[test]
fn broken_promises_of_copy_on_write_are_noticed() {
    let tell = |sabotage: Sabotage| {
        let bed = Bed::new(256, PoisonPolicy::CopyOnWrite);
        let (head, first) = bed.taken(Order::PMD);
        // All CPUs know the read-only translation.
        for cpu in 0..2 {
            let _ = bed.w.load_as(cpu, head.nth(300).address());
        }
        bed.w.m.sabotage(sabotage);
        bed.fail(first.offset(300)).expect("in use");
        bed.w.m.sabotage(Sabotage::None);
        let flags = |cpu| {
            let raw = bed.w.load_as(cpu, head.nth(300).address());
            Flags::from_raw(raw)
        };
        for cpu in 0..2 {
            let seen = flags(cpu).contains(Flags::HWPOISON);
            assert!(seen, "CPU {cpu} does not see that the frame is broken");
        }
        bed.w.check();
        // The way back.
        bed.w.m.sabotage(match sabotage {
            Sabotage::DropRound { nth: 0 } => Sabotage::DropRound { nth: 1 },
            _ => Sabotage::None,
        });
        let back = bed.w.mm.unpoison_memory(&bed.w.m, first.offset(300));
        bed.w.m.sabotage(Sabotage::None);
        assert_eq!(back, Ok(()));
        for cpu in 0..2 {
            assert_eq!(flags(cpu).bits(), 0, "CPU {cpu}");
        }
        bed.put(Order::PMD, head);
        assert_eq!(bed.shrink(Order::PMD, 1), 1);
        bed.w.check();
    };
    tell(Sabotage::None);
    for sabotage in [
        Sabotage::DropRound { nth: 1 },
        Sabotage::LocalRoundsOnly,
        Sabotage::SkipCopy { nth: 1 },
        Sabotage::DropRound { nth: 0 },
    ] {
        let noticed = catch_unwind(AssertUnwindSafe(|| tell(sabotage))).is_err();
        assert!(noticed, "{sabotage:?} went unnoticed");
    }
}

/// A huge page that somebody keeps frozen for good can be neither held nor freed: the wait for
/// it has an end.
#[test]
fn frame_of_a_lost_folio_is_busy() {
    let bed = Bed::new(64, PoisonPolicy::List);
    let m = &bed.w.m;
    let (head, first) = bed.taken(Order::PMD);
    head.set_ref_count(m, 0);
    let bad = first.offset(300);
    assert_eq!(bed.fail(bad), Err(PoisonError::Busy(bad)));
    assert!(!bed.is_broken(bad));
    head.set_ref_count(m, 1);
    assert_eq!(bed.fail(bad), Ok(Handled::Delayed));
    bed.put(Order::PMD, head);
    assert_eq!(bed.w.mm.unpoison_memory(m, bad), Ok(()));
    bed.w.check();
}

/// Frames that the kernel itself has break: of every kind, before what they hold is folded,
/// unfolded, split or given back. They are marked, go on being used, and never are free again.
#[test]
fn frames_of_the_kernel_stay_out() {
    let bed = Bed::new(512, PoisonPolicy::List);
    let (m, mm, memmap) = (&bed.w.m, &bed.w.mm, bed.w.memmap());
    let owned = bed.owned();
    let frame_of = |page: Page| paging::translate(m, m.root(), page.address()).expect("mapped");
    let breaks = |pfn: Pfn| {
        assert_eq!(bed.fail(pfn), Ok(Handled::Ignored), "{pfn:?}");
        assert_eq!(bed.fail(pfn), Err(PoisonError::AlreadyPoisoned(pfn)));
        assert!(bed.is_broken(pfn));
        bed.w.check();
    };
    // Free, so that the whole node is in blocks; and what never falls free.
    let root = m.root();
    breaks(root);
    // A block of the kernel's, by its middle; and single frames of a run.
    let order = Order::of(4);
    let block = mm.nodes.alloc(m, order, placement()).expect("memory");
    breaks(block.offset(7));
    let run = mm.nodes.alloc(m, order, placement()).expect("memory");
    mm.nodes.split(m, run, order);
    breaks(run);
    breaks(run.offset(9));
    // A frame of memmap from boot, of tails, that a fold lets go; then the head's new frame and
    // the table that took the leaf's place; then a frame of memmap that an unfold brought back.
    let (head, first) = bed.taken(Order::PMD);
    bed.put(Order::PMD, head);
    bed.shrink(Order::PMD, 1);
    let memmap_frame = frame_of(memmap.page(first.offset(300))).pfn();
    breaks(memmap_frame);
    let (head, again) = bed.taken(Order::PMD);
    assert_eq!(again, first, "the same block");
    let head_frame = frame_of(head).pfn();
    breaks(head_frame);
    bed.put(Order::PMD, head);
    assert_eq!(bed.shrink(Order::PMD, 1), 1);
    mm.nodes.free(m, block, order);
    mm.nodes.free_pages(m, run, order.pages());
    bed.w.check();

    let broken = [
        root,
        block.offset(7),
        run,
        run.offset(9),
        memmap_frame,
        head_frame,
    ];
    assert_eq!(mm.hwpoison.known(), broken.len() as u64);
    let env = bed.w.env();
    let held = env.take_all_but(0).expect("enough memory");
    let got = |pfn: &Pfn| held.iter().any(|(b, order)| b.block(*order).contains(*pfn));
    assert_eq!(broken.iter().find(|pfn| got(pfn)), None, "handed out");
    drop(held);
    for pfn in broken {
        assert!(bed.is_broken(pfn), "{pfn:?} forgotten");
        assert_eq!(mm.unpoison_memory(m, pfn), Ok(()));
        bed.w.check();
    }
    // Whoever had none of them before has none now: only the root is still in use.
    assert_eq!(mm.hwpoison.pages(), 0);
    assert_eq!(bed.owned(), owned, "frames lost or won");
}

fn placement() -> Placement {
    Placement::Only(NodeId::ZERO)
}
