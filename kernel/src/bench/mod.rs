//! `init=bench`: what things cost.
//!
//! With `bench=instructions`, in ticks of the time stamp counter, which under QEMU's
//! `-icount shift=0,sleep=off` are instructions: figures come out the same on every host.
//! They are those of *all* CPUs between start and end. Sleeping CPUs execute none; while
//! one waits for the others, its turns count too.
//!
//! With `bench=time`, as ratios of times within one run: what instructions cannot
//! tell, because an address translation that is missing costs none.

mod pools;
mod readers;
mod tlb;

use core::sync::atomic::{AtomicU64, Ordering};

use ktest::Text;
use mm::addr::Order;
use mm::cmdline::Bench;
use mm::machine::Machine as _;

use crate::arch::x86_64::tsc;
use crate::console::{self, Level, raw_line};
use crate::log;
use crate::metal::Metal;
use crate::state::MM;

// Ticks that building the memmap took. Relaxed: written once, at boot.
static MEMMAP_TICKS: AtomicU64 = AtomicU64::new(0);

/// Runs `f` as the building of the memmap, which happens once.
pub(crate) fn memmap_build<R>(f: impl FnOnce() -> R) -> R {
    let (ticks, result) = timed(f);
    MEMMAP_TICKS.store(ticks, Ordering::Relaxed);
    result
}

fn timed<R>(f: impl FnOnce() -> R) -> (u64, R) {
    let from = tsc::cycles();
    let result = f();
    (tsc::cycles() - from, result)
}

/// What reading the counter twice costs by itself.
fn overhead() -> u64 {
    (0..16).map(|_| timed(|| ()).0).min().unwrap_or(0)
}

/// A row's name.
type Name = Text<64>;

/// One line of the table.
fn row(what: &str, unit: &str, figure: u64) {
    raw_line(format_args!("bench: {what:<52} {figure:>12} per {unit}"));
}

/// A line of the table of times: how many times `whole` `part` is.
fn ratio(what: &str, part: u64, whole: u64) {
    let hundredths = part * 100 / whole.max(1);
    raw_line(format_args!(
        "bench: {what:<52} {:>9}.{:02} times",
        hundredths / 100,
        hundredths % 100
    ));
}

/// Measures what `bench` says and prints the table.
pub(crate) fn run(bench: Bench) {
    log!(
        "bench: a tick is {} ps; {} CPUs",
        1_000_000_000_000 / tsc::hz().max(1),
        Metal.cpus()
    );
    match bench {
        Bench::Instructions => instructions(),
        Bench::Time => {
            tlb::crossing();
            readers::beside_churn();
        }
    }
}

fn instructions() {
    let pages = MM.nodes.total_present();
    let ticks = MEMMAP_TICKS.load(Ordering::Relaxed);
    let per_gib = u128::from(ticks) * u128::from(Order::PUD.pages()) / u128::from(pages.max(1));
    row(
        "memmap build",
        "GiB",
        u64::try_from(per_gib).unwrap_or(u64::MAX),
    );
    tlb::call();
    pools::all();
}

/// A measurement that could not be made, or is not to be trusted.
fn complain(why: core::fmt::Arguments<'_>) {
    console::log(Level::Warn, format_args!("bench: {why}"));
}
