//! The counters of what did not go as asked (`/proc/vmstat`): each failure is caused once,
//! and moves its own counter and no other.

use ktest::{Outcome, check_eq, skip};
use mm::addr::Order;
use mm::hugetlb::{Event, Hstate, MapFlags, Slot};
use mm::machine::{FailPoint, Machine};

use crate::Env;
use crate::hugetlb::with_hvo;
use crate::hugetlb_pool::Pool;

const ALL: [Event; 8] = [
    Event::AllocSuccess,
    Event::AllocFail,
    Event::FoldFail,
    Event::RestoreFail,
    Event::DemoteFail,
    Event::PromoteFail,
    Event::ReserveFail,
    Event::TouchFail,
];

/// Runs `work`, which must move the counters as `expected` says and leave the others.
fn counts<M: Machine>(
    env: &Env<'_, M>,
    what: &str,
    expected: &[(Event, u64)],
    work: impl FnOnce() -> Outcome,
) -> Outcome {
    let events = env.mm.hugetlb.events();
    let before = ALL.map(|event| events.get(event));
    work()?;
    for (event, before) in ALL.into_iter().zip(before) {
        let own = expected.iter().find(|(other, _)| *other == event);
        let expected = own.map_or(0, |(_, count)| *count);
        check_eq!(events.get(event) - before, expected, "{what}: {event:?}");
    }
    Ok(())
}

fn failing<M: Machine, R>(
    env: &Env<'_, M>,
    points: &[FailPoint],
    nth: u64,
    work: impl FnOnce() -> R,
) -> R {
    points.iter().for_each(|at| env.m.fail_nth(*at, Some(nth)));
    let result = work();
    points.iter().for_each(|at| env.m.fail_nth(*at, None));
    result
}

/// Allocation, folding, unfolding, a promise, a touch.
pub fn pools<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    with_hvo(env, true, || {
        let (before, overcommit) = (env.snapshot(), h.overcommit(env.m));
        h.set_overcommit(env.m, 0);
        let outcome = in_pool(env, h);
        h.set_overcommit(env.m, overcommit);
        outcome?;
        env.same_as(&before)
    })
}

fn in_pool<M: Machine>(env: &Env<'_, M>, h: &Hstate) -> Outcome {
    use Event::{AllocFail, AllocSuccess, FoldFail, ReserveFail, RestoreFail, TouchFail};
    let pool = Pool::local(env, h);
    if pool.set_nr(1) < 1 {
        skip!("no room for a folio");
    }
    pool.set_nr(0);
    let stores = [FailPoint::VmemmapPte, FailPoint::VmemmapPmd];
    counts(env, "fold", &[(AllocSuccess, 1), (FoldFail, 1)], || {
        check_eq!(failing(env, &stores, 0, || pool.set_nr(1)), 1);
        Ok(())
    })?;
    pool.set_nr(0);
    counts(env, "allocation", &[(AllocFail, 1)], || {
        let alloc = [FailPoint::PageAlloc];
        check_eq!(failing(env, &alloc, 0, || pool.set_nr(1)), 0);
        Ok(())
    })?;
    counts(env, "promise", &[(ReserveFail, 1)], || {
        let mut slots = [Slot::Empty; 1];
        check_eq!(pool.map(MapFlags::SHARED, &mut slots).is_err(), true);
        Ok(())
    })?;
    counts(env, "touch", &[(TouchFail, 1)], || {
        let mut slots = [Slot::Empty; 1];
        match pool.map(MapFlags::SHARED.no_reserve(), &mut slots) {
            Ok(mut mapping) => check_eq!(mapping.touch(0).is_err(), true),
            Err(why) => ktest::fail!("a mapping without a promise: {why:?}"),
        }
        Ok(())
    })?;
    pool.set_nr(2);
    let lost = env.mm.nodes.alloc_failures();
    // Two are stuck. The first of them is tried, and tried again before the resize is over.
    counts(env, "restore", &[(RestoreFail, 2)], || {
        let mut held = env.take_blocks();
        let singles = core::iter::from_fn(|| env.block(Order::PAGE).ok());
        held.extend(singles.map(|frame| (frame, Order::PAGE)));
        pool.set_nr(0);
        let stuck = h.stuck(env.m);
        drop(held);
        pool.set_nr(0);
        check_eq!((stuck, h.stuck(env.m)), (2, 0), "waited for memory");
        Ok(())
    })?;
    check_eq!(env.mm.nodes.alloc_failures() > lost, true, "frames refused");
    Ok(())
}

/// Demotion and promotion.
pub fn demote<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PUD)?;
    with_hvo(env, true, || {
        let before = env.snapshot();
        let pool = Pool::local(env, h);
        let mut count = 0;
        // Gigantic: not what is counted of buddy, be there room or not.
        counts(env, "gigantic", &[], || {
            count = pool.set_nr(2);
            Ok(())
        })?;
        if count < 1 {
            skip!("no room for a folio of {}", h.name());
        }
        let (hugetlb, backing, node) = (&env.mm.hugetlb, env.backing(), Some(pool.node));
        let demote = || hugetlb.demote(env.m, backing, h, node, count);
        let promote = || hugetlb.promote(env.m, backing, h, node, count);
        let store = [FailPoint::VmemmapPte];
        // The first fails and ends it: one, however many were asked for.
        counts(env, "demote", &[(Event::DemoteFail, 1)], || {
            check_eq!(failing(env, &store, 3, demote), 0);
            Ok(())
        })?;
        check_eq!(demote(), count);
        counts(env, "promote", &[(Event::PromoteFail, 1)], || {
            check_eq!(failing(env, &store, 3, promote), 0);
            Ok(())
        })?;
        check_eq!(promote(), count);
        pool.set_nr(0);
        env.same_as(&before)
    })
}
