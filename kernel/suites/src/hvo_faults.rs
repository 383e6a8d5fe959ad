//! Folded tails are read-only in hardware (INV-4). Linux maps them so, too, but
//! has no test that a write faults.

use ktest::{Outcome, check, check_eq};
use mm::addr::Order;
use mm::machine::{Fault, Machine, Probe};
use mm::page;

use crate::Env;

const WRITES: [Probe; 4] = [
    Probe::Store,
    Probe::CmpxchgFailing,
    Probe::XaddZero,
    Probe::Bts,
];

/// Store, failing cmpxchg, xadd of zero and bts each fault with error code 3 on
/// tails of first, middle and last shared page; loads do not; memory is unchanged.
pub fn tail_writes_fault<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(7), Order::PMD, Order::of(15)] {
        let head = env.compound(order)?;
        env.fold(head, order)?;
        let mut results = alloc::vec::Vec::new();
        for n in [page::HEAD_PAGES, order.pages() / 2 + 1, order.pages() - 1] {
            let tail = head.nth(n.max(page::HEAD_PAGES));
            let before = tail.record(env.m);
            let at = tail.ref_count_address();
            results.push((Probe::Load, env.m.probe(at, Probe::Load), Ok(())));
            for probe in WRITES {
                let fault = Fault {
                    at,
                    code: Fault::WRITE_TO_READ_ONLY,
                };
                results.push((probe, env.m.probe(at, probe), Err(fault)));
            }
            results.push((
                Probe::Load,
                Ok(()),
                if tail.record(env.m) == before {
                    Ok(())
                } else {
                    Err(Fault { at, code: u64::MAX })
                },
            ));
        }
        env.unfold(head, order)?;
        env.free_compound(head, order);
        for (probe, found, expected) in results {
            check_eq!(
                found,
                expected,
                "{probe:?} on a folded tail of order {order}"
            );
        }
    }
    Ok(())
}

/// A pfn walker that saw a count before the page became a folded tail gets no
/// reference and does not die of its exchange.
pub fn late_try_get_is_refused<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let tail = head.nth(order.pages() - 1);
    let before = tail.record(env.m);
    let got = [1, 7, u32::MAX - 1].map(|seen| page::folio_try_get_seen(env.m, tail, seen));
    let same = tail.record(env.m) == before;
    let raw = env.m.try_compare_exchange32(tail.ref_count_address(), 1, 2);
    env.unfold(head, order)?;
    let unfolded = env.m.try_compare_exchange32(tail.ref_count_address(), 1, 2);
    env.free_compound(head, order);
    check_eq!(got, [false; 3], "references on a folded tail");
    check!(same, "the tail changed");
    let fault = Fault {
        at: tail.ref_count_address(),
        code: Fault::WRITE_TO_READ_ONLY,
    };
    check_eq!(raw, Err(fault), "exchange on a folded tail");
    check_eq!(unfolded, Ok(Err(0)), "exchange on a restored tail");
    Ok(())
}

/// With CR0.WP clear the same store goes through: it is the processor that
/// protects the tails, and WP that makes it. It stores what is there already.
pub fn write_protect_off_control<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let tail = head.nth(order.pages() - 1);
    let at = tail.ref_count_address();
    let before = tail.record(env.m);
    let mut without = None;
    env.m
        .without_write_protect(&mut || without = Some(env.m.probe(at, Probe::Store)));
    let with = env.m.probe(at, Probe::Store);
    let same = tail.record(env.m) == before;
    env.unfold(head, order)?;
    env.free_compound(head, order);
    check_eq!(without, Some(Ok(())), "with WP clear");
    check_eq!(
        with,
        Err(Fault {
            at,
            code: Fault::WRITE_TO_READ_ONLY
        }),
        "with WP set"
    );
    check!(same, "the tail changed");
    Ok(())
}

/// The head and its first tails stay writable while the block is folded.
pub fn head_is_writable<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let results = [head, head.nth(1), head.nth(page::HEAD_PAGES - 1)]
        .map(|page| env.m.probe(page.ref_count_address(), Probe::XaddZero));
    env.unfold(head, order)?;
    env.free_compound(head, order);
    check_eq!(results, [Ok(()); 3]);
    Ok(())
}

/// Restored tails are writable, every one.
pub fn restored_tails_are_writable<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    env.unfold(head, order)?;
    let mut refused = 0;
    for n in 0..order.pages() {
        let probed = env
            .m
            .probe(head.nth(n).ref_count_address(), Probe::XaddZero);
        refused += u64::from(probed.is_err());
    }
    env.free_compound(head, order);
    check_eq!(refused, 0, "tails that fault");
    Ok(())
}
