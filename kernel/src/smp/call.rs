//! Calls: every CPU interrupts what it does, runs a closure, and is waited for.
//!
//! A caller leaves its number with each other CPU, and interrupts those on the way to which
//! no interrupt is yet. Two CPUs may call each other at once: whoever waits has interrupts on.
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
/// See [`mm::machine::Processors::on_each_cpu`].
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
    let not_taken = |cpu: &usize| percpu::area(*cpu).callers.contains(this);
    watchdog::wait(
        // Acquire: pairs with the release of each CPU that has run it.
        &mut || left.load(Ordering::Acquire) == 0,
        &|| match others().find(not_taken) {
            Some(cpu) => Stuck {
                cpu: Some(cpu),
                why: "does not take a call",
            },
            None => Stuck {
                cpu: None,
                why: "does not finish a call",
            },
        },
    );
}

/// Leaves `work` for the others. It lives until `left` is 0.
fn send(work: &Work<'_>) {
    let this = percpu::this();
    let cpu_number = percpu::cpu();
    let at = ptr::from_ref(work).cast_mut().cast();
    this.work.store(at, Ordering::Relaxed);
    let count_others = online() - 1;
    let left = u32::try_from(count_others).expect("at most MAX_CPUS");
    this.left.store(left, Ordering::Relaxed);
    count(&this.rounds);
    for cpu in others() {
        let other = percpu::area(cpu);
        // Release: pairs with `serve`, which must see `work` and all that came before
        // the call.
        other.callers.set(cpu_number);
        // Set behind the number: who finds it set knows that the other has yet to look. A
        // locked instruction, so also ahead of the interrupt. AcqRel: pairs with `serve`.
        if !other.called.swap(true, Ordering::AcqRel) {
            count(&this.sent);
            lapic::send(other.apic_id(), Ipi::Fixed(CALL_VECTOR));
        }
    }
}

/// Runs what other CPUs have left for this one. Interrupts are off.
pub(super) fn serve() {
    let this = percpu::this();
    // Before the look at `callers`: a caller from now on sends an interrupt of its own. AcqRel:
    // pairs with `send`, so a caller that sent none is seen below.
    this.called.swap(false, Ordering::AcqRel);
    this.callers.take(online(), &mut |caller| {
        let caller = percpu::area(caller);
        let work = caller.work.load(Ordering::Relaxed).cast::<Work<'_>>();
        // SAFETY: INV-10: the caller stored a pointer to its reference before it set its bit,
        // and waits, reference and closure alive, until `left` below says that this
        // CPU is done.
        let work = unsafe { *work };
        work();
        count(&this.received);
        // Release: the caller must see what the work did.
        caller.left.fetch_sub(1, Ordering::Release);
    });
}
