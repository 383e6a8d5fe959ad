//! Folded tails are read-only on every CPU (INV-4), and what that asks of whoever
//! takes a reference.

use ktest::{Outcome, check, check_eq};
use mm::addr::Order;
use mm::machine::{Fault, Machine, Probe};
use mm::page::{self, Memmap, Page};

use super::{Party, several};
use crate::Env;

const WRITES: [Probe; 5] = [
    Probe::Store,
    Probe::CmpxchgFailing,
    Probe::XaddZero,
    Probe::XaddOne,
    Probe::Bts,
];

/// Runs `work` on every CPU with a folded block of each of some orders.
fn on_folded<M: Machine>(
    env: &Env<'_, M>,
    work: impl Fn(usize, Page, Order) -> Outcome + Sync,
) -> Outcome {
    several(env)?;
    for order in [Order::of(7), Order::PMD, Memmap::SECTION] {
        let Ok(head) = env.compound(order) else {
            // Small machines have no whole section free.
            check!(order > Order::PMD, "no free block of order {order}");
            continue;
        };
        env.fold(head, order)?;
        Party::run(env.m, |_, cpu| work(cpu, head, order))?;
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    Ok(())
}

/// Tails in the first, a middle and the last shared page of the memmap.
fn some_tails(head: Page, order: Order) -> [Page; 3] {
    [page::HEAD_PAGES, order.pages() / 2 + 1, order.pages() - 1]
        .map(|n| head.nth(n.max(page::HEAD_PAGES)))
}

/// T23: store, failing cmpxchg, xadd of zero and one, and bts each fault with error code
/// 3 on every CPU and change nothing; a load does not fault.
pub fn tail_writes_fault<M: Machine>(env: &Env<'_, M>) -> Outcome {
    on_folded(env, |_, head, order| {
        for tail in some_tails(head, order) {
            let (at, before) = (tail.ref_count_address(), tail.record(env.m));
            let fault = Fault {
                at,
                code: Fault::WRITE_TO_READ_ONLY,
            };
            for probe in WRITES {
                check_eq!(
                    env.m.probe(at, probe),
                    Err(fault),
                    "{probe:?}, order {order}"
                );
            }
            check_eq!(env.m.probe(at, Probe::Load), Ok(()), "order {order}");
            check_eq!(tail.record(env.m), before, "tail of order {order}");
        }
        Ok(())
    })
}

/// What R-2 forbids: a reference taken by a locked add, given back if there was none
/// before. Linux had, and had again, code of this kind (`page_ref_add_unless_zero`).
fn try_get_by_add<M: Machine>(m: &M, page: Page) -> Result<bool, Fault> {
    m.probe(page.ref_count_address(), Probe::XaddOne)?;
    if page.ref_count(m) > 1 {
        return Ok(true);
    }
    m.fetch_add32(page.ref_count_address(), u32::MAX);
    Ok(false)
}

/// Adding first, on a folded tail, faults on every CPU; `folio_try_get`, which loads
/// first, says no. Where nothing is folded the two agree.
pub fn unconditional_add_faults<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let m = env.m;
    on_folded(env, |_, head, order| {
        for tail in some_tails(head, order) {
            let fault = Fault {
                at: tail.ref_count_address(),
                code: Fault::WRITE_TO_READ_ONLY,
            };
            check_eq!(try_get_by_add(m, tail), Err(fault), "order {order}");
            check!(!page::folio_try_get(m, tail), "a reference on a tail");
            check_eq!(tail.ref_count(m), 0, "count of a tail of order {order}");
        }
        Ok(())
    })?;
    let head = env.compound(Order::PMD)?;
    let tail = head.nth(Order::PMD.pages() - 1);
    let dead = (try_get_by_add(m, tail), page::folio_try_get(m, tail));
    head.set_ref_count(m, 1);
    let live = (try_get_by_add(m, head), page::folio_try_get(m, head));
    let count = head.ref_count(m);
    let counts = (tail.ref_count(m), count);
    head.set_ref_count(m, 0);
    env.free_compound(head, Order::PMD);
    check_eq!(dead, (Ok(false), false), "unfolded tail");
    check_eq!(live, (Ok(true), true), "live head");
    check_eq!(counts, (0, 3), "counts of tail and head");
    Ok(())
}
