//! Several folios folded at once, and readers on other CPUs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ktest::{Outcome, check_eq, skip};
use lab::layouts::{Spec, samples};
use mm::addr::{Order, PAGE_SIZE, Pfn, VirtAddr};
use mm::machine::Machine;
use mm::page::encoding::*;
use spin::Mutex;

use super::any::{AnyMap, Layout};
use super::each::{FIRST, audit, each_layout, map, ok, range, release};
use suites::Env;

/// Folios of one order side by side, folded in turn, one of them unfolded again: each
/// page is in its own folio all the time, and what is shared is one frame for all, or
/// one of each folio's own.
pub fn folios_side_by_side<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, side_by_side)
}

fn side_by_side<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(mut map) = map(env, layout, Spec::of(range(15)))? else {
        return Ok(());
    };
    if map.support().hvo.is_err() {
        return release(env, map);
    }
    let order = Order::of(11);
    let firsts: Vec<Pfn> = (0..4).map(|n| FIRST.offset(n << 11)).collect();
    for &first in &firsts {
        ok(map.prep(env, first, order), "prep")?;
    }
    for &first in &firsts {
        ok(map.fold(env, first, order), "fold")?;
        all_at_home(env, &*map, &firsts, order)?;
    }
    let less = 4 * (order.pages() * layout.size / PAGE_SIZE - 1);
    check_eq!(map.ledger().saved, less, "frames saved by four folios");
    let tails = u64::from(layout.sharing == Sharing::AcrossNode);
    check_eq!(map.ledger().tails, tails, "shared tails");
    ok(map.unfold(env, firsts[1], order), "unfold the second")?;
    all_at_home(env, &*map, &firsts, order)?;
    ok(map.destroy(env, firsts[1], order), "destroy the second")?;
    check_eq!(map.folio_of(env.m, firsts[1]), None);
    check_eq!(
        map.folio_of(env.m, firsts[2]),
        Some(firsts[2]),
        "its neighbour"
    );
    release(env, map)
}

fn all_at_home<M: Machine>(
    env: &Env<'_, M>,
    map: &dyn AnyMap<M>,
    firsts: &[Pfn],
    order: Order,
) -> Outcome {
    for &first in firsts {
        for n in samples(order).chain([0]) {
            let found = map.folio_of(env.m, first.offset(n));
            check_eq!(found, Some(first), "page {n} of the folio at {first:?}");
        }
    }
    audit(env, map, "side by side")
}

/// While one CPU folds and unfolds a folio, all others look its pages up, over and over:
/// each always leads home.
pub fn readers_beside_folding<M: Machine>(env: &Env<'_, M>) -> Outcome {
    if env.m.cpus() < 2 {
        skip!("one CPU has nobody to read");
    }
    each_layout(env, beside_folding)
}

/// Folds and unfolds.
const ROUNDS: usize = 16;

fn beside_folding<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(mut map) = map(env, layout, Spec::of(range(15)))? else {
        return Ok(());
    };
    if map.support().hvo.is_err() {
        return release(env, map);
    }
    let order = Order::of(11);
    ok(map.prep(env, FIRST, order), "prep")?;
    let pages: Vec<VirtAddr> = [0]
        .into_iter()
        .chain(samples(order))
        .step_by(5)
        .map(|n| map.page(env.m, FIRST.offset(n)))
        .collect();
    let home = (layout.folio)(env.m, pages[0]);
    let map = Mutex::new(map);
    // Relaxed: the end of the job orders what was done in it.
    let (done, reads, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(0);
    env.m.run_on_each(&|cpu| {
        if cpu == 0 {
            // Only this CPU takes the lock.
            let mut map = map.lock();
            for _ in 0..ROUNDS {
                let there = map.fold(env, FIRST, order);
                let back = map.unfold(env, FIRST, order);
                failed.fetch_add(u64::from(there.and(back).is_err()), Ordering::Relaxed);
                env.m.touch_watchdog();
            }
            done.store(true, Ordering::Relaxed);
        }
        while !done.load(Ordering::Relaxed) {
            for &page in &pages {
                let strange = (layout.folio)(env.m, page) != home;
                lost.fetch_add(u64::from(strange), Ordering::Relaxed);
            }
            reads.fetch_add(1, Ordering::Relaxed);
            env.m.touch_watchdog();
        }
    });
    let map = map.into_inner();
    check_eq!(failed.into_inner(), 0, "folds and unfolds that failed");
    check_eq!(
        lost.into_inner(),
        0,
        "pages that led elsewhere, in {reads:?} rounds of reading"
    );
    audit(env, &*map, "after readers")?;
    release(env, map)
}
