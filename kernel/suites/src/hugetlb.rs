//! The pools, and folding as part of them.

use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{NodeId, Order, PUD_SIZE, VirtAddr};
use mm::hugetlb::{self, Hstate};
use mm::machine::{FailPoint, Machine};
use mm::page::{self, PageType, vmemmap_pages};
use mm::paging;
use mm::vmemmap;

use crate::{Env, Random};

/// HVO on or off for the length of a case, then as before.
pub(crate) fn switched<M: Machine>(
    env: &Env<'_, M>,
    on: bool,
    case: impl FnOnce() -> Outcome,
) -> Outcome {
    let was = env.mm.hugetlb.optimizes();
    env.mm.hugetlb.set_optimize(on);
    let outcome = case();
    env.mm.hugetlb.set_optimize(was);
    outcome
}

/// Sets aside what is in the pools for the length of a case: folded or not, the
/// case would free those folios for its own.
pub fn on_empty_pools<M: Machine>(env: &Env<'_, M>, case: impl FnOnce() -> Outcome) -> Outcome {
    let memmap = env.mm.vmemmap.memmap();
    let mut aside = Vec::new();
    for h in env.mm.hugetlb.hstates() {
        for node in env.mm.nodes.online() {
            aside.extend(core::iter::from_fn(|| h.take(env.m, node)).map(|head| (h, head)));
        }
    }
    for (_, head) in &aside {
        env.kept.set_aside(memmap.pfn(*head), true);
    }
    let outcome = case();
    env.sweep_after(&outcome);
    if outcome.is_err() {
        // Every folio that is free now is the case's: one that ended early has not shrunk its pools.
        for h in env.mm.hugetlb.hstates() {
            shrink(env, h, h.total(env.m).free);
        }
    }
    for (h, head) in aside.into_iter().rev() {
        env.kept.set_aside(memmap.pfn(head), false);
        h.put(env.m, head);
    }
    outcome
}

/// Both.
pub fn with_hvo<M: Machine>(env: &Env<'_, M>, on: bool, case: impl FnOnce() -> Outcome) -> Outcome {
    on_empty_pools(env, || switched(env, on, case))
}

fn grow<M: Machine>(env: &Env<'_, M>, h: &Hstate, count: u64) -> u64 {
    env.mm.hugetlb.grow(env.m, env.backing(), h, None, count)
}

fn shrink<M: Machine>(env: &Env<'_, M>, h: &Hstate, count: u64) -> u64 {
    env.mm.hugetlb.shrink(env.m, env.backing(), h, None, count)
}

/// At least one new folio of `h`, or a skip.
pub fn grow_or_skip<M: Machine>(env: &Env<'_, M>, h: &Hstate, count: u64) -> Result<u64, Stop> {
    match grow(env, h, count) {
        0 => skip!("no room for a folio of {}", h.name()),
        added => Ok(added),
    }
}

/// T1: all pages of a folded folio are tails of its head, the head is of type
/// hugetlb, pfns round-trip.
pub(crate) fn flags_of_every_page<M: Machine>(env: &Env<'_, M>, order: Order) -> Outcome {
    let h = env.hstate(order)?;
    with_hvo(env, true, || {
        grow_or_skip(env, h, 1)?;
        let head = env.mm.nodes.online().find_map(|node| h.take(env.m, node));
        let Some(head) = head else {
            fail!("no folio in any pool")
        };
        let folded = vmemmap::is_optimized(env.m, head);
        let typed = head.page_type(env.m);
        let is_head = (head.is_head(env.m), head.is_tail(env.m));
        let tails = env.check_tails(head, order);
        let memmap = env.mm.vmemmap.memmap();
        let first = memmap.pfn(head);
        let lost = (0..order.pages()).find(|n| memmap.pfn(head.nth(*n)) != first.offset(*n));
        h.put(env.m, head);
        shrink(env, h, 1);
        tails?;
        check!(folded, "the folio is not folded");
        check_eq!(typed, PageType::HUGETLB);
        check_eq!(is_head, (true, false));
        check_eq!(lost, None, "pfn of a page of the folio");
        Ok(())
    })
}

/// T1 for 2 MiB: all 512 pages.
pub fn flags_of_every_page_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    flags_of_every_page(env, Order::PMD)
}

