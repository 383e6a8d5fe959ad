//! `init=bench`, and the command `bench`: what things cost.
//!
//! Benchmarks are in groups ([`GROUPS`]), chosen by name. A group counts in one of two
//! ways, and whoever starts the machine knows which of them its clock is good for:
//!
//! - instructions: ticks of the time stamp counter, which under QEMU's `-icount
//!   shift=0,sleep=off` are instructions: figures come out the same on every host.
//!   They are those of *all* CPUs between start and end. Sleeping CPUs execute none;
//!   while one waits for the others, its turns count too.
//! - time: ratios of times within one run: what instructions cannot tell, because an
//!   address translation that is missing costs none.

#[cfg(feature = "lab")]
mod layouts;
mod pools;
mod readers;
mod tlb;

use core::sync::atomic::{AtomicU64, Ordering};

use ktest::{Text, glob};
use mm::addr::Order;
use mm::machine::Processors as _;

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

/// What the figures of a group are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Figures {
    /// Ticks, for a clock that counts instructions.
    Instructions,
    /// Ratios of times.
    Time,
}

impl Figures {
    /// What `bench=` calls all groups of the kind.
    const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Time => "time",
        }
    }
}

/// Benchmarks that are run together.
struct Group {
    name: &'static str,
    figures: Figures,
    /// What its rows say, for `bench list`.
    about: &'static str,
    run: fn(),
}

const fn group(name: &'static str, figures: Figures, about: &'static str, run: fn()) -> Group {
    Group {
        name,
        figures,
        about,
        run,
    }
}

/// All groups, in the order in which they run. A new one is one line here.
#[rustfmt::skip]
const GROUPS: &[Group] = &[
    group("memmap", Figures::Instructions, "building the memmap at boot", memmap),
    group("calls", Figures::Instructions, "a call of all CPUs", tlb::call),
    group("pools", Figures::Instructions, "growing and shrinking pools, HVO off and on", pools::resize),
    group("demote", Figures::Instructions, "1 GiB pages become 2 MiB pages, HVO off and on", pools::demote),
    group("overask", Figures::Instructions, "asking for more huge pages than fit", pools::over_ask),
    group("compound_head", Figures::Instructions, "from a tail to its head", pools::compound_head),
    #[cfg(feature = "lab")]
    group("layouts", Figures::Instructions, "from a page to its folio, in every layout", layouts::lookups),
    group("tlb", Figures::Time, "INVLPG against a full flush", tlb::crossing),
    group("readers", Figures::Time, "reading struct pages beside folding", readers::beside_churn),
];

/// Whether the value of `bench=` or the argument of `bench` says `group`.
fn chooses(what: &str, group: &Group) -> bool {
    what.split(',').any(|pattern| matches(pattern, group))
}

fn matches(pattern: &str, group: &Group) -> bool {
    pattern == group.figures.name() || glob(pattern, group.name)
}

/// Names of groups, and the words that mean several.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let words = [Figures::Instructions.name(), Figures::Time.name(), "list"];
    words
        .into_iter()
        .chain(GROUPS.iter().map(|group| group.name))
}

/// Measures what `what` says and prints the table: patterns with commas between them, in
/// which `*` and `?` stand for what they do in `selftest=`. `instructions` and `time` are all
/// groups that count so; `list` prints their names.
///
/// # Errors
/// A pattern that no group has, with nothing measured.
pub(crate) fn run(what: &str) -> Result<(), &str> {
    if what == "list" {
        for group in GROUPS {
            let (name, figures, about) = (group.name, group.figures.name(), group.about);
            raw_line(format_args!("bench: {name:<16} {figures:<13} {about}"));
        }
        return Ok(());
    }
    let unknown = |pattern: &&str| !GROUPS.iter().any(|group| matches(pattern, group));
    if let Some(pattern) = what.split(',').find(unknown) {
        return Err(pattern);
    }
    log!(
        "bench: a tick is {} ps; {} CPUs",
        1_000_000_000_000 / tsc::hz().max(1),
        Metal.cpus()
    );
    for group in GROUPS.iter().filter(|group| chooses(what, group)) {
        (group.run)();
    }
    Ok(())
}

fn memmap() {
    let pages = MM.nodes.total_present();
    let ticks = MEMMAP_TICKS.load(Ordering::Relaxed);
    let per_gib = u128::from(ticks) * u128::from(Order::PUD.pages()) / u128::from(pages.max(1));
    row(
        "memmap build",
        "GiB",
        u64::try_from(per_gib).unwrap_or(u64::MAX),
    );
}

/// A measurement that could not be made, or is not to be trusted.
pub(crate) fn complain(why: core::fmt::Arguments<'_>) {
    console::log(Level::Warn, format_args!("bench: {why}"));
}
