//! Jobs: work for all CPUs at once, as ordinary code.
//!
//! A CPU without a job sleeps. A job is announced by its number; a CPU that has
//! finished says so by the same number.
#![expect(unsafe_code, reason = "a closure of the caller is run by other CPUs")]

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use x86_64::instructions::interrupts;

use super::{online, others, watchdog};
use crate::arch::x86_64::lapic::{self, Ipi, WAKE_VECTOR};
use crate::arch::x86_64::percpu;

type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Number of the job announced last. Released after `WORK`, acquired by whoever runs it.
static ANNOUNCED: AtomicU64 = AtomicU64::new(0);
static WORK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// Whether a job is under way.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Runs `work(cpu)` on every online CPU at once and waits for all. See
/// [`mm::machine::Testing::run_on_each`].
///
/// # Panics
/// If a job is under way.
pub(crate) fn run_on_each(work: Work<'_>) {
    assert!(
        !BUSY.swap(true, Ordering::Acquire),
        "BUG: a job for all CPUs within a job for all CPUs"
    );
    WORK.store(ptr::from_ref(&work).cast_mut().cast(), Ordering::Relaxed);
    let job = ANNOUNCED.load(Ordering::Relaxed) + 1;
    ANNOUNCED.store(job, Ordering::Release);
    for cpu in others() {
        lapic::send(percpu::area(cpu).apic_id(), Ipi::Fixed(WAKE_VECTOR));
    }
    work(percpu::cpu());
    wait_for(job, 0);
    BUSY.store(false, Ordering::Release);
}

/// Waits until CPUs `first..` other than this one have finished `job`.
fn wait_for(job: u64, first: usize) {
    let this = percpu::cpu();
    for cpu in (first..online()).filter(|&cpu| cpu != this) {
        // Acquire: what the CPU's part did is seen.
        let done = || percpu::area(cpu).job.load(Ordering::Acquire) == job;
        watchdog::wait_for_work(cpu, &done);
    }
}

/// What a CPU that has been started does for ever.
#[doc(alias = "cpu_startup_entry")]
pub(super) fn idle() -> ! {
    let this = percpu::this();
    loop {
        interrupts::disable();
        // Acquire: pairs with the announcement, so `WORK` is its work.
        let job = ANNOUNCED.load(Ordering::Acquire);
        if job == this.job.load(Ordering::Relaxed) {
            // A wake-up between the look and the sleep is not lost: interrupts come on
            // with the instruction that sleeps.
            interrupts::enable_and_hlt();
            continue;
        }
        interrupts::enable();
        let work = WORK.load(Ordering::Relaxed).cast::<Work<'_>>();
        // SAFETY: INV-10: the announcer waits, reference and closure alive, until every CPU
        // has said below that it is done.
        let work = unsafe { *work };
        work(percpu::cpu());
        this.job.store(job, Ordering::Release);
    }
}

/// A CPU that has come up late has finished all jobs of before.
pub(super) fn join() {
    let job = ANNOUNCED.load(Ordering::Acquire);
    percpu::this().job.store(job, Ordering::Relaxed);
}
