//! Waiting with a limit, and what happens when it is reached.

use core::fmt;
use core::sync::atomic::Ordering;

use super::{online, others};
use crate::arch::x86_64::lapic::{self, Ipi};
use crate::arch::x86_64::percpu::{self, count};
use crate::arch::x86_64::trap::TrapFrame;
use crate::arch::x86_64::{irq, tsc};
use crate::panic;

/// How long a CPU may keep others waiting, or not say that it gets on.
#[doc(alias = "watchdog_thresh")]
pub(crate) const LIMIT_SECONDS: u64 = 10;

/// Turns between looks at the clock, which is slow to read.
const TURNS: u32 = 64;

fn limit() -> u64 {
    tsc::hz() * LIMIT_SECONDS
}

/// Says that this CPU gets on.
pub(crate) fn touch() {
    percpu::this()
        .touched
        .store(tsc::cycles(), Ordering::Relaxed);
}

/// Gives every CPU its time anew.
pub(super) fn touch_all() {
    let now = tsc::cycles();
    for cpu in 0..online() {
        percpu::area(cpu).touched.store(now, Ordering::Relaxed);
    }
}

/// Who got stuck, and in what.
pub(super) struct Stuck(ktest::Text<16>, &'static str);

impl Stuck {
    pub(super) fn of(who: fmt::Arguments<'_>, why: &'static str) -> Self {
        Self(ktest::Text::of(who), why)
    }
}

/// Turns in a circle until `done`.
///
/// # Panics
/// If that takes [`LIMIT_SECONDS`]: `what` was waited for.
pub(crate) fn wait_until(what: &str, done: &mut dyn FnMut() -> bool) {
    let this = percpu::cpu();
    turn_until(done, &|| {
        panic!(
            "watchdog: BUG: soft lockup - CPU#{this} stuck for {LIMIT_SECONDS}s, waiting for {what}"
        )
    });
}

/// Turns in a circle until `done`.
///
/// # Panics
/// If that takes [`LIMIT_SECONDS`], with the words of `stuck`.
pub(super) fn wait(done: &mut dyn FnMut() -> bool, stuck: &dyn Fn() -> Stuck) {
    turn_until(done, &|| {
        let Stuck(who, why) = stuck();
        panic!(
            "watchdog: BUG: soft lockup - {} stuck for {LIMIT_SECONDS}s: {why}",
            who.as_str()
        )
    });
}

fn turn_until(done: &mut dyn FnMut() -> bool, give_up: &dyn Fn()) {
    let from = tsc::cycles();
    let mut turns = 0_u32;
    while !done() {
        core::hint::spin_loop();
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS)
            && tsc::hz() > 0
            && tsc::cycles().wrapping_sub(from) > limit()
        {
            give_up();
        }
    }
    // What waits long has not got stuck itself.
    if turns != 0 {
        touch();
    }
}

/// Waits until `done`, which is about work that `cpu` does.
///
/// # Panics
/// If `cpu` does not say for [`LIMIT_SECONDS`] that it gets on.
pub(super) fn wait_for_work(cpu: usize, done: &dyn Fn() -> bool) {
    let mut turns = 0_u32;
    while !done() {
        core::hint::spin_loop();
        turns = turns.wrapping_add(1);
        let touched = percpu::area(cpu).touched.load(Ordering::Relaxed);
        // Counters of different CPUs may differ a little: behind is not ahead by ages.
        let since = tsc::cycles().saturating_sub(touched);
        if turns.is_multiple_of(TURNS) && tsc::hz() > 0 && since > limit() {
            panic!(
                "watchdog: BUG: soft lockup - CPU#{cpu} stuck for {LIMIT_SECONDS}s in its part of a job"
            );
        }
    }
}

/// A non-maskable interrupt. If a panic is under way elsewhere, it stops this CPU.
pub(crate) fn on_nmi(frame: &TrapFrame) {
    if panic::is_under_way_elsewhere() {
        percpu::this()
            .stopped_at
            .store(frame.rip.max(1), Ordering::Release);
        irq::halt_forever();
    }
    count(&percpu::this().nmis);
}

/// Stops all other CPUs, for a panic, and calls `each` with where each of them was:
/// `None` if it does not say so within a second.
#[doc(alias = "nmi_shootdown_cpus")]
#[doc(alias = "trigger_all_cpu_backtrace")]
pub(crate) fn stop_others(each: &mut dyn FnMut(usize, Option<u64>)) {
    if !lapic::is_ready() {
        return;
    }
    for cpu in others() {
        lapic::send(percpu::area(cpu).apic_id(), Ipi::Nmi);
    }
    let from = tsc::cycles();
    for cpu in others() {
        let at = || {
            let at = percpu::area(cpu).stopped_at.load(Ordering::Acquire);
            (at != 0).then_some(at)
        };
        while at().is_none() && tsc::cycles().wrapping_sub(from) < tsc::hz() {
            core::hint::spin_loop();
        }
        each(cpu, at());
    }
}
