//! HVO in every layout that has it.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq};
use lab::layouts::{LayoutError, PageBits, Spec, samples};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::machine::{FailPoint, Fault, Machine, Probe};
use mm::page::encoding::*;

use super::any::{AnyMap, Layout};
use super::each::{FIRST, audit, each_layout, map, ok, range, release};
use suites::Env;

/// What a reader may look at: whose page it is, and its words.
type Seen = (Option<Pfn>, bool, [u64; 8]);

/// What readers see of the sampled pages of the folio, the head included.
fn seen<M: Machine>(env: &Env<'_, M>, map: &dyn AnyMap<M>, order: Order) -> Vec<(u64, Seen)> {
    let look = |n: u64| {
        let pfn = FIRST.offset(n);
        let page = map.page(env.m, pfn);
        let words = map.words(env.m, pfn);
        (
            n,
            (map.folio_of(env.m, pfn), map.is_tail(env.m, page), words),
        )
    };
    [0].into_iter().chain(samples(order)).map(look).collect()
}

/// The words that a page of a folded folio shows: its own, or where the head's frame
/// stands for all, those of the head at the start of every frame.
fn shown<M>(layout: &Layout<M>, before: &[(u64, Seen)], n: u64, own: [u64; 8]) -> [u64; 8] {
    let fake = layout.sharing == Sharing::WithinFolio && n.is_multiple_of(PAGE_SIZE / layout.size);
    let mut head = before[0].1.2;
    // The mark that the folio is folded, which was set since.
    if fake && !layout.descriptor {
        head[0] |= mm::page::Flags::VMEMMAP_OPTIMIZED.raw();
        return head;
    }
    own
}

/// Folded and unfolded again, each page shows what it showed before, the ledger says what
/// that saved, and tails cannot be written meanwhile.
pub fn folding_changes_no_byte<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, folds)
}

fn folds<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(mut map) = map(env, layout, Spec::of(range(18)))? else {
        return Ok(());
    };
    if map.support().hvo.is_err() {
        return release(env, map);
    }
    let m = env.m;
    // The lowest order that fills two frames.
    let min = Order::clamped((2 * PAGE_SIZE / layout.size).ilog2());
    for order in [min, Order::PMD, Order::of(12), Order::of(15), Order::PUD] {
        if order < min {
            continue;
        }
        ok(map.prep(env, FIRST, order), "prep")?;
        let before = seen(env, &*map, order);
        let (ledger, free) = (*map.ledger(), env.mm.nodes.total_free(m));
        ok(map.fold(env, FIRST, order), "fold")?;
        audit(env, &*map, format_args!("order {order} folded"))?;
        let less = order.pages() * layout.size / PAGE_SIZE - 1;
        check_eq!(ledger.frames - map.ledger().frames, less, "frames less");
        check_eq!(map.ledger().saved - ledger.saved, less, "frames saved");
        let spent = map.ledger().owned() + less - ledger.owned();
        check_eq!(
            env.mm.nodes.total_free(m) + spent - free,
            less,
            "free frames"
        );
        for ((n, was), (_, is)) in before.iter().zip(seen(env, &*map, order)) {
            let words = if *n == 0 {
                is.2
            } else {
                shown(layout, &before, *n, was.2)
            };
            check_eq!(
                is,
                (was.0, was.1, words),
                "page {n} of order {order}, folded"
            );
        }
        let last = map.page(m, FIRST.offset(order.pages() - 1));
        let at = last.offset(layout.info);
        let fault = m.probe(at, Probe::Store).map_err(|fault| fault.code);
        check_eq!(
            fault,
            Err(Fault::WRITE_TO_READ_ONLY),
            "a store to a folded tail"
        );
        let twice = map.fold(env, FIRST, order);
        check_eq!(twice, Err(LayoutError::WrongState(FIRST)), "folded twice");
        let destroyed = map.destroy(env, FIRST, order);
        check_eq!(
            destroyed,
            Err(LayoutError::WrongState(FIRST)),
            "destroyed while folded"
        );
        ok(map.unfold(env, FIRST, order), "unfold")?;
        audit(env, &*map, format_args!("order {order} unfolded"))?;
        check_eq!(map.ledger().frames, ledger.frames, "frames back");
        check_eq!(seen(env, &*map, order), before, "order {order} unfolded");
        check!(
            m.probe(at, Probe::Store).is_ok(),
            "a store to an unfolded tail"
        );
        let twice = map.unfold(env, FIRST, order);
        check_eq!(twice, Err(LayoutError::WrongState(FIRST)), "unfolded twice");
        ok(map.destroy(env, FIRST, order), "destroy")?;
    }
    let small = min.down().unwrap_or(Order::PAGE);
    ok(map.prep(env, FIRST, small), "prep")?;
    let refused = map.fold(env, FIRST, small);
    check_eq!(refused, Err(LayoutError::OrderOutOfBounds(small)));
    release(env, map)
}

/// Each allocation of folding and unfolding made to fail: the folio is folded or not, as
/// before, and the next try works.
pub fn failures_change_nothing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, failures)
}

