//! Waiting with a limit, and what happens when it is reached.
//!
//! A limit is not a time on the clock. On a busy host a CPU of an emulated machine stands still
//! for seconds and is not stuck. Who waits counts the time that it runs itself ([`OwnTime`]);
//! when that is used up it makes sure that the other has run as well, by interrupts that cannot
//! be switched off; and whatever the other finishes in between starts the time anew.

use core::sync::atomic::{AtomicU64, Ordering};

use super::others;
use crate::arch::x86_64::irq;
use crate::arch::x86_64::lapic::{self, Ipi};
use crate::arch::x86_64::percpu::{self, count};
use crate::arch::x86_64::trap::TrapFrame;
use crate::arch::x86_64::tsc::OwnTime;
use crate::panic;

/// Half of the seconds that a CPU may keep others waiting, or not say that it gets on, as on
/// Linux, whose soft lockups take twice this word. 0: for ever. Relaxed: a number by itself.
static THRESH: AtomicU64 = AtomicU64::new(params::WATCHDOG_THRESH);

/// Turns between looks at the clock, which is slow to read.
const TURNS: u32 = 64;

/// Signs of life that a CPU gives before it counts as stuck.
const PROBES: u64 = 8;

/// The word `watchdog_thresh`, in seconds.
#[doc(alias = "watchdog_thresh")]
pub(crate) fn thresh() -> u64 {
    THRESH.load(Ordering::Relaxed)
}

/// Sets what [`thresh`] returns; 0 switches the watchdog off.
pub(crate) fn set_thresh(seconds: u64) {
    THRESH.store(seconds, Ordering::Relaxed);
}

/// The limit in seconds.
#[doc(alias = "get_softlockup_thresh")]
fn limit_seconds() -> u64 {
    thresh() * 2
}

