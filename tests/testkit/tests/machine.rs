//! The emulated machine itself, on tables written by hand.

use mm::addr::{NodeId, Order, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm::machine::{
    FailPoint, Fault, Level, Machine, Memory as _, Probe, Processors as _, Testing as _,
};
use testkit::raw::{self, bit};
use testkit::{
    Access, Bump, EmulatedMachine, Event, FREED_POISON, FRESH_POISON, Injection, Sabotage,
    Violation,
};

const AT: u64 = 0xffff_ea00_0000_0000;
const DATA: u64 = bit::P | bit::RW | bit::A | bit::D | bit::G | bit::XD;
const READ_ONLY: u64 = bit::P | bit::A | bit::G | bit::XD;

struct Bench {
    m: EmulatedMachine,
    root: Pfn,
    bump: Bump,
}

fn range(start: u64, end: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), Pfn::new(end))
}

/// 64 MiB of RAM from 1 MiB on, two CPUs, an empty top-level table.
fn bench() -> Bench {
    bench_of(
        EmulatedMachine::builder()
            .ram(range(0x100, 0x4100))
            .cpus(2)
            .build(),
    )
}

fn bench_of(m: EmulatedMachine) -> Bench {
    let bump = Bump::new(range(0x100, 0x200));
    let root = m.zeroed(&bump);
    m.set_root(root);
    Bench { m, root, bump }
}

impl Bench {
    fn map(&self, at: u64, level: u8, entry: u64) {
        raw::poke(&self.m, self.root, at, level, entry, || {
            self.m.zeroed(&self.bump)
        });
    }

    fn map_page(&self, at: u64, pfn: u64, bits: u64) {
        self.map(at, 1, pfn << 12 | bits);
    }
}

fn at(offset: u64) -> VirtAddr {
    VirtAddr::new(AT + offset)
}

fn phys(pfn: u64, offset: u64) -> PhysAddr {
    Pfn::new(pfn).phys().offset(offset)
}

#[test]
fn ram_is_not_zero_and_has_an_end() {
    let b = bench();
    assert_eq!(b.m.read_phys(phys(0x300, 8)), FRESH_POISON);
    let beyond = b.m.expect_violation(|| b.m.read_phys(phys(0x4100, 0)));
    assert_eq!(
        beyond,
        Violation::NotRam {
            pfn: Pfn::new(0x4100),
            by: Access::Physical
        }
    );
    let below = b.m.expect_violation(|| b.m.write_phys(phys(0xff, 0), 1));
    assert_eq!(
        below,
        Violation::NotRam {
            pfn: Pfn::new(0xff),
            by: Access::Physical
        }
    );
    assert!(below.to_string().contains("no RAM at pfn 0xff"), "{below}");
    let odd = b.m.expect_violation(|| b.m.read_phys(phys(0x300, 4)));
    assert_eq!(
        odd,
        Violation::Misaligned {
            at: 0x30_0004,
            size: 8
        }
    );
}

#[test]
fn a_stale_translation_reaches_the_old_frame_until_flushed() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 11);
    b.m.write_phys(phys(0x301, 0), 22);
    b.map_page(AT, 0x301, DATA);

    assert_eq!(b.m.load64(at(0)), 11, "the cache is consulted first");
    b.m.store64(at(0), 12);
    assert_eq!(
        b.m.read_phys(phys(0x300, 0)),
        12,
        "a store goes to the old frame too"
    );
    assert_eq!(
        b.m.on_cpu(1, || b.m.load64(at(0))),
        22,
        "CPU 1 had cached nothing"
    );

    b.m.flush_page_local(at(0x1000));
    assert_eq!(b.m.load64(at(0)), 12, "another page was flushed");
    b.m.on_cpu(1, || b.m.flush_page_local(at(0)));
    assert_eq!(b.m.load64(at(0)), 12, "another CPU flushed");
    b.m.flush_page_local(at(0xfff));
    assert_eq!(b.m.load64(at(0)), 22, "any address in the page names it");
    assert_eq!(b.m.tlb_counts(0).pages, 2);
    assert_eq!(b.m.tlb_counts(1).pages, 1);
}

