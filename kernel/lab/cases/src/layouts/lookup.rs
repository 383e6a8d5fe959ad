//! From a page to its folio.

use ktest::{Outcome, check, check_eq};
use lab::layouts::{LayoutError, Spec, samples};
use mm::addr::{NodeId, Order, Pfn};
use mm::machine::Machine;

use super::any::{AnyMap, Layout};
use super::each::{FIRST, audit, each_layout, map, ok, range, release};
use suites::Env;

/// Orders that are made; the largest is a section where that is the limit.
const ORDERS: [u8; 10] = [1, 2, 5, 7, 8, 9, 10, 12, 15, 18];

/// All pages of folios of all sizes lead to their folio, know their pfn and node, and
/// the pages beside the folio belong to none.
pub fn every_page_finds_its_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, finds)
}

fn finds<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let end = if layout.has_sections() { 16 } else { 18 };
    let spec = Spec {
        node: NodeId::of(5),
        ..Spec::of(range(end))
    };
    let Some(mut map) = map(env, layout, spec)? else {
        return Ok(());
    };
    let limit = map.support().max_order.min(Order::of(end));
    for order in ORDERS.map(Order::of) {
        if order > limit {
            break;
        }
        // Not the first block if there is another: an address near the start of the
        // map would hide that too much was cleared.
        let second = FIRST.offset(order.pages());
        let first = if order < Order::of(end) {
            second
        } else {
            FIRST
        };
        ok(map.prep(env, first, order), "prep")?;
        check_folio(env, layout, &*map, first, order)?;
        ok(map.destroy(env, first, order), "destroy")?;
        for n in samples(order).chain([0]) {
            check_eq!(
                map.folio_of(env.m, first.offset(n)),
                None,
                "page {n} after {order}"
            );
        }
    }
    audit(env, &*map, "at the end")?;
    release(env, map)
}

/// Whether the pages of the folio of `order` at `first`, of a map on node 5, lead to it,
/// and those beside it nowhere.
pub(super) fn check_folio<M: Machine>(
    env: &Env<'_, M>,
    layout: &Layout<M>,
    map: &dyn AnyMap<M>,
    first: Pfn,
    order: Order,
) -> Outcome {
    let m = env.m;
    for n in samples(order).chain([0]) {
        let pfn = first.offset(n);
        let page = map.page(m, pfn);
        check_eq!(
            map.folio_of(m, pfn),
            Some(first),
            "page {n} of order {order}"
        );
        check_eq!(
            map.is_tail(m, page),
            n > 0 && !layout.descriptor,
            "tail {n} of order {order}"
        );
        check_eq!(map.pfn(m, page), pfn, "pfn of page {n}");
        check_eq!(map.nth_page(m, page, 0), page);
        if let Some(bits) = map.page_bits(m, pfn) {
            check_eq!(
                (bits.node(), bits.zone()),
                (NodeId::of(5), 2),
                "place of page {n}"
            );
        }
    }
    let range = map.spec().range;
    for outside in [
        first.as_u64().wrapping_sub(1),
        first.as_u64() + order.pages(),
    ] {
        let outside = Pfn::new(outside);
        if range.contains(outside) {
            check_eq!(map.folio_of(m, outside), None, "beside order {order}");
        }
    }
    Ok(())
}

/// Folios that are there already, not there, not aligned, too large or outside are
/// errors that say so.
pub fn misuse_is_refused<M: Machine>(env: &Env<'_, M>) -> Outcome {
    each_layout(env, misuse)
}

fn misuse<M: Machine>(env: &Env<'_, M>, layout: &Layout<M>) -> Outcome {
    let m = env.m;
    let odd = FIRST.offset(8);
    if let Ok(mut map) = layout.make(Spec::of(odd.block(Order::of(15)))) {
        let refused = map.populate(env);
        check!(
            matches!(refused, Err(LayoutError::BadRange(_))),
            "{refused:?}"
        );
    }
    let Some(mut map) = map(env, layout, Spec::of(range(15)))? else {
        return Ok(());
    };
    let order = Order::of(4);
    check_eq!(
        map.prep(env, FIRST.offset(8), order),
        Err(LayoutError::BadBlock(FIRST.offset(8), order))
    );
    let behind = FIRST.offset(1 << 15);
    check_eq!(
        map.prep(env, behind, order),
        Err(LayoutError::BadBlock(behind, order))
    );
    let too_large = Order::of(16);
    let large = map.prep(env, FIRST, too_large);
    let expected = if too_large > map.support().max_order {
        LayoutError::OrderOutOfBounds(too_large)
    } else {
        LayoutError::BadBlock(FIRST, too_large)
    };
    check_eq!(large, Err(expected));
    ok(map.prep(env, FIRST, order), "prep")?;
    let again = map.prep(env, FIRST, order);
    check_eq!(again, Err(LayoutError::WrongState(FIRST)));
    let wrong_order = map.destroy(env, FIRST, Order::of(3));
    check_eq!(wrong_order, Err(LayoutError::WrongState(FIRST)));
    ok(map.destroy(env, FIRST, order), "destroy")?;
    // Small folios anywhere in a block are in the way of a larger one.
    for n in [2, 6, 14] {
        let small = FIRST.offset(n);
        ok(map.prep(env, small, Order::of(1)), "prep")?;
        let over = map.prep(env, FIRST, order);
        check_eq!(over, Err(LayoutError::WrongState(small)));
        check_eq!(map.folio_of(m, small.offset(1)), Some(small));
        ok(map.destroy(env, small, Order::of(1)), "destroy")?;
    }
    let gone = map.destroy(env, FIRST, order);
    check_eq!(gone, Err(LayoutError::WrongState(FIRST)));
    let populated = map.populate(env);
    check_eq!(populated, Err(LayoutError::Occupied));
    release(env, map)
}
