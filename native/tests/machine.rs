//! What the machine promises: translations are kept until they are flushed, and rights
//! are the processor's to check.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mm::addr::{PAGE_SIZE, PMD_SIZE, Pfn, VirtAddr};
use mm::machine::{Fault, Memory as _, Probe, Processors as _, Testing as _};
use mm::paging::{self, Level, PteFlags};
use native::Machine;

/// A machine, and frames from the second MiB on for its tables.
struct Bench {
    m: Machine,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let m = Machine::builder().ram(64 << 20).build();
        Self {
            m: m.unwrap_or_else(|why| panic!("{why}")),
            next: 256,
        }
    }

    /// Maps `frame` at `at`, or maps what was there elsewhere; flushes nothing.
    fn map(&mut self, at: VirtAddr, frame: u64, level: Level, flags: PteFlags) {
        let (m, root) = (&self.m, self.m.root());
        if let Ok((_, owed)) = paging::unmap(m, root, at, level) {
            owed.ignore("the test flushes, or shows what happens if nobody does");
        }
        let next = &mut self.next;
        let mut table = || {
            *next += 1;
            Some(Pfn::new(*next))
        };
        let mapped = paging::map(m, root, at, Pfn::new(frame), level, flags, &mut table);
        assert_eq!(mapped, Ok(()));
    }
}

const A: u64 = 1024;
const B: u64 = 1536;

#[test]
fn stale_until_flushed() {
    let mut bench = Bench::new();
    let at = bench.m.scratch().start;
    bench.m.write_phys(Pfn::new(A).phys(), 0xa);
    bench.m.write_phys(Pfn::new(B).phys(), 0xb);
    bench.map(at, A, Level::Pte, PteFlags::KERNEL);
    assert_eq!(bench.m.load64(at), 0xa, "present without a flush");
    bench.map(at, B, Level::Pte, PteFlags::KERNEL);
    assert_eq!(bench.m.load64(at), 0xa, "no flush, so still the old frame");
    bench.m.flush_page_local(at.offset(PAGE_SIZE));
    assert_eq!(bench.m.load64(at), 0xa, "another page's flush");
    bench.m.flush_page_local(at);
    assert_eq!(bench.m.load64(at), 0xb);
    let (_, owed) = paging::unmap(&bench.m, bench.m.root(), at, Level::Pte).expect("mapped");
    assert_eq!(bench.m.load64(at), 0xb, "unmapped and not flushed");
    owed.flush(&bench.m);
    assert_eq!(bench.m.probe(at, Probe::Load), Err(Fault { at, code: 0 }));
    assert_eq!(bench.m.probe(at, Probe::Store), Err(Fault { at, code: 0 }));
}

#[test]
fn a_large_leaf_is_flushed_by_any_address_under_it() {
    let mut bench = Bench::new();
    let at = bench.m.scratch().start.offset(PMD_SIZE);
    let far = PMD_SIZE - 8;
    bench.m.write_phys(Pfn::new(A).phys().offset(far), 0xa);
    bench.m.write_phys(Pfn::new(B).phys().offset(far), 0xb);
    bench.map(at, A, Level::Pmd, PteFlags::KERNEL);
    assert_eq!(bench.m.load64(at.offset(far)), 0xa);
    assert_eq!(bench.m.cached(), [0, 1, 0]);
    bench.map(at, B, Level::Pmd, PteFlags::KERNEL);
    assert_eq!(bench.m.load64(at.offset(far)), 0xa);
    bench.m.flush_page_local(at.offset(5 * PAGE_SIZE));
    assert_eq!(bench.m.load64(at.offset(far)), 0xb);
}

#[test]
fn read_only_is_the_processors_doing() {
    let mut bench = Bench::new();
    let at = bench.m.scratch().start;
    bench.map(at, A, Level::Pte, PteFlags::KERNEL_RO);
    let code = Fault::WRITE_TO_READ_ONLY;
    let writes = [
        Probe::Store,
        Probe::CmpxchgFailing,
        Probe::XaddZero,
        Probe::Bts,
    ];
    for how in writes {
        assert_eq!(bench.m.probe(at, how), Err(Fault { at, code }), "{how:?}");
    }
    assert_eq!(bench.m.probe(at, Probe::Load), Ok(()));
    // A stale right is a right; one that was given is none before the flush.
    bench.map(at, A, Level::Pte, PteFlags::KERNEL);
    assert_eq!(bench.m.probe(at, Probe::Store), Err(Fault { at, code }));
    bench.m.flush_all_local();
    assert_eq!(bench.m.probe(at, Probe::Store), Ok(()));
    bench.map(at, A, Level::Pte, PteFlags::KERNEL_RO);
    assert_eq!(bench.m.probe(at, Probe::Store), Ok(()));
    bench.m.flush_all_local();
    assert_eq!(bench.m.probe(at, Probe::Store), Err(Fault { at, code }));
}

/// Work for another CPU may take a lock, and that CPU waits with its own until it is done.
#[test]
fn work_for_another_cpu_has_interrupts_off() {
    let m = Machine::builder().ram(64 << 20).cpus(2).build();
    let m = m.unwrap_or_else(|why| panic!("{why}"));
    let (at_work, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let work = || {
        let irq = m.irq_save();
        if m.this_cpu() == 1 {
            at_work.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            over.store(true, Ordering::SeqCst);
        }
        m.irq_restore(irq);
    };
    m.run_on_each(&|cpu| {
        if cpu == 0 {
            m.on_each_cpu(&work);
            return;
        }
        m.wait_until("work", &mut || at_work.load(Ordering::SeqCst));
        let irq = m.irq_save();
        assert!(over.load(Ordering::SeqCst), "interrupted with them off");
        m.irq_restore(irq);
    });
    // On again everywhere, or this would wait in vain.
    m.on_each_cpu(&|| ());
}

#[test]
fn too_many_mappings_are_refused_with_the_files_name() {
    let refused = native::limits::need_mappings(u64::from(u32::MAX) * 2);
    let text = refused.expect_err("more than an int").to_string();
    assert!(text.contains("/proc/sys/vm/max_map_count"), "{text}");
    assert!(text.contains("8589935590"), "{text}");
}