#[test]
fn a_flush_of_all_drops_global_entries_and_a_load_of_cr3_does_not() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.map_page(AT + 0x1000, 0x301, DATA & !bit::G);
    b.m.store64(at(0), 1);
    b.m.store64(at(0x1000), 2);
    b.m.write_phys(phys(0x302, 0), 3);
    b.map_page(AT, 0x302, DATA);
    b.map_page(AT + 0x1000, 0x302, DATA);
    b.m.set_root(b.root);
    assert_eq!(b.m.load64(at(0)), 1, "global: survives");
    assert_eq!(b.m.load64(at(0x1000)), 3, "not global: gone");
    b.m.flush_all_local();
    assert_eq!(b.m.load64(at(0)), 3);
    assert_eq!(b.m.tlb_counts(0).all, 1);
}

#[test]
fn one_page_flush_drops_the_large_entry_that_covers_it() {
    let b = bench();
    b.map(AT, 2, 0x400 << 12 | DATA | bit::PS);
    b.m.store64(at(0x12_3008), 5);
    assert_eq!(b.m.read_phys(phys(0x400 + 0x123, 8)), 5);

    // Split by hand, with one page moved elsewhere.
    let table = b.m.zeroed(&b.bump);
    for n in 0..512 {
        let pfn = if n == 7 { 0x300 } else { 0x400 + n };
        b.m.write_phys(table.phys().offset(n * 8), pfn << 12 | DATA);
    }
    b.m.write_phys(phys(0x300, 0), 77);
    b.map(AT, 2, table.as_u64() << 12 | bit::P | bit::RW);
    b.m.write_phys(phys(0x407, 0), 66);
    assert_eq!(
        b.m.load64(at(0x7000)),
        66,
        "the 2 MiB translation is still there"
    );
    b.m.flush_page_local(at(0x1f_f000));
    assert_eq!(b.m.load64(at(0x7000)), 77);
    assert_eq!(b.m.load64(at(0x12_3008)), 5);
}

#[test]
fn a_table_stays_cached_until_any_page_is_flushed() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.load64(at(0));
    // The table is replaced by one that maps the next page as well.
    let table = b.m.zeroed(&b.bump);
    b.m.write_phys(table.phys().offset(8), 0x301 << 12 | DATA);
    b.map(AT, 2, table.as_u64() << 12 | bit::P | bit::RW);
    let fault = Fault {
        at: at(0x1000),
        code: 0,
    };
    assert_eq!(
        b.m.probe(at(0x1000), Probe::Load),
        Err(fault),
        "walked through the old table"
    );
    b.m.flush_page_local(at(0x5_0000));
    assert_eq!(b.m.probe(at(0x1000), Probe::Load), Ok(()));
}

#[test]
fn gigabyte_leaves_work_where_the_cpu_has_them() {
    let ram = || {
        EmulatedMachine::builder()
            .ram(range(0x100, 0x200))
            .ram(range(0x4_0000, 0x8_0000))
    };
    let b = bench_of(ram().build());
    b.map(AT, 3, 0x4_0000 << 12 | DATA | bit::PS);
    b.m.store64(at(0x1234_5678), 9);
    assert_eq!(b.m.read_phys(phys(0x4_0000, 0x1234_5678)), 9);

    let b = bench_of(ram().gbpages(false).build());
    b.map(AT, 3, 0x4_0000 << 12 | DATA | bit::PS);
    let caught = b.m.expect_violation(|| b.m.load64(at(0)));
    assert!(
        matches!(
            caught,
            Violation::ReservedBits {
                level: 3,
                bits: bit::PS,
                ..
            }
        ),
        "{caught}"
    );
}

#[test]
fn bits_that_must_be_zero_are_checked() {
    for (level, entry, bits) in [
        (1, 0x300 << 12 | DATA | 1 << 46, 1 << 46),
        (2, 0x400 << 12 | DATA | bit::PS | 1 << 13, 1 << 13),
        (2, 0x401 << 12 | DATA | bit::PS, 0),
        (3, 0x4_0000 << 12 | DATA | bit::PS | 1 << 29, 1 << 29),
    ] {
        let b = bench();
        b.map(AT, level, entry);
        if bits == 0 {
            // Bit 12 of a large leaf is the PAT bit: allowed.
            b.m.load64(at(0));
            continue;
        }
        let caught = b.m.expect_violation(|| b.m.load64(at(0)));
        let Violation::ReservedBits {
            level: at_level,
            raw,
            bits: found,
            ..
        } = caught
        else {
            panic!("{caught}");
        };
        assert_eq!((at_level, raw, found), (level, entry, bits));
    }
}

