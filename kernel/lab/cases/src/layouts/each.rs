//! What every case does for every layout.

use alloc::collections::BTreeSet;
use core::fmt;

use ktest::{Outcome, Stop, check, check_eq};
use lab::layouts::{LayoutError, Spec};
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange};
use mm::machine::Machine;

use super::any::{AnyMap, Boxed, Layout, layouts};
use suites::Env;

/// First frame described: a multiple of the largest folio, and of no frame that exists.
pub(super) const FIRST: Pfn = Pfn::new(1 << 28);

/// The block of `order` that the cases describe.
pub(super) const fn range(order: u8) -> PfnRange {
    FIRST.block(Order::of(order))
}

/// The order of the largest block that cases about large folios describe, with struct
/// pages of `size` bytes: one whose struct pages take no more than a 128th of the free
/// memory, and 1 GiB at least.
pub fn largest_block<M: Machine>(env: &Env<'_, M>, size: u64) -> Order {
    let free = env.mm.nodes.total_free(env.m) * PAGE_SIZE;
    let fits = |order: &Order| order.pages() * size <= free / 128;
    let mut orders = Order::range_inclusive(Order::PUD, Order::MAX).rev();
    orders.find(fits).unwrap_or(Order::PUD)
}

/// [`largest_block`]; two sections where a folio ends at one.
pub(super) fn room<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Order {
    if layout.has_sections() && layout.computes {
        Order::of(16)
    } else {
        largest_block(env, layout.size)
    }
}

/// Runs `body` for every encoding, size and model, and checks after each that nothing is
/// left behind.
pub(super) fn each_layout<M: Machine>(
    env: &Env<'_, M>,
    body: fn(&Env<'_, M>, &Layout<M>) -> Outcome,
) -> Outcome {
    let mut result = Ok(());
    layouts(&mut |layout| {
        if result.is_ok() {
            result = one(env, layout, body);
        }
    });
    result
}

fn one<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    body: fn(&Env<'_, M>, &Layout<M>) -> Outcome,
) -> Outcome {
    let before = env.snapshot();
    let run = body(env, layout).and_then(|()| env.same_as(&before));
    env.m.touch_watchdog();
    run.map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            failure.message = ktest::Text::of(format_args!("{layout}: {}", failure.message));
            Stop::Failed(failure)
        }
        skipped @ Stop::Skipped(_) => skipped,
    })
}

/// A populated map, if the layout works.
pub(super) fn map<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    spec: Spec,
) -> Result<Option<Boxed<M>>, Stop> {
    let Ok(mut map) = layout.make(spec) else {
        return Ok(None);
    };
    ok(map.populate(env), "populate")?;
    Ok(Some(map))
}

/// A failure of the case, unless it is `Ok`.
pub(super) fn ok<T>(result: Result<T, LayoutError>, what: &str) -> Result<T, Stop> {
    result.or_else(|error| ktest::fail!("{what}: {error}"))
}

/// The map's audit, and that no frame is in it twice as writable memory.
pub(super) fn audit<M: Machine>(
    env: &Env<'_, M>,
    map: &dyn AnyMap<M>,
    when: impl fmt::Display,
) -> Outcome {
    let mut frames = BTreeSet::new();
    let mut twice = None;
    let result = map.audit(env.m, &mut |leaf| {
        if leaf.writable {
            for n in 0..leaf.pages {
                let frame = leaf.frame.offset(n);
                if !frames.insert(frame.as_u64()) {
                    twice = Some(frame);
                }
            }
        }
    });
    if let Err(finding) = result {
        ktest::fail!("{when}: {finding}");
    }
    check_eq!(twice, None, "{when}: a frame mapped writable twice");
    Ok(())
}

/// Takes a map down; it had nothing left.
pub(super) fn release<M: Machine>(env: &Env<'_, M>, map: Boxed<M>) -> Outcome {
    let ledger = map.release(env);
    check!(ledger.owned() == 0, "left in the ledger: {ledger:?}");
    Ok(())
}
