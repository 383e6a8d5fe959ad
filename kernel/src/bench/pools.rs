//! What growing and shrinking the pools costs: instructions, flushes, interrupts.

use core::hint::black_box;

use mm::addr::Order;
use mm::hugetlb::Hstate;
use mm::machine::{Processors as _, Testing as _, TlbCounts};
use mm::page::Page;

use super::{Name, complain, overhead, row, timed};
use crate::console;
use crate::metal::Metal;
use crate::state::MM;

/// Folios in a batch: as many as one TLB flush covers.
const BATCH: u64 = 512;
/// Rounds of each; the cheapest counts.
const ROUNDS: usize = 3;

/// Pools of every size by one folio and by a batch, HVO off and on.
pub(super) fn resize() {
    let overhead = overhead();
    for h in MM.hugetlb.hstates() {
        with_hvo_off_and_on(|on| {
            for count in [1, BATCH] {
                pool(h, on, count, overhead);
            }
        });
    }
}

fn with_hvo_off_and_on(mut run: impl FnMut(bool)) {
    let before = MM.hugetlb.optimizes();
    for on in [false, true] {
        MM.hugetlb.set_optimize(on);
        run(on);
    }
    MM.hugetlb.set_optimize(before);
}

/// What an operation took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// On all CPUs together.
    ticks: u64,
    /// Of all TLBs. Each is at most one round of interrupts.
    flushes: u64,
    /// Interrupts sent for them.
    sent: u64,
}

impl Cost {
    const UNKNOWN: Self = Self {
        ticks: u64::MAX,
        flushes: 0,
        sent: 0,
    };

    /// Of `f`, which gives a number of folios.
    fn of(overhead: u64, f: impl FnOnce() -> u64) -> (Self, u64) {
        let (tlb, flushes) = (tlb(), MM.vmemmap.ledger().totals().flushes);
        let (ticks, folios) = timed(f);
        let flushes = MM.vmemmap.ledger().totals().flushes - flushes;
        let tlb = self::tlb().since(tlb);
        if Metal.cpus() > 1 && tlb.rounds != flushes {
            complain(format_args!(
                "{flushes} flushes took {} rounds of interrupts",
                tlb.rounds
            ));
        }
        let cost = Self {
            ticks: ticks.saturating_sub(overhead),
            flushes,
            sent: tlb.sent,
        };
        (cost, folios)
    }

    /// The cheaper of two in time; flushes are those of the dearer.
    fn best(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.min(other.ticks),
            flushes: self.flushes.max(other.flushes),
            sent: self.sent.max(other.sent),
        }
    }
}

/// What all CPUs have done to keep translations true.
fn tlb() -> TlbCounts {
    (0..Metal.cpus()).map(|cpu| Metal.tlb_counts(cpu)).sum()
}

const fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Grows a pool by `count` folios, or as many as there are, and shrinks it again.
fn pool(h: &Hstate, on: bool, count: u64, overhead: u64) {
    let backing = MM.backing();
    let round = |count| {
        let (grow, added) = Cost::of(overhead, || {
            MM.hugetlb.grow(&Metal, backing, h, None, count)
        });
        let (shrink, removed) = Cost::of(overhead, || {
            MM.hugetlb.shrink(&Metal, backing, h, None, added)
        });
        if removed < added {
            complain(format_args!(
                "{} of {added} pages did not come back",
                added - removed
            ));
        }
        (grow, shrink, added)
    };
    // The first round finds out how many there are. It also makes the shared tail
    // page and splits leaves, which stay split: a cost of its own.
    let (first, _, got) = round(count);
    if got == 0 {
        complain(format_args!("no {} page to be had", h.name()));
        return;
    }
    let rounds = || (0..ROUNDS).map(|_| round(got));
    let (grow, shrink) = rounds().fold((Cost::UNKNOWN, Cost::UNKNOWN), |(grow, shrink), round| {
        (grow.best(round.0), shrink.best(round.1))
    });
    let name = |what| {
        let on = on_off(on);
        Name::of(format_args!("{} {what}, {got} at once, HVO {on}", h.name()))
    };
    for (what, cost) in [("first alloc", first), ("alloc", grow), ("free", shrink)] {
        row(name(what).as_str(), "page", cost.ticks / got);
    }
    for (what, cost) in [("alloc", grow), ("free", shrink)] {
        if on || cost.flushes > 0 {
            let name = name(what);
            let name = |what| Name::of(format_args!("{name}: {what}"));
            row(name("flushes").as_str(), "call", cost.flushes);
            row(name("interrupts").as_str(), "call", cost.sent);
        }
    }
}

/// Demotes a free 1 GiB page to 2 MiB ones, HVO off and on.
pub(super) fn demote() {
    let overhead = overhead();
    let Some((h, target)) = MM
        .hugetlb
        .hstate(Order::PUD)
        .and_then(|h| Some((h, MM.hugetlb.demote_target(h)?)))
    else {
        return;
    };
    let backing = MM.backing();
    let round = || {
        let added = MM.hugetlb.grow(&Metal, backing, h, None, 1);
        let (cost, demoted) = Cost::of(overhead, || {
            MM.hugetlb.demote(&Metal, backing, h, None, added)
        });
        let small = demoted * (h.order().pages() / target.order().pages());
        let removed = MM.hugetlb.shrink(&Metal, backing, target, None, small);
        if demoted != 1 || removed != small {
            complain(format_args!(
                "{demoted} of {added} {} pages became smaller ones, {removed} of these came back",
                h.name()
            ));
        }
        cost
    };
    with_hvo_off_and_on(|on| {
        let first = round();
        let again = (0..ROUNDS).fold(Cost::UNKNOWN, |best, _| best.best(round()));
        for (what, cost) in [("first demote", first), ("demote", again)] {
            let name = Name::of(format_args!("{} {what}, HVO {}", h.name(), on_off(on)));
            row(name.as_str(), "page", cost.ticks);
        }
    });
}

/// Asks for all memory and a thousand pages more, which Linux builds have paid for
/// with 35 times the instructions, or with a panic, when HVO was on.
pub(super) fn over_ask() {
    with_hvo_off_and_on(over_ask_once);
}

fn over_ask_once(on: bool) {
    let Some(h) = MM.hugetlb.hstate(Order::PMD) else {
        return;
    };
    let ask = MM.nodes.total_present() / h.order().pages() + 1000;
    let backing = MM.backing();
    // The line about the shortfall may scroll the screen, which costs millions.
    let shown = console::show_up_to(console::Level::Emerg);
    let (cost, got) = Cost::of(0, || MM.hugetlb.grow(&Metal, backing, h, None, ask));
    console::show_up_to(shown);
    let removed = MM.hugetlb.shrink(&Metal, backing, h, None, got);
    let (name, hvo) = (h.name(), on_off(on));
    let what = Name::of(format_args!("{name}, {ask} asked, {got} got, HVO {hvo}"));
    row(what.as_str(), "page got", cost.ticks / got.max(1));
    if on {
        let what = Name::of(format_args!("{what}: flushes"));
        row(what.as_str(), "call", cost.flushes);
    }
    if removed < got {
        complain(format_args!(
            "{} of {got} pages did not come back",
            got - removed
        ));
    }
}

/// Finds the head from every tail of a folio, with HVO on.
pub(super) fn compound_head() {
    let overhead = overhead();
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
            complain(format_args!("{wrong} tails found another head"));
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