#[test]
fn an_entry_that_was_never_written_is_caught() {
    let b = bench();
    // A table that nobody zeroed.
    let table = b.bump.take(Order::PAGE).expect("room");
    b.map(AT, 2, table.as_u64() << 12 | bit::P | bit::RW);
    let caught = b.m.expect_violation(|| b.m.load64(at(0)));
    assert!(
        matches!(caught, Violation::ReservedBits { level: 1, .. }),
        "{caught}"
    );
}

#[test]
fn writes_to_read_only_pages_fault_and_change_nothing() {
    let b = bench();
    b.map_page(AT, 0x300, READ_ONLY);
    b.m.write_phys(phys(0x300, 0), 0);
    assert_eq!(b.m.probe(at(0), Probe::Load), Ok(()));
    let fault = Fault {
        at: at(4),
        code: Fault::WRITE_TO_READ_ONLY,
    };
    for how in [
        Probe::Store,
        Probe::CmpxchgFailing,
        Probe::XaddZero,
        Probe::Bts,
    ] {
        assert_eq!(b.m.probe(at(4), how), Err(fault), "{how:?}");
    }
    assert_eq!(
        b.m.expect_violation(|| b.m.store64(at(0), 1)),
        page_fault(at(0), 3)
    );
    assert_eq!(
        b.m.expect_violation(|| b.m.store32(at(4), 1)),
        page_fault(at(4), 3)
    );
    assert_eq!(
        b.m.expect_violation(|| b.m.fetch_add32(at(4), 0)),
        page_fault(at(4), 3)
    );
    let cmpxchg = || b.m.compare_exchange32(at(4), 1, 2);
    assert_eq!(
        b.m.expect_violation(cmpxchg),
        page_fault(at(4), 3),
        "even one that fails"
    );
    let cmpxchg = || b.m.compare_exchange64(at(0), 1, 2);
    assert_eq!(
        b.m.expect_violation(cmpxchg),
        page_fault(at(0), 3),
        "even one that fails"
    );
    assert_eq!(b.m.read_phys(phys(0x300, 0)), 0);
    assert_eq!(
        b.m.peek(leaf_entry(&b)),
        Some(0x300 << 12 | READ_ONLY),
        "and not dirty"
    );

    b.m.set_write_protect(false);
    for how in [
        Probe::Store,
        Probe::CmpxchgFailing,
        Probe::XaddZero,
        Probe::Bts,
    ] {
        assert_eq!(b.m.probe(at(4), how), Ok(()), "{how:?} with CR0.WP clear");
    }
    assert_eq!(b.m.read_phys(phys(0x300, 0)), 1 << 32, "bts set the bit");
    assert_eq!(
        b.m.peek(leaf_entry(&b)),
        Some(0x300 << 12 | READ_ONLY | bit::D)
    );
    let other = b.m.on_cpu(1, || b.m.probe(at(4), Probe::Store));
    assert_eq!(other, Err(fault), "CR0 is each CPU's own");
}

fn page_fault(at: VirtAddr, code: u64) -> Violation {
    Violation::PageFault(Fault { at, code })
}

/// Where the last-level entry of `AT` lies.
fn leaf_entry(b: &Bench) -> PhysAddr {
    let mut table = b.root.as_u64() << 12;
    for shift in [39, 30, 21] {
        let entry = PhysAddr::new(table + (AT >> shift & 511) * 8);
        table = b.m.peek(entry).expect("a table") & 0x000f_ffff_ffff_f000;
    }
    PhysAddr::new(table + (AT >> 12 & 511) * 8)
}

#[test]
fn rights_add_up_over_the_levels() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    let table =
        b.m.peek(phys(0x101, 0))
            .expect("the level-3 table's first entry");
    // Level 3 forbids writing.
    b.map(AT, 3, table & !bit::RW);
    let fault = Fault { at: at(0), code: 3 };
    assert_eq!(b.m.probe(at(0), Probe::Store), Err(fault));
    // Through a cached table it is still forbidden.
    assert_eq!(b.m.probe(at(0), Probe::Load), Ok(()));
    b.map_page(AT + 0x1000, 0x301, DATA);
    let fault = Fault {
        at: at(0x1000),
        code: 3,
    };
    assert_eq!(b.m.probe(at(0x1000), Probe::Store), Err(fault));
}