/// T2: M = M0 - N * (vmemmap_pages - 1) exactly, and M0 again after.
pub(crate) fn accounting_is_exact<M: Machine>(
    env: &Env<'_, M>,
    order: Order,
    want: u64,
) -> Outcome {
    let h = env.hstate(order)?;
    with_hvo(env, true, || {
        let (m0, before) = (env.memmap_pages(), env.snapshot());
        let nr = h.total(env.m).nr;
        let added = grow_or_skip(env, h, want)?;
        let grown = (env.memmap_pages(), h.total(env.m).nr);
        let removed = shrink(env, h, added);
        check_eq!(grown.1, nr + added, "folios in the pools");
        check_eq!(
            grown.0,
            m0 - added * (vmemmap_pages(order) - 1),
            "with {added} folios"
        );
        check_eq!(removed, added, "removed");
        check_eq!(env.memmap_pages(), m0, "drained");
        env.same_as(&before)
    })
}

/// T2 for 2 MiB.
pub fn accounting_is_exact_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    accounting_is_exact(env, Order::PMD, 40)
}

/// Data in a mapped folio is the same before and after its memmap is restored and
/// folded again; the folio is mapped by one leaf.
pub(crate) fn mapped_data_survives<M: Machine>(
    env: &Env<'_, M>,
    order: Order,
    at: VirtAddr,
) -> Outcome {
    let h = env.hstate(order)?;
    with_hvo(env, true, || {
        grow_or_skip(env, h, 1)?;
        let Some(head) = env.mm.nodes.online().find_map(|node| h.take(env.m, node)) else {
            fail!("no folio in any pool")
        };
        let memmap = env.mm.vmemmap.memmap();
        let mapped = hugetlb::map_folio(env.m, &env.mm.nodes, memmap, at, head);
        check_eq!(mapped, Ok(()));
        let leaf = paging::leaf(env.m, env.m.root(), at);
        let step = order.bytes() / 512;
        for n in 0..512 {
            env.m.store64(at.offset(n * step), n ^ 0x5a5a_5a5a);
        }
        // Freeze it, as nothing but the mapping and this case refers to it.
        let count = page::folio_ref_count(env.m, head);
        head.set_ref_count(env.m, 0);
        env.unfold(head, order)?;
        env.fold(head, order)?;
        head.set_ref_count(env.m, count);
        let wrong = (0..512).find(|n| env.m.load64(at.offset(n * step)) != n ^ 0x5a5a_5a5a);
        let through_frame = env.m.read_phys(memmap.pfn(head).phys().offset(511 * step));
        let unmapped = hugetlb::unmap_folio(env.m, h, memmap, at);
        h.put(env.m, head);
        let removed = shrink(env, h, 1);
        check_eq!(
            leaf.map(|leaf| leaf.level.span()),
            Some(order.bytes()),
            "bytes of the leaf"
        );
        check_eq!(count, 2, "references of a mapped folio");
        check_eq!(wrong, None, "word of a folio of {}", h.name());
        check_eq!(through_frame, 511 ^ 0x5a5a_5a5a);
        check_eq!((unmapped, removed), (Ok(()), 1));
        Ok(())
    })
}

/// Data in a folio mapped by a 2 MiB leaf.
pub fn mapped_data_survives_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    mapped_data_survives(env, Order::PMD, env.scratch.offset(PUD_SIZE * 8))
}

/// T26: the switch concerns folios allocated later, not those there are.
pub fn switch_concerns_later_folios<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    on_empty_pools(env, || {
        let before = env.snapshot();
        let saved = env.totals().saved;
        let mut seen = Vec::new();
        for on in [true, false, true] {
            switched(env, on, || {
                grow_or_skip(env, h, 1)?;
                seen.push(env.totals().saved - saved);
                Ok(())
            })?;
        }
        let removed = shrink(env, h, 3);
        check_eq!(seen, [7, 7, 14], "frames saved after on, off, on");
        check_eq!(removed, 3);
        env.same_as(&before)
    })
}

/// Asking for far more than fits gives what fits, leaves what others need, and
/// all of it comes back.
pub fn asks_for_more_than_fits<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    let before = env.snapshot();
    for on in [false, true] {
        with_hvo(env, on, || {
            let most = env.mm.nodes.total_present() / Order::PMD.pages() + 1000;
            let added = grow(env, h, most);
            let left = env.mm.nodes.total_free(env.m);
            // Others can still allocate, and can still restore.
            let other = env.block(Order::PAGE);
            if let Ok(frame) = other {
                env.free(frame, Order::PAGE);
            }
            let more = grow(env, h, 1);
            let removed = shrink(env, h, added + more);
            check!(added > 0 && added < most, "{added} of {most}");
            check!(other.is_ok(), "no page left for others, {left} free");
            check_eq!(removed, added + more, "removed");
            check_eq!(more, 0, "still more after all that fits");
            env.same_as(&before)
        })?;
    }
    Ok(())
}