/// Says that this CPU gets on.
pub(crate) fn touch() {
    // Only this CPU writes it: no locked instruction is needed.
    let touched = &percpu::this().touched;
    touched.store(touched.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Who got stuck, if that is known, and in what.
pub(super) struct Stuck {
    pub(super) cpu: Option<usize>,
    pub(super) why: &'static str,
}

/// Spins until `done` returns true.
///
/// # Panics
/// If that takes more of this CPU's time than the limit: `what` was waited for.
pub(crate) fn wait_until(what: &str, done: &mut dyn FnMut() -> bool) {
    let this = percpu::cpu();
    turn_until(done, &|| None, &|_| {
        panic!(
            "watchdog: BUG: soft lockup - CPU#{this} stuck for {}s, waiting for {what}",
            limit_seconds()
        )
    });
}

/// Spins until `done` returns true.
///
/// # Panics
/// If that takes more than the limit, with the words of `stuck`.
pub(super) fn wait(done: &mut dyn FnMut() -> bool, stuck: &dyn Fn() -> Stuck) {
    turn_until(done, &|| stuck().cpu, &|deaf| {
        let Stuck { cpu, why } = stuck();
        let seconds = limit_seconds();
        match cpu {
            Some(cpu) => {
                panic!("watchdog: BUG: soft lockup - CPU#{cpu} stuck for {seconds}s: {why}{deaf}")
            }
            None => panic!("watchdog: BUG: soft lockup - a CPU stuck for {seconds}s: {why}"),
        }
    });
}

/// Waits until `done`, which is about work that `cpu` does.
///
/// # Panics
/// If `cpu` does not say, within the limit, that it gets on.
pub(super) fn wait_for_work(cpu: usize, done: &dyn Fn() -> bool) {
    let touched = || percpu::area(cpu).touched.load(Ordering::Relaxed);
    loop {
        let before = touched();
        let moved = &mut || done() || touched() != before;
        turn_until(moved, &|| Some(cpu), &|deaf| {
            panic!(
                "watchdog: BUG: soft lockup - CPU#{cpu} stuck for {}s in its part of a job{deaf}",
                limit_seconds()
            )
        });
        if done() {
            return;
        }
    }
}

/// What a panic adds about a CPU that shows no sign of life.
const DEAF: &str = ", and takes no NMI";

/// Spins until `done` returns true. If that takes too long, although the CPU that `who` names has
/// run meanwhile, or does not even take an NMI, `give_up` is called with what is to be said of that.
fn turn_until(
    done: &mut dyn FnMut() -> bool,
    who: &dyn Fn() -> Option<usize>,
    give_up: &dyn Fn(&str),
) {
    let mut own = OwnTime::start();
    let mut turns = 0_u32;
    while !done() {
        core::hint::spin_loop();
        turns = turns.wrapping_add(1);
        if !turns.is_multiple_of(TURNS) {
            continue;
        }
        // Who waits is not stuck: what it waits for has this limit of its own.
        touch();
        let limit = limit_seconds() * 1_000_000;
        if limit == 0 || own.micros() < limit {
            continue;
        }
        match who().map_or(Signs::Seen, |cpu| signs_of_life(cpu, done, limit)) {
            Signs::Done => return,
            Signs::Seen => give_up(""),
            Signs::None => give_up(DEAF),
        }
    }
}

/// What [`signs_of_life`] saw.
enum Signs {
    /// It is no longer of interest: what was waited for has come.
    Done,
    /// The CPU runs.
    Seen,
    /// It does not.
    None,
}

/// Whether `cpu` runs: interrupts it [`PROBES`] times, over half of `limit`, by what it cannot
/// switch off, and waits for it to answer each. Ends early when `done`.
fn signs_of_life(cpu: usize, done: &mut dyn FnMut() -> bool, limit: u64) -> Signs {
    let area = percpu::area(cpu);
    for _ in 0..PROBES {
        area.probed.store(true, Ordering::Release);
        lapic::send(area.apic_id(), Ipi::Nmi);
        let mut own = OwnTime::start();
        // An answer may come at once; the next question comes later, so that the answers
        // are not all of one slice of time.
        loop {
            if done() {
                return Signs::Done;
            }
            let (micros, silent) = (own.micros(), area.probed.load(Ordering::Acquire));
            if silent && micros > limit {
                return Signs::None;
            }
            if !silent && micros > limit / (2 * PROBES) {
                break;
            }
            core::hint::spin_loop();
        }
    }
    Signs::Seen
}

/// A non-maskable interrupt. If a panic is under way elsewhere, it stops this CPU.
pub(crate) fn on_nmi(frame: &TrapFrame) {
    if panic::is_under_way_elsewhere() {
        percpu::this()
            .stopped_at
            .store(frame.rip.max(1), Ordering::Release);
        irq::halt_forever();
    }
    // A question of `signs_of_life` is answered by coming here.
    if !percpu::this().probed.swap(false, Ordering::AcqRel) {
        count(&percpu::this().nmis);
    }
}

/// Stops all other CPUs, for a panic, and waits for each to say where it was, a second at most.
#[doc(alias = "nmi_shootdown_cpus")]
#[doc(alias = "trigger_all_cpu_backtrace")]
pub(crate) fn stop_others() {
    if !lapic::is_ready() {
        return;
    }
    for cpu in others() {
        lapic::send(percpu::area(cpu).apic_id(), Ipi::Nmi);
    }
    let mut own = OwnTime::start();
    for cpu in others() {
        while stopped_at(cpu).is_none() && own.micros() < 1_000_000 {
            core::hint::spin_loop();
        }
    }
}

/// Where `cpu` was when [`stop_others`] stopped it.
fn stopped_at(cpu: usize) -> Option<u64> {
    let at = percpu::area(cpu).stopped_at.load(Ordering::Acquire);
    (at != 0).then_some(at)
}

/// Calls `each` for all CPUs but this one with where [`stop_others`] stopped them: `None` if
/// they have not said so.
pub(crate) fn for_each_stopped(each: &mut dyn FnMut(usize, Option<u64>)) {
    for cpu in others() {
        each(cpu, stopped_at(cpu));
    }
}
