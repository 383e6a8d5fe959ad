//! Folios of 1 GiB and more.

use ktest::{Outcome, check, check_eq};
use lab::layouts::{LayoutError, Spec, samples};
use mm::addr::{NodeId, Order, PAGE_SIZE};
use mm::machine::{Fault, Machine, Probe};

use super::any::{AnyMap, Layout};
use super::each::{FIRST, audit, each_layout, map, ok, range, release, room};
use super::lookup::check_folio;
use suites::Env;

/// A folio of the largest order that the machine has memory for: all its pages lead to
/// it, folded and unfolded, too. What the layout does not allow is refused.
pub fn largest_folios<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, large)
}

fn large<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let largest = room(env, layout);
    let spec = Spec {
        node: NodeId::of(5),
        ..Spec::of(range(largest.get()))
    };
    let Some(mut map) = map(env, layout, spec)? else {
        return Ok(());
    };
    let limit = map.support().max_order;
    for order in Order::range_inclusive(Order::PUD, Order::MAX) {
        if order > limit {
            let refused = map.prep(env, FIRST, order);
            check_eq!(refused, Err(LayoutError::OrderOutOfBounds(order)));
        } else if order == largest {
            one(env, layout, &mut *map, order)?;
        }
        env.m.touch_watchdog();
    }
    release(env, map)
}

fn one<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    map: &mut dyn AnyMap<M>,
    order: Order,
) -> Outcome {
    let m = env.m;
    // Not the first block if there is another, as in `every_page_finds_its_folio`.
    let second = FIRST.offset(order.pages());
    let first = if map.spec().range.contains(second) {
        second
    } else {
        FIRST
    };
    ok(map.prep(env, first, order), "prep")?;
    check_folio(env, layout, map, first, order)?;
    if map.support().hvo.is_ok() {
        let before = map.ledger().saved;
        ok(map.fold(env, first, order), "fold")?;
        let less = order.pages() * layout.size / PAGE_SIZE - 1;
        check_eq!(map.ledger().saved - before, less, "saved by order {order}");
        check_folio(env, layout, map, first, order)?;
        audit(env, map, format_args!("order {order} folded"))?;
        let last = map.page(m, first.offset(order.pages() - 1));
        let fault = m.probe(last.offset(layout.info), Probe::Store);
        let code = fault.map_err(|fault| fault.code);
        check_eq!(code, Err(Fault::WRITE_TO_READ_ONLY), "a store to a tail");
        env.m.touch_watchdog();
        ok(map.unfold(env, first, order), "unfold")?;
        check_folio(env, layout, map, first, order)?;
        audit(env, map, format_args!("order {order} unfolded"))?;
    }
    ok(map.destroy(env, first, order), "destroy")?;
    let strays = samples(order)
        .chain([0])
        .find(|n| map.folio_of(m, first.offset(*n)).is_some());
    check!(strays.is_none(), "page {strays:?} after order {order}");
    Ok(())
}
