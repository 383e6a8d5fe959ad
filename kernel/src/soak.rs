//! `init=soak`: all CPUs churn for as long as asked, with audits in between.
//!
//! What they do is in `suites::churn`. Here is the clock, what is said meanwhile, and
//! the end. The choices of a CPU follow from the seed; how the CPUs overlap does not.

use core::sync::atomic::{AtomicU64, Ordering};

use ktest::{Outcome, Stop, check, check_eq};
use mm::machine::{Processors as _, Testing as _, TlbCounts};
use params::Soak;
use suites::churn::Churn;
use suites::vmemmap_audit;

use crate::arch::x86_64::exit::Verdict;
use crate::arch::x86_64::tsc;
use crate::console::{self, Level, raw_line};
use crate::metal::Metal;
use crate::state::{self, MM};

/// A line of progress at least this often, in milliseconds; in a short soak three times.
const PROGRESS: u64 = 10_000;
/// An audit at least this often, in milliseconds; in a short soak twice.
const AUDIT: u64 = 30_000;

/// Soaks, and says what came of it.
pub(crate) fn run(soak: Soak) -> Verdict {
    let (cpus, nodes) = (Metal.cpus(), MM.nodes.online().count());
    raw_line(format_args!(
        "soak: {} s on {cpus} CPUs and {nodes} nodes, soak_seed={}",
        soak.seconds, soak.seed
    ));
    // A pool that cannot grow says so, which is most of what happens here.
    let shown = console::show_up_to(Level::Emerg);
    let mut audits = 0;
    let outcome = churn(soak, &mut audits);
    console::show_up_to(shown);
    match outcome {
        Ok(()) => {
            raw_line(format_args!(
                "soak: ended as it began, {audits} audits found nothing"
            ));
            Verdict::Pass
        }
        Err(Stop::Failed(failure)) => {
            console::result_line(Level::Warn, format_args!("soak: failed: {failure}"));
            Verdict::Fail
        }
        Err(Stop::Skipped(reason)) => {
            console::result_line(Level::Warn, format_args!("soak: failed: {reason}"));
            Verdict::Fail
        }
    }
}

/// Milliseconds since boot.
fn millis() -> u64 {
    tsc::micros() / 1000
}

fn churn(soak: Soak, audits: &mut u64) -> Outcome {
    let env = state::env();
    let (from, all) = (millis(), soak.seconds * 1000);
    let churn = Churn::new(&env, soak.seed);
    let progress = Progress::new(from, PROGRESS.min(all / 3));
    audit(audits)?;
    while millis() - from < all {
        let until = (from + all).min(millis() + AUDIT.min(all / 2));
        churn.round(&|| {
            let now = millis();
            progress.say(&churn, now, *audits);
            now < until
        })?;
        audit(audits)?;
    }
    progress.last(&churn, millis(), *audits);
    churn.finish()?;
    audit(audits)
}

/// While all CPUs stand still: tables, struct pages, free lists and the ledger agree,
/// and every flush that was owed has been paid.
fn audit(audits: &mut u64) -> Outcome {
    let report = vmemmap_audit::run(&state::env())?;
    check!(report.is_ok(), "{report}");
    check_eq!(mm::paging::unspent_flushes(), 0, "flushes owed");
    *audits += 1;
    Ok(())
}

/// Says now and then how it goes. One CPU does.
struct Progress {
    from: u64,
    every: u64,
    /// When the next line is due, in milliseconds. Relaxed: one CPU's.
    next: AtomicU64,
    /// Time and operations of the last line. Relaxed: likewise.
    last: [AtomicU64; 2],
    tlb: TlbCounts,
}

impl Progress {
    fn new(from: u64, every: u64) -> Self {
        Self {
            from,
            every,
            next: AtomicU64::new(from + every),
            last: [AtomicU64::new(from), AtomicU64::new(0)],
            tlb: tlb(),
        }
    }

    /// A line, if one is due.
    fn say(&self, churn: &Churn<'_, Metal>, now: u64, audits: u64) {
        if now >= self.next.load(Ordering::Relaxed) {
            self.next.store(now + self.every, Ordering::Relaxed);
            self.line(churn, now, audits);
        }
    }

    fn line(&self, churn: &Churn<'_, Metal>, now: u64, audits: u64) {
        let operations = churn.operations();
        let [time, before] = &self.last;
        let took = now - time.swap(now, Ordering::Relaxed);
        let done = operations - before.swap(operations, Ordering::Relaxed);
        let tlb = tlb().since(self.tlb);
        raw_line(format_args!(
            "soak: {:>4} s: {operations} operations, {}/s; {} folded; {} flushes, {} IPIs; {audits} audits",
            (now - self.from) / 1000,
            done * 1000 / took.max(1),
            MM.vmemmap.ledger().totals().folded,
            MM.vmemmap.ledger().totals().flushes,
            tlb.sent,
        ));
    }

    /// The last line, and what each CPU did.
    fn last(&self, churn: &Churn<'_, Metal>, now: u64, audits: u64) {
        self.line(churn, now, audits);
        for (cpu, done) in churn.operations_by_cpu().enumerate() {
            let TlbCounts {
                pages,
                all,
                rounds,
                sent,
                received,
            } = Metal.tlb_counts(cpu);
            raw_line(format_args!(
                "soak: CPU {cpu}: {done} operations; {rounds} rounds started, {sent} IPIs sent, \
                 {received} rounds of others; {pages} INVLPGs, {all} full flushes"
            ));
        }
    }
}

/// What all CPUs have done to keep translations true.
fn tlb() -> TlbCounts {
    (0..Metal.cpus()).map(|cpu| Metal.tlb_counts(cpu)).sum()
}