#[test]
fn what_is_not_present_faults_and_is_not_cached() {
    let b = bench();
    assert_eq!(
        b.m.probe(at(8), Probe::Load),
        Err(Fault { at: at(8), code: 0 })
    );
    assert_eq!(
        b.m.probe(at(8), Probe::Store),
        Err(Fault { at: at(8), code: 2 })
    );
    assert_eq!(
        b.m.expect_violation(|| b.m.load64(at(8))),
        page_fault(at(8), 0)
    );
    b.map_page(AT, 0x300, DATA);
    assert_eq!(
        b.m.probe(at(8), Probe::Store),
        Ok(()),
        "no flush is owed for a new mapping"
    );
}

#[test]
fn a_fault_drops_the_stale_entry_that_caused_it() {
    let b = bench();
    b.map_page(AT, 0x300, READ_ONLY);
    b.m.load64(at(0));
    b.map_page(AT, 0x300, DATA);
    assert!(b.m.probe(at(0), Probe::Store).is_err(), "spurious");
    assert_eq!(
        b.m.probe(at(0), Probe::Store),
        Ok(()),
        "the second try walks"
    );
}

#[test]
fn accessed_and_dirty_are_set_by_use() {
    let b = bench();
    b.map_page(AT, 0x300, bit::P | bit::RW);
    let entry = leaf_entry(&b);
    let pgd = b.root.phys().offset((AT >> 39 & 511) * 8);
    assert_eq!(b.m.peek(pgd).expect("RAM") & bit::A, 0);
    b.m.load64(at(0));
    assert_eq!(
        b.m.peek(entry),
        Some(0x300 << 12 | bit::P | bit::RW | bit::A)
    );
    assert_eq!(
        b.m.peek(pgd).expect("RAM") & bit::A,
        bit::A,
        "at every level"
    );
    b.m.store32(at(0), 1);
    assert_eq!(
        b.m.peek(entry),
        Some(0x300 << 12 | bit::P | bit::RW | bit::A | bit::D)
    );
}

#[test]
fn half_words_are_the_right_halves() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 0x1111_2222_3333_4444);
    assert_eq!(b.m.load32(at(0)), 0x3333_4444);
    assert_eq!(b.m.load32(at(4)), 0x1111_2222);
    b.m.store32(at(4), 0xaaaa_aaaa);
    assert_eq!(b.m.fetch_add32(at(0), u32::MAX), 0x3333_4444);
    assert_eq!(b.m.load64(at(0)), 0xaaaa_aaaa_3333_4443);
    assert_eq!(b.m.compare_exchange32(at(4), 1, 2), Err(0xaaaa_aaaa));
    assert_eq!(
        b.m.compare_exchange32(at(4), 0xaaaa_aaaa, 2),
        Ok(0xaaaa_aaaa)
    );
    assert_eq!(b.m.load64(at(0)), 0x0000_0002_3333_4443);
    let odd = b.m.expect_violation(|| b.m.load32(at(2)));
    assert_eq!(
        odd,
        Violation::Misaligned {
            at: AT + 2,
            size: 4
        }
    );
}

#[test]
fn freed_frames_bite() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 1);
    let pfn = Pfn::new(0x300);
    let (first, pages) = (pfn, 1);
    let caught = b.m.expect_violation(|| b.m.mark_freed(pfn, 1));
    let cached = Violation::FreedWhileCached {
        first,
        pages,
        cpu: 0,
        at: Some(at(0)),
    };
    assert_eq!(caught, cached, "CPU 0 still has it");
    let by = Access::Virtual(at(0));
    let caught = b.m.expect_violation(|| b.m.load64(at(0)));
    assert_eq!(caught, Violation::UseAfterFree { pfn, by });
    assert_eq!(b.m.peek(phys(0x300, 0)), Some(FREED_POISON));
    let by = Access::Physical;
    let caught =
        b.m.expect_violation(|| b.m.copy_frame(Pfn::new(0x301), pfn));
    assert_eq!(caught, Violation::UseAfterFree { pfn, by });
    b.m.mark_allocated(pfn, 1);
    assert_eq!(
        b.m.load64(at(0)),
        FREED_POISON,
        "allocated again, but not written"
    );
}

#[test]
fn a_freed_table_bites_the_walk() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.load64(at(0));
    let table = leaf_entry(&b).pfn();
    // A page flush would drop the cached table; what stays is the leaf itself.
    b.map(AT, 2, 0);
    let caught = b.m.expect_violation(|| b.m.mark_freed(table, 1));
    let cached = Violation::FreedWhileCached {
        first: table,
        pages: 1,
        cpu: 0,
        at: None,
    };
    assert_eq!(caught, cached);
    let by = Access::Walk(at(0x1000));
    let caught = b.m.expect_violation(|| b.m.load64(at(0x1000)));
    assert_eq!(caught, Violation::UseAfterFree { pfn: table, by });
}