/// T20: a restore that finds no memory leaves the folio in the pool as surplus;
/// a later try gets it out.
pub fn restore_failure_becomes_surplus<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    with_hvo(env, true, || {
        let before = env.snapshot();
        grow_or_skip(env, h, 1)?;
        // Restoring asks for one block, then for single frames: with the second
        // request failing there is neither. Take all blocks away first.
        let held = env.take_blocks();
        let counts = h.total(env.m);
        env.m.fail_nth(FailPoint::PageAlloc, Some(1));
        let removed = shrink(env, h, 1);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        let stuck = h.total(env.m);
        drop(held);
        let healed = env.mm.hugetlb.retry_surplus(env.m, env.backing(), h);
        let after = h.total(env.m);
        check_eq!(removed, 0, "removed without memory");
        check_eq!((stuck.nr, stuck.surplus), (counts.nr, counts.surplus + 1));
        check_eq!(healed, 1, "healed");
        check_eq!((after.nr, after.surplus), (counts.nr - 1, counts.surplus));
        env.same_as(&before)
    })
}

/// 2 MiB and 1 GiB folios come and go until memory is full; then all go, and the
/// ledger is as it was.
pub fn mixed_churn_until_full<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let small = env.hstate(Order::PMD)?;
    let large = env.mm.hugetlb.hstate(Order::PUD);
    let start = (small.total(env.m).nr, large.map(|h| h.total(env.m).nr));
    with_hvo(env, true, || {
        let before = env.snapshot();
        let mut random = Random::new(7);
        for round in 0..40 {
            let (h, unit) = match large {
                Some(large) if random.below(3) == 0 => (large, 2),
                _ => (small, 60),
            };
            if random.below(3) < 2 {
                grow(env, h, 1 + random.below(unit));
            } else {
                let base = if h.order() == Order::PMD {
                    start.0
                } else {
                    start.1.unwrap_or(0)
                };
                let spare = h.total(env.m).nr - base;
                shrink(env, h, spare.min(1 + random.below(unit)));
            }
            let t = env.totals();
            check_eq!(
                t.pages + t.boot_pages + t.saved,
                t.sections * vmemmap_pages(mm::page::Memmap::SECTION),
                "round {round}"
            );
        }
        if let Some(large) = large {
            grow(env, large, 1 << 20);
        }
        grow(env, small, 1 << 30);
        // The memmap of a 1 GiB folio is 16 MiB, and memory is full: such a folio
        // may have to wait, as surplus, until others have made room.
        if let Some(large) = large {
            shrink(env, large, large.total(env.m).nr - start.1.unwrap_or(0));
        }
        shrink(env, small, small.total(env.m).nr - start.0);
        if let Some(large) = large {
            shrink(env, large, large.total(env.m).nr - start.1.unwrap_or(0));
        }
        check_eq!(small.total(env.m).nr, start.0, "2 MiB folios");
        check_eq!(large.map(|h| h.total(env.m).nr), start.1, "1 GiB folios");
        env.same_as(&before)
    })
}

/// Without a node named, folios come from all nodes in turn.
pub fn round_robin_over_nodes<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    let (one, two) = env.two_nodes()?;
    let count = |node: NodeId| h.counts(env.m, node).nr;
    let before = (count(one), count(two));
    let nodes = env
        .mm
        .nodes
        .online()
        .filter(|n| env.mm.nodes.get(*n).present_pages() > 0);
    let want = 6 * nodes.count() as u64;
    let added = grow(env, h, want);
    let after = (count(one), count(two));
    let only = env.mm.hugetlb.grow(env.m, env.backing(), h, Some(two), 3);
    let then = (count(one), count(two));
    let back = env.mm.hugetlb.shrink(env.m, env.backing(), h, Some(two), 3);
    shrink(env, h, added);
    check_eq!(added, want);
    check_eq!((after.0 - before.0, after.1 - before.1), (6, 6), "6 a node");
    check_eq!((only, back), (3, 3));
    check_eq!(
        (then.0 - after.0, then.1 - after.1),
        (0, 3),
        "3 on {two:?} only"
    );
    Ok(())
}
