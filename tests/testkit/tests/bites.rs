//! The tests bite: a story that passes as it is fails when one promise is broken.
//!
//! Nothing in `mm` is edited for this: the machine does the damage
//! ([`testkit::Sabotage`]). Every flush instruction, every round to all CPUs and
//! every copy of the story is left out once, alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mm::addr::{Order, Pfn, PfnRange, PhysAddr};
use mm::machine::{FailPoint, Memory as _, Processors as _, Testing as _};
use mm::page::Page;
use mm::vmemmap::{Fill, HvoError};
use testkit::records::Folio;
use testkit::{Event, Injection, Sabotage, Violation, World, raw};

const ORDER: Order = Order::PMD;

/// A folio on a machine on which every CPU has seen all of its struct pages.
struct Story {
    w: World,
    folio: Folio,
    head: Page,
}

impl Story {
    /// `split`: whether the memmap is mapped by 4 KiB entries already.
    fn begin(w: World, split: bool) -> Self {
        let head = w.compound(0, ORDER, true).expect("an empty machine");
        let at = head.address();
        let order = ORDER.get();
        let mut folio = Folio {
            head: at,
            node: 0,
            order,
            folded: false,
            tails: true,
            mark: 0,
        };
        folio.write_mark(&w.m, 0x1234_5678);
        let mut story = Self { w, folio, head };
        if split {
            story.fold();
            story.unfold();
        }
        story.folio.check(&story.w.m, 1);
        story
    }

    fn fold(&mut self) {
        self.w.fold(self.head, ORDER).expect("nothing in the way");
        self.folio.folded = true;
    }

    fn unfold(&mut self) {
        self.w
            .unfold(self.head, ORDER, Fill::Tails)
            .expect("enough memory");
        self.folio.folded = false;
    }

    /// The frame that the head lies in, by the table bytes.
    fn frame_of_head(&self) -> Pfn {
        let at = self.head.address();
        let leaf = raw::translate(&self.w.m, self.w.m.root(), at).expect("populated");
        PhysAddr::new(leaf.pa + at.as_u64() % leaf.size).pfn()
    }

    /// What the sabotage is to be found out by.
    fn tell(&mut self) {
        self.fold();
        self.folio.check(&self.w.m, 1);
        self.see_writes_of_others();
        self.tails_are_read_only();
        self.w.check();
        self.use_up_freed_frames();
        self.folio.check(&self.w.m, 1);

        self.unfold();
        self.folio.check(&self.w.m, 1);
        self.see_writes_of_others();
        self.tails_belong_to_the_folio();
        self.w.check();
    }

    /// A CPU writes to the head; all see it.
    fn see_writes_of_others(&mut self) {
        let m = &self.w.m;
        for cpu in 0..m.cpus() {
            let mark = self.folio.mark + 1;
            m.on_cpu(cpu, || self.folio.write_mark(m, mark));
            self.folio.check(m, 1);
        }
    }

    fn tails_are_read_only(&self) {
        use mm::machine::{Fault, Probe};
        let at = self.head.nth(64).ref_count_address();
        let fault = Err(Fault {
            at,
            code: Fault::WRITE_TO_READ_ONLY,
        });
        for cpu in 0..self.w.m.cpus() {
            let found = self.w.m.on_cpu(cpu, || self.w.m.probe(at, Probe::XaddZero));
            assert_eq!(found, fault, "CPU {cpu} writes to a shared tail");
        }
    }

    /// Takes all free memory in pages and writes into each: what is still in use
    /// will not be what it was.
    fn use_up_freed_frames(&self) {
        use mm::frames::{FrameSource, Placement};
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let placement = Placement::Only(mm::addr::NodeId::ZERO);
        // The lists are last in, first out: the freed frames come at once.
        let pages: Vec<_> = (0..64)
            .map_while(|_| nodes.alloc(m, Order::PAGE, placement))
            .collect();
        for page in &pages {
            m.fill_words(page.phys(), 0xdead_beef, 512);
        }
        self.folio.check(m, 1);
        for page in pages {
            nodes.free(m, page, Order::PAGE);
        }
    }

    /// Every CPU writes into every page of memmap, and the others see it.
    fn tails_belong_to_the_folio(&self) {
        let m = &self.w.m;
        for writer in 0..m.cpus() {
            for n in (64..ORDER.pages()).step_by(64) {
                let at = self.head.nth(n).address().offset(24);
                m.on_cpu(writer, || m.store64(at, n));
                for reader in 0..m.cpus() {
                    assert_eq!(self.w.load_as(reader, at), n, "CPU {reader}, tail {n}");
                }
                m.on_cpu(writer, || m.store64(at, 0));
            }
        }
    }
}

