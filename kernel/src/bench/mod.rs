//! `init=bench`: what things cost, in ticks of the time stamp counter.
//!
//! Under QEMU's `-icount shift=0,sleep=off` a tick is an instruction, and a figure
//! comes out the same on every host. Anywhere else ticks are time, which says
//! little under an emulator.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use mm::addr::Order;
use mm::hugetlb::Hstate;
use mm::page::Page;

use crate::arch::x86_64::tsc;
use crate::console::raw_line;
use crate::metal::Metal;
use crate::state::MM;
use crate::{log, warn};

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

/// Folios in a batch: as many as one TLB flush covers.
const BATCH: u64 = 512;
/// Rounds of each; the cheapest counts.
const ROUNDS: usize = 3;

/// One line of the table.
fn row(what: &str, unit: &str, ticks: u64) {
    raw_line(format_args!("bench: {what:<44} {ticks:>12} per {unit}"));
}

/// Measures everything and prints the table.
pub(crate) fn run() {
    log!(
        "bench: a tick is {} ps",
        1_000_000_000_000 / tsc::hz().max(1)
    );
    let pages = MM.nodes.total_present();
    let ticks = MEMMAP_TICKS.load(Ordering::Relaxed);
    let per_gib = u128::from(ticks) * u128::from(Order::PUD.pages()) / u128::from(pages.max(1));
    row(
        "memmap build",
        "GiB",
        u64::try_from(per_gib).unwrap_or(u64::MAX),
    );
    let overhead = overhead();
    let before = MM.hugetlb.optimizes();
    for h in MM.hugetlb.hstates() {
        for on in [false, true] {
            MM.hugetlb.set_optimize(on);
            for count in [1, BATCH] {
                pool(h, on, count, overhead);
            }
        }
    }
    for on in [false, true] {
        MM.hugetlb.set_optimize(on);
        over_ask(on);
    }
    MM.hugetlb.set_optimize(before);
    compound_head(overhead);
}

/// Asks for all memory and a thousand pages more, which Linux builds have paid for
/// with 35 times the instructions, or with a panic, when HVO was on.
fn over_ask(on: bool) {
    let Some(h) = MM.hugetlb.hstate(Order::PMD) else {
        return;
    };
    let ask = MM.nodes.total_present() / h.order().pages() + 1000;
    let backing = MM.backing();
    let (ticks, got) = timed(|| MM.hugetlb.grow(&Metal, backing, h, None, ask));
    let removed = MM.hugetlb.shrink(&Metal, backing, h, None, got);
    let (name, hvo) = (h.name(), if on { "on" } else { "off" });
    let what = ktest::Text::<48>::of(format_args!("{name}, {ask} asked, {got} got, HVO {hvo}"));
    row(what.as_str(), "page got", ticks / got.max(1));
    if removed < got {
        warn!("bench: {} of {got} pages did not come back", got - removed);
    }
}

/// Grows a pool by `count` folios, or as many as there are, and shrinks it again.
fn pool(h: &Hstate, on: bool, count: u64, overhead: u64) {
    let backing = MM.backing();
    let round = |count| {
        let (grow, added) = timed(|| MM.hugetlb.grow(&Metal, backing, h, None, count));
        let (shrink, removed) = timed(|| MM.hugetlb.shrink(&Metal, backing, h, None, added));
        if removed < added {
            warn!(
                "bench: {} of {added} pages did not come back",
                added - removed
            );
        }
        (grow - overhead, shrink - overhead, added)
    };
    // The first round finds out how many there are. It also makes the shared tail
    // page and splits leaves, which stay split: a cost of its own.
    let (first, _, got) = round(count);
    if got == 0 {
        warn!("bench: no {} page to be had", h.name());
        return;
    }
    let rounds = || (0..ROUNDS).map(|_| round(got));
    let (grow, shrink) = rounds().fold((u64::MAX, u64::MAX), |(grow, shrink), (g, s, _)| {
        (grow.min(g), shrink.min(s))
    });
    let (name, hvo) = (h.name(), if on { "on" } else { "off" });
    for (what, ticks) in [("first alloc", first), ("alloc", grow), ("free", shrink)] {
        let what = ktest::Text::<48>::of(format_args!("{name} {what}, {got} at once, HVO {hvo}"));
        row(what.as_str(), "page", ticks / got);
    }
}

/// Finds the head from every tail of a folio, with HVO on.
fn compound_head(overhead: u64) {
    let Some(h) = MM.hugetlb.hstate(Order::PMD) else {
        return;
    };
    let before = MM.hugetlb.optimizes();
    MM.hugetlb.set_optimize(true);
    let backing = MM.backing();
    let added = MM.hugetlb.grow(&Metal, backing, h, None, 1);
    let folio = MM.nodes.online().find_map(|node| h.take(&Metal, node));
    if let Some(head) = folio {
        let tails = h.order().pages();
        let (ticks, wrong) = timed(|| {
            (1..tails)
                .filter(|&n| black_box(head.nth(n)).compound_head(&Metal) != head)
                .count()
        });
        // The loop itself, to be taken off.
        let (empty, _) = timed(|| {
            (1..tails)
                .filter(|&n| black_box::<Page>(head.nth(n)) == head)
                .count()
        });
        if wrong > 0 {
            warn!("bench: {wrong} tails found another head");
        }
        let ticks = ticks.saturating_sub(empty).saturating_sub(overhead);
        row(
            "compound_head of a tail, HVO on",
            "1000 calls",
            ticks * 1000 / (tails - 1),
        );
        h.put(&Metal, head);
    }
    MM.hugetlb.shrink(&Metal, backing, h, None, added);
    MM.hugetlb.set_optimize(before);
}