#[test]
fn eviction_makes_entries_go_early() {
    let machine = EmulatedMachine::builder()
        .ram(range(0x100, 0x4100))
        .eviction(0.5, 1)
        .build();
    let b = bench_of(machine);
    b.m.write_phys(phys(0x300, 0), 1);
    b.m.write_phys(phys(0x301, 0), 2);
    b.map_page(AT, 0x300, DATA);
    b.m.load64(at(0));
    b.map_page(AT, 0x301, DATA);
    let seen: Vec<u64> = (0..32).map(|_| b.m.load64(at(0))).collect();
    assert_eq!(
        seen.last(),
        Some(&2),
        "gone without a flush, sooner or later"
    );
    assert!(seen.is_sorted(), "and never back: {seen:?}");
}

#[test]
fn speculation_caches_what_nobody_asked_for() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.write_phys(phys(0x300, 0), 1);
    b.m.write_phys(phys(0x301, 0), 2);
    b.m.speculate(at(0).range(0x1000), 1.0, 7);
    for _ in 0..32 {
        b.m.write_phys(phys(0x302, 0), 0);
    }
    b.map_page(AT, 0x301, DATA);
    for cpu in 0..2 {
        assert_eq!(
            b.m.on_cpu(cpu, || b.m.load64(at(0))),
            1,
            "CPU {cpu} had it cached"
        );
    }
}

#[test]
fn each_cpu_runs_the_round_and_has_its_own_node() {
    let b = bench();
    b.m.set_node(1, NodeId::of(3));
    let seen = std::sync::Mutex::new(Vec::new());
    b.m.on_each_cpu(&|| {
        seen.lock()
            .expect("one thread")
            .push((b.m.this_cpu(), b.m.this_node()))
    });
    let seen = seen.into_inner().expect("one thread");
    assert_eq!(seen, [(0, NodeId::ZERO), (1, NodeId::of(3))]);

    let state = b.m.irq_save();
    assert!(state.0, "interrupts start on");
    let caught = b.m.expect_violation(|| b.m.on_each_cpu(&|| ()));
    assert_eq!(caught, Violation::WaitWithInterruptsOff { cpu: 0 });
    b.m.irq_restore(state);
    b.m.on_each_cpu(&|| ());
}

#[test]
fn an_interrupt_waits_for_a_cpu_that_has_them_off() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let b = bench();
    let (off, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.m.on_cpu(1, || {
                let state = b.m.irq_save();
                off.store(true, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(50));
                assert!(
                    !seen.load(Ordering::SeqCst),
                    "interrupted with interrupts off"
                );
                b.m.irq_restore(state);
            });
        });
        while !off.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        b.m.on_each_cpu(&|| {
            if b.m.this_cpu() == 1 {
                seen.store(true, Ordering::SeqCst);
            }
        });
    });
    assert!(seen.load(Ordering::SeqCst));
}

#[test]
fn injected_failures_come_as_planned() {
    let b = bench();
    let tries = |n: usize| {
        (0..n)
            .map(|_| b.m.inject(FailPoint::PageAlloc))
            .collect::<Vec<_>>()
    };
    assert_eq!(tries(2), [false, false]);
    b.m.fail(FailPoint::PageAlloc, Injection::Kth(2));
    assert_eq!(tries(4), [false, true, false, false]);
    assert_eq!(b.m.hits(FailPoint::PageAlloc), (4, 1));
    b.m.fail(FailPoint::PageAlloc, Injection::From(3));
    assert_eq!(tries(4), [false, false, true, true]);
    assert!(
        !b.m.inject(FailPoint::VmemmapPte),
        "each point has its own plan"
    );
    let random = || {
        b.m.fail(
            FailPoint::PageAlloc,
            Injection::Random {
                chance: 0.5,
                seed: 3,
            },
        );
        tries(64)
    };
    let (one, two) = (random(), random());
    assert_eq!(one, two, "same seed, same failures");
    assert!(one.contains(&true) && one.contains(&false));
}