/// Tells the story with one promise broken; how it was found out, if it was.
fn with(sabotage: Sabotage, w: World, split: bool) -> Option<String> {
    let mut story = Story::begin(w, split);
    story.w.m.take_violations();
    story.w.m.sabotage(sabotage);
    let outcome = catch_unwind(AssertUnwindSafe(|| story.tell()));
    assert!(
        sabotage == Sabotage::None || story.w.m.sabotaged() > 0,
        "{sabotage:?} did not happen: the test proves nothing"
    );
    outcome.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without text".to_owned())
    })
}

fn two_cpus() -> World {
    World::small()
}

/// Freed frames do not bite by themselves: only what is read and written tells.
fn blind() -> World {
    World::builder().ram(0, 0, 512).blind().boot()
}

/// Sizes of pages never change: the memmap is mapped by 4 KiB pages from boot on.
fn one_size() -> World {
    World::builder().ram(0, 0, 512).multi_hit(false).boot()
}

/// Machines, and whether the memmap is mapped by 4 KiB pages before the story.
const MACHINES: [(fn() -> World, bool); 3] =
    [(two_cpus, false), (two_cpus, true), (one_size, false)];

/// Counts what the honest story does: rounds, flush instructions of CPU 1, copies.
fn count(w: World, split: bool) -> (u64, u64, u64) {
    let mut story = Story::begin(w, split);
    story.w.m.record_events(true);
    story.tell();
    let events = story.w.m.take_events();
    let count = |what: fn(&Event) -> bool| events.iter().filter(|e| what(e)).count() as u64;
    let flushes = |cpu: usize| {
        events
            .iter()
            .filter(|e| match e {
                Event::FlushPage { cpu: c, .. } | Event::FlushAll { cpu: c } => *c == cpu,
                _ => false,
            })
            .count() as u64
    };
    assert_eq!(flushes(0), flushes(1), "every CPU flushes the same");
    // Fold and unfold: one round each, of one page each for eight pages.
    (
        flushes(1) / 8,
        flushes(1),
        count(|e| matches!(e, Event::CopyFrame { .. })),
    )
}

#[test]
fn the_honest_story_passes() {
    for (world, split) in MACHINES {
        assert_eq!(with(Sabotage::None, world(), split), None);
        assert_eq!(with(Sabotage::None, blind(), split), None);
        assert_eq!(
            count(world(), split),
            (2, 16, 2),
            "one flush and one copy each to fold and unfold"
        );
    }
}

#[test]
fn removing_one_flush_is_noticed() {
    for (world, split) in MACHINES {
        for nth in 1..=count(world(), split).0 {
            let sabotage = Sabotage::DropRound { nth };
            let told = with(sabotage, world(), split);
            assert!(told.is_some(), "{sabotage:?}, split {split}");
            let told = with(sabotage, blind(), split);
            assert!(told.is_some(), "{sabotage:?}, split {split}, blind");
        }
    }
}

#[test]
fn removing_one_flush_instruction_is_noticed() {
    // While one 2 MiB translation covers the block, any flush in it drops it, so
    // only from the second fold on every instruction is needed, or where there never is one.
    for cpu in 0..2 {
        for nth in 1..=count(two_cpus(), true).1 {
            let sabotage = Sabotage::DropFlush { cpu, nth };
            assert!(with(sabotage, two_cpus(), true).is_some(), "{sabotage:?}");
            assert!(
                with(sabotage, one_size(), false).is_some(),
                "{sabotage:?}, one size"
            );
            assert!(
                with(sabotage, blind(), true).is_some(),
                "{sabotage:?}, blind"
            );
        }
    }
}

#[test]
fn flushing_this_cpu_only_is_noticed() {
    for (world, split) in MACHINES {
        let told = with(Sabotage::LocalRoundsOnly, world(), split).expect("noticed");
        assert!(told.contains("CPU 1"), "{told}");
        assert!(with(Sabotage::LocalRoundsOnly, blind(), split).is_some());
    }
}

#[test]
fn freeing_before_the_flush_is_noticed() {
    for (world, split) in MACHINES {
        let told = with(Sabotage::FlushAfterFree, world(), split).expect("noticed");
        assert!(told.contains("freed while CPU"), "{told}");
    }
}

