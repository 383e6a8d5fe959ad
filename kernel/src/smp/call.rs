//! Calls: every CPU interrupts what it does, runs a closure, and is waited for.
//!
//! A caller leaves a bit with each other CPU and interrupts those that had none. Two
//! CPUs may call each other at once: whoever waits has interrupts on.
#![expect(unsafe_code, reason = "a closure of the caller is run by other CPUs")]

use core::ptr;
use core::sync::atomic::Ordering;

use super::watchdog::{self, Stuck};
use super::{online, others};
use crate::arch::x86_64::irq;
use crate::arch::x86_64::lapic::{self, CALL_VECTOR, Ipi};
use crate::arch::x86_64::percpu::{self, count};

type Work<'a> = &'a (dyn Fn() + Sync);

/// Runs `work` on every online CPU, with interrupts off there, and waits for all.
/// See [`mm::machine::Machine::on_each_cpu`].
#[doc(alias = "smp_call_function_many_cond")]
pub(crate) fn on_each_cpu(work: Work<'_>) {
    let alone = online() == 1;
    if !alone {
        debug_assert!(irq::are_on(), "waiting for CPUs that may wait for this one");
        send(&work);
    }
    let irq = irq::save();
    work();
    irq::restore(irq);
    if !alone {
        wait();
    }
}

/// Waits until all others have run what this CPU called them for.
fn wait() {
    let this = percpu::cpu();
    let left = &percpu::area(this).left;
    let not_taken = |cpu: &usize| percpu::area(*cpu).calls.load(Ordering::Relaxed) >> this & 1 != 0;
    watchdog::wait(
        // Acquire: pairs with the release of each CPU that has run it.
        &mut || left.load(Ordering::Acquire) == 0,
        &|| match others().find(not_taken) {
            Some(cpu) => Stuck::of(format_args!("CPU#{cpu}"), "does not take a call"),
            None => Stuck::of(format_args!("a CPU"), "does not finish a call"),
        },
    );
}

/// Leaves `work` for the others. It lives until `left` is 0.
fn send(work: &Work<'_>) {
    let this = percpu::this();
    let bit = 1 << percpu::cpu();
    let at = ptr::from_ref(work).cast_mut().cast();
    this.work.store(at, Ordering::Relaxed);
    let count_others = online() - 1;
    let left = u32::try_from(count_others).expect("at most MAX_CPUS");
    this.left.store(left, Ordering::Relaxed);
    count(&this.rounds);
    for cpu in others() {
        let other = percpu::area(cpu);
        // Release: pairs with `serve`, which must see `work` and all that came before
        // the call. A locked instruction, so also ahead of the interrupt.
        let before = other.calls.fetch_or(bit, Ordering::AcqRel);
        if before == 0 {
            // Else an interrupt is on its way to it already.
            count(&this.sent);
            lapic::send(other.apic_id(), Ipi::Fixed(CALL_VECTOR));
        }
    }
}

/// Runs what other CPUs have left for this one. Interrupts are off.
pub(super) fn serve() {
    let this = percpu::this();
    // Acquire: pairs with `send`.
    let mut callers = this.calls.swap(0, Ordering::AcqRel);
    while callers != 0 {
        let caller = percpu::area(callers.trailing_zeros() as usize);
        callers &= callers - 1;
        let work = caller.work.load(Ordering::Relaxed).cast::<Work<'_>>();
        // SAFETY: INV-10: the caller stored a pointer to its reference before it set its bit,
        // and waits, reference and closure alive, until `left` below says that this
        // CPU is done.
        let work = unsafe { *work };
        work();
        count(&this.received);
        // Release: the caller must see what the work did.
        caller.left.fetch_sub(1, Ordering::Release);
    }
}
