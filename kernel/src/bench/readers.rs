//! How long a reader takes while another CPU folds and unfolds.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::addr::Order;
use mm::hugetlb::Hstate;
use mm::machine::{Processors as _, Testing as _};
use mm::page::Page;

use super::{Name, complain, ratio, row, timed};
use crate::metal::Metal;
use crate::state::MM;

/// Folios whose struct pages are read.
const FOLIOS: u64 = 16;
/// Scans of them in one measurement, which is their time together.
const SCANS: u64 = 500;
/// Measurements of each kind, in turns; the median counts.
const ROUNDS: usize = 5;

/// What the second CPU does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    /// It sleeps.
    Nothing,
    /// It reads struct pages, too, and writes nothing.
    Reads,
    /// It grows and shrinks the pool of the same node, by so many folios at a time.
    Folds(u64),
}

/// Scans alone, beside a CPU that only reads, and beside one that folds and unfolds.
pub(super) fn beside_churn() {
    if Metal.cpus() < 2 {
        return complain(format_args!("readers beside churn: one CPU; use --smp 2"));
    }
    let Some(h) = MM.hugetlb.hstate(Order::PMD) else {
        return;
    };
    let before = MM.hugetlb.optimizes();
    MM.hugetlb.set_optimize(true);
    let added = MM.hugetlb.grow(&Metal, MM.backing(), h, None, FOLIOS);
    let nodes = MM.nodes.online();
    let heads: Vec<Page> = nodes
        .flat_map(|node| core::iter::from_fn(move || h.take(&Metal, node)))
        .collect();
    if heads.is_empty() {
        complain(format_args!("no {} page to read", h.name()));
    } else {
        rows(h, &heads);
    }
    for head in heads {
        h.put(&Metal, head);
    }
    MM.hugetlb.shrink(&Metal, MM.backing(), h, None, added);
    MM.hugetlb.set_optimize(before);
}

fn rows(h: &Hstate, heads: &[Page]) {
    let kinds = [
        Beside::Nothing,
        Beside::Reads,
        Beside::Folds(1),
        Beside::Folds(512),
    ];
    let mut results = [[(0, 0); ROUNDS]; 4];
    for round in 0..ROUNDS {
        for (kind, result) in kinds.iter().zip(&mut results) {
            result[round] = scans_beside(h, heads, *kind);
        }
    }
    let [alone, reads, single, batch] = results.map(|mut result| {
        result.sort_unstable();
        result[ROUNDS / 2]
    });
    let what = "scan beside a CPU that reads; to a scan alone";
    ratio(what, reads.0, alone.0);
    for (count, (ticks, flushes)) in [(1, single), (512, batch)] {
        let what = Name::of(format_args!("scan beside folds and unfolds of {count}"));
        let name = Name::of(format_args!("{what}; to beside reads"));
        ratio(name.as_str(), ticks, reads.0);
        let name = Name::of(format_args!("{what}: flushes"));
        row(name.as_str(), "1000 scans", flushes * 1000 / SCANS);
    }
}

/// Time of all scans by this CPU while the next one does `beside`; flushes meanwhile.
fn scans_beside(h: &Hstate, heads: &[Page], beside: Beside) -> (u64, u64) {
    // Relaxed, all of them: only the end of the job orders what was done in it.
    let stop = AtomicBool::new(false);
    let [time, wrong] = [const { AtomicU64::new(0) }; 2];
    let reader = Metal.this_cpu();
    let other = (reader + 1) % Metal.cpus();
    let flushes = MM.vmemmap.ledger().totals().flushes;
    Metal.run_on_each(&|cpu| {
        if cpu == reader {
            let (ticks, strange) = timed(|| {
                let scan = |_| {
                    Metal.touch_watchdog();
                    scan(h, heads)
                };
                (0..SCANS).map(scan).sum()
            });
            time.store(ticks, Ordering::Relaxed);
            wrong.store(strange, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        } else if cpu == other && beside != Beside::Nothing {
            while !stop.load(Ordering::Relaxed) {
                Metal.touch_watchdog();
                disturb(h, heads, beside);
            }
        }
    });
    let wrong = wrong.into_inner();
    if wrong > 0 {
        complain(format_args!("{wrong} struct pages read wrongly"));
    }
    let flushes = MM.vmemmap.ledger().totals().flushes - flushes;
    (time.into_inner(), flushes)
}

fn disturb(h: &Hstate, heads: &[Page], beside: Beside) {
    match beside {
        Beside::Nothing => {}
        Beside::Reads => {
            scan(h, heads);
        }
        Beside::Folds(count) => {
            let added = MM.hugetlb.grow(&Metal, MM.backing(), h, None, count);
            MM.hugetlb.shrink(&Metal, MM.backing(), h, None, added);
        }
    }
}

/// Reads flags, `compound_info` and count of every struct page of the folios; how
/// many of them are not the head that is held, or a tail of it.
fn scan(h: &Hstate, heads: &[Page]) -> u64 {
    let mut wrong = 0;
    for head in heads {
        wrong += u64::from(!head.is_head(&Metal) || head.ref_count(&Metal) == 0);
        for n in 1..h.order().pages() {
            let tail = head.nth(n);
            let good = tail.compound_head(&Metal) == *head
                && !tail.is_head(&Metal)
                && tail.ref_count(&Metal) == 0;
            wrong += u64::from(!good);
        }
    }
    wrong
}