/// Fails the `nth` store of a fold under CPUs that cache what they should not
/// have seen; whether anybody noticed.
fn roll_back(nth: u64, seed: u64, sabotage: Sabotage) -> bool {
    let mut story = Story::begin(World::builder().ram(0, 0, 32).boot(), true);
    let m = &story.w.m;
    m.evict_all();
    m.speculate(story.head.address().range(ORDER.pages() * 64), 1.0, seed);
    m.sabotage(sabotage);
    m.fail(FailPoint::VmemmapPte, Injection::Kth(nth));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        assert_eq!(story.w.fold(story.head, ORDER), Err(HvoError::Injected));
        story.folio.check(&story.w.m, 1);
        story.see_writes_of_others();
        story.tails_belong_to_the_folio();
        story.w.check();
        assert_eq!(story.w.vmemmap().ledger().totals().folded, 0);
    }));
    outcome.is_err()
}

#[test]
fn rolling_back_without_a_flush_is_noticed() {
    // Whether a CPU caches an entry in the short time it is there is chance: out
    // of some tries, it does.
    let seeds = 0..8;
    for nth in 1..=8 {
        for seed in seeds.clone() {
            assert!(
                !roll_back(nth, seed, Sabotage::None),
                "store {nth}, seed {seed}"
            );
        }
    }
    for nth in 2..=8 {
        let missing = Sabotage::DropRound { nth: 1 };
        let noticed = seeds
            .clone()
            .filter(|seed| roll_back(nth, *seed, missing))
            .count();
        assert!(
            noticed > 0,
            "rollback of {} stores without a flush",
            nth - 1
        );
    }
}

#[test]
fn the_order_is_flush_then_free() {
    let mut story = Story::begin(two_cpus(), false);
    let old = story.frame_of_head();
    story.w.m.record_events(true);
    story.fold();
    let events = story.w.m.take_events();
    let stored = |e: &Event| matches!(e, Event::WritePhys { .. });
    let flushed = |e: &Event| matches!(e, Event::FlushPage { .. });
    let freed = |e: &Event| match e {
        Event::Free { first, pages } => PfnRange::new(*first, first.offset(*pages)).contains(old),
        _ => false,
    };
    let last_store = events.iter().rposition(stored).expect("entries are stored");
    let first_flush = events.iter().position(flushed).expect("all CPUs flush");
    let last_flush = events.iter().rposition(flushed).expect("all CPUs flush");
    let free = events
        .iter()
        .position(freed)
        .expect("the old frames are freed");
    assert!(last_store < first_flush, "flush after the last store");
    assert!(last_flush < free, "free after the last flush");
}

#[test]
fn mapping_tails_writable_is_noticed() {
    for (world, split) in MACHINES {
        let told = with(Sabotage::WritableEntries, world(), split).expect("noticed");
        assert!(told.contains("writes to a shared tail"), "{told}");
    }
    // By the audit alone, too.
    let mut story = Story::begin(two_cpus(), false);
    story.w.m.sabotage(Sabotage::WritableEntries);
    story.fold();
    let report = story.w.audit();
    let check = mm::audit::Check::TailRights;
    assert!(report.findings().all(|f| f.check == check), "{report}");
    assert_eq!(report.count(), 7, "{report}");
}

#[test]
fn skipping_a_copy_is_noticed() {
    for (world, split) in MACHINES {
        for nth in 1..=count(world(), split).2 {
            let sabotage = Sabotage::SkipCopy { nth };
            let told = with(sabotage, world(), split).expect("noticed");
            assert!(!told.is_empty());
        }
    }
}

#[test]
fn a_write_into_the_shared_page_is_noticed() {
    let mut story = Story::begin(two_cpus(), false);
    story.fold();
    let tail = story.head.nth(64).address();
    story.w.m.set_write_protect(false);
    story.w.m.store64(tail.offset(24), 1);
    story.w.m.set_write_protect(true);
    let report = story.w.audit();
    let content = mm::audit::Check::TailContent(3);
    assert!(report.findings().any(|f| f.check == content), "{report}");
    // The processor set the dirty bit: a second witness.
    let rights = mm::audit::Check::TailRights;
    assert!(report.findings().any(|f| f.check == rights), "{report}");
}

#[test]
fn use_of_a_freed_frame_is_noticed() {
    let mut story = Story::begin(two_cpus(), false);
    let old = story.frame_of_head();
    story.fold();
    assert!(story.w.m.is_freed(old), "the head's old frame goes too");
    let caught = story
        .w
        .m
        .expect_violation(|| story.w.m.read_phys(old.phys()));
    assert!(
        matches!(caught, Violation::UseAfterFree { pfn, .. } if pfn == old),
        "{caught}"
    );
}