fn failures<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(mut map) = map(env, layout, Spec::of(range(18)))? else {
        return Ok(());
    };
    if map.support().hvo.is_err() {
        return release(env, map);
    }
    let m = env.m;
    let order = Order::of(12);
    ok(map.prep(env, FIRST, order), "prep")?;
    let before = seen(env, &*map, order);
    // A table for each leaf, where there are leaves, and a shared tail if there is one. What has
    // been made stays.
    let mut failed = 0;
    loop {
        m.fail_nth(FailPoint::PageAlloc, Some(failed));
        let result = map.fold(env, FIRST, order);
        m.fail_nth(FailPoint::PageAlloc, None);
        if result.is_ok() {
            break;
        }
        check_eq!(result, Err(LayoutError::NoMemory));
        check_eq!(seen(env, &*map, order), before, "after a failure to fold");
        audit(env, &*map, "after a failure to fold")?;
        failed += 1;
    }
    let allocates = m.page_size_may_change() || layout.sharing != Sharing::WithinFolio;
    check_eq!(failed > 0, allocates, "{failed} allocations failed");
    let before = seen(env, &*map, order);
    let count = order.pages() * layout.size / PAGE_SIZE - 1;
    for nth in [0, count / 2, count - 1] {
        m.fail_nth(FailPoint::PageAlloc, Some(nth));
        let result = map.unfold(env, FIRST, order);
        m.fail_nth(FailPoint::PageAlloc, None);
        check_eq!(result, Err(LayoutError::NoMemory), "allocation {nth} fails");
        check_eq!(seen(env, &*map, order), before, "after a failure to unfold");
        audit(env, &*map, "after a failure to unfold")?;
    }
    ok(map.unfold(env, FIRST, order), "unfold")?;
    release(env, map)
}

/// Each of the first allocations for a map made to fail: nothing is kept.
pub fn no_memory_for_a_map<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, nomemory)
}

fn nomemory<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let spec = Spec::of(range(15));
    let before = env.snapshot();
    let mut failed = 0;
    for nth in 0..6 {
        let Ok(mut map) = layout.make(spec) else {
            return Ok(());
        };
        env.m.fail_nth(FailPoint::PageAlloc, Some(nth));
        let result = map.populate(env);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        match result {
            // A 2 MiB leaf that cannot be had is made up for by pages.
            Ok(()) => audit(env, &*map, "populated")?,
            Err(error) => {
                check_eq!(error, LayoutError::NoMemory);
                failed += 1;
            }
        }
        release(env, map)?;
        env.same_as(&before)?;
    }
    check!(failed > 0, "no allocation was made to fail");
    Ok(())
}

/// A page with a bit of its own keeps its struct page; the error names it. Without the
/// bit the folio folds, and then no page that shares its struct page gets one.
pub fn bits_of_a_page_keep_it_private<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, private)
}

fn private<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let Some(mut map) = map(env, layout, Spec::of(range(15)))? else {
        return Ok(());
    };
    if map.support().hvo.is_err() || layout.size == 8 {
        return release(env, map);
    }
    let m = env.m;
    let order = Order::of(10);
    ok(map.prep(env, FIRST, order), "prep")?;
    // The first frame stays as it is where it does not stand for others.
    let early = if layout.sharing == Sharing::AcrossNode {
        PAGE_SIZE / layout.size
    } else {
        0
    };
    for (n, bits) in [
        (early, PageBits::HWPOISON),
        (early, PageBits::RESERVED),
        (early + 1, PageBits::HWPOISON),
        (order.pages() - 1, PageBits::ANON_EXCLUSIVE),
    ] {
        let pfn = FIRST.offset(n);
        ok(map.set_page_bits(m, pfn, bits, true), "set a bit")?;
        let refused = map.fold(env, FIRST, order);
        check_eq!(refused, Err(LayoutError::PerPageBits(pfn)));
        check!(!map.is_folded(m, FIRST), "folded all the same");
        ok(map.set_page_bits(m, pfn, bits, false), "clear a bit")?;
    }
    ok(map.fold(env, FIRST, order), "fold without bits")?;
    for n in [early, early + 1, order.pages() - 1] {
        let pfn = FIRST.offset(n);
        let before = map.words(m, pfn);
        let refused = map.set_page_bits(m, pfn, PageBits::HWPOISON, true);
        check_eq!(refused, Err(LayoutError::SharedPage(pfn)));
        check_eq!(map.words(m, pfn), before, "page {n} after a refusal");
    }
    if early > 0 {
        // The last page whose struct page is still its own.
        let (own, next) = (FIRST.offset(early - 1), FIRST.offset(early));
        let before = map.words(m, next);
        let set = map.set_page_bits(m, own, PageBits::HWPOISON, true);
        ok(set, "set a bit of a page of its own")?;
        check_eq!(map.words(m, next), before, "the page after it");
    }
    audit(env, &*map, "folded")?;
    release(env, map)
}