#[test]
fn events_are_recorded_in_order_and_the_log_is_kept() {
    let b = bench();
    b.m.record_events(true);
    b.m.write_phys(phys(0x300, 0), 5);
    b.m.copy_frame(Pfn::new(0x301), Pfn::new(0x300));
    b.m.on_each_cpu(&|| b.m.flush_page_local(at(0)));
    b.m.mark_freed(Pfn::new(0x300), 2);
    b.m.record_events(false);
    b.m.mark_allocated(Pfn::new(0x300), 2);
    let expected = [
        Event::WritePhys {
            at: phys(0x300, 0),
            value: 5,
        },
        Event::CopyFrame {
            to: Pfn::new(0x301),
            from: Pfn::new(0x300),
        },
        Event::FlushPage { cpu: 0, at: at(0) },
        Event::FlushPage { cpu: 1, at: at(0) },
        Event::Free {
            first: Pfn::new(0x300),
            pages: 2,
        },
    ];
    assert_eq!(b.m.take_events(), expected);
    b.m.log(Level::Warn, format_args!("vmemmap: {}", 7));
    assert_eq!(b.m.take_log(), [(Level::Warn, "vmemmap: 7".to_owned())]);
    assert!(b.m.take_log().is_empty());
}

#[test]
fn sabotage_drops_one_flush() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 1);
    b.m.write_phys(phys(0x301, 0), 2);
    b.map_page(AT, 0x301, DATA);
    b.m.sabotage(Sabotage::DropFlush { cpu: 0, nth: 1 });
    b.m.flush_page_local(at(0));
    assert_eq!(b.m.load64(at(0)), 1);
    assert_eq!(b.m.sabotaged(), 1);
    b.m.flush_page_local(at(0));
    assert_eq!(b.m.load64(at(0)), 2, "only the first one was dropped");
}

#[test]
fn sabotage_of_rounds_copies_and_entries() {
    let b = bench();
    let rounds = || {
        let before = [b.m.tlb_counts(0).all, b.m.tlb_counts(1).all];
        b.m.on_each_cpu(&|| b.m.flush_all_local());
        [
            b.m.tlb_counts(0).all - before[0],
            b.m.tlb_counts(1).all - before[1],
        ]
    };
    b.m.sabotage(Sabotage::DropRound { nth: 2 });
    assert_eq!([rounds(), rounds(), rounds()], [[1, 1], [0, 0], [1, 1]]);
    b.m.sabotage(Sabotage::LocalRoundsOnly);
    assert_eq!(rounds(), [1, 0]);

    b.m.write_phys(phys(0x300, 0), 4);
    b.m.write_phys(phys(0x301, 0), 5);
    b.m.sabotage(Sabotage::SkipCopy { nth: 1 });
    b.m.copy_frame(Pfn::new(0x301), Pfn::new(0x300));
    assert_eq!(b.m.read_phys(phys(0x301, 0)), 5);
    b.m.copy_frame(Pfn::new(0x301), Pfn::new(0x300));
    assert_eq!(b.m.read_phys(phys(0x301, 0)), 4);

    b.m.sabotage(Sabotage::WritableEntries);
    let mask = 0xffff_ffff_ffff_8001;
    b.m.write_phys(phys(0x300, 0), mask);
    assert_eq!(
        b.m.read_phys(phys(0x300, 0)),
        mask,
        "no table entry, although it looks like one"
    );
    b.map_page(AT, 0x300, READ_ONLY);
    assert_eq!(b.m.probe(at(0), Probe::Store), Ok(()));
    assert_eq!(b.m.sabotaged(), 1);
}

#[test]
fn sabotage_flushes_after_the_free() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 1);
    b.map_page(AT, 0x301, DATA);
    b.m.sabotage(Sabotage::FlushAfterFree);
    b.m.flush_page_local(at(0));
    let caught = b.m.expect_violation(|| b.m.mark_freed(Pfn::new(0x300), 1));
    assert!(
        matches!(caught, Violation::FreedWhileCached { cpu: 0, .. }),
        "{caught}"
    );
}

#[test]
fn threads_play_cpus() {
    let b = bench();
    b.map_page(AT, 0x300, DATA);
    b.m.store64(at(0), 0);
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let b = &b;
            scope.spawn(move || {
                b.m.on_cpu(cpu, || {
                    for _ in 0..10_000 {
                        b.m.fetch_add32(at(4), 1);
                    }
                });
            });
        }
    });
    assert_eq!(b.m.load32(at(4)), 20_000);
}
