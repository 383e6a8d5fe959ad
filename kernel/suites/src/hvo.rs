//! What folding promises: sharing, data, order of operations, failures.

use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{Order, Pfn};
use mm::frames::Placement;
use mm::machine::{FailPoint, Machine};
use mm::page::{self, Flags, Page, PageList, vmemmap_pages};
use mm::paging::{self, Level};
use mm::vmemmap::{self, Fill, HvoError};

use crate::{Env, Random};

/// Two folios of a node share one tail page; other orders and nodes have others.
pub fn tails_are_shared<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let (a, b, c) = (
        env.compound(order)?,
        env.compound(order)?,
        env.compound(Order::of(8))?,
    );
    env.fold(a, order)?;
    env.fold(b, order)?;
    env.fold(c, Order::of(8))?;
    let second = |head| env.frame_of(env.memmap_frame(head, 1));
    let same = (second(a), second(b), second(c));
    let contents: Vec<bool> = (0..page::HEAD_PAGES)
        .map(|n| {
            let record = env.memmap_frame(a, 1).nth(n).record(env.m);
            record == page::tail_record(a.node(env.m), a.tail_info(order))
        })
        .collect();
    for (head, order) in [(a, order), (b, order), (c, Order::of(8))] {
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    check_eq!(same.0, same.1, "two folios of one order on one node");
    check!(same.0 != same.2, "orders 8 and 9 share");
    check!(contents.iter().all(|good| *good), "64 equal records");

    let Ok((one, two)) = env.two_nodes() else {
        return Ok(());
    };
    let (Some(a), Some(b)) = (env.compound_on(order, one), env.compound_on(order, two)) else {
        skip!("no free 2 MiB block on one of the nodes");
    };
    env.fold(a, order)?;
    env.fold(b, order)?;
    let (first, other) = (second(a), second(b));
    let nodes = (a.nth(100).node(env.m), b.nth(100).node(env.m));
    for head in [a, b] {
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    check!(first != other, "nodes {one} and {two} share a tail page");
    check_eq!(nodes, (one, two), "node of a folded tail");
    Ok(())
}

/// Everything in the first frame of the memmap: the head and its 63 tails.
fn head_data<M: Machine>(env: &Env<'_, M>, head: Page) -> Vec<page::Record> {
    (0..page::HEAD_PAGES)
        .map(|n| head.nth(n).record(env.m))
        .collect()
}

/// Writes recognisable values into the head and the first tails; [`plain`] clears them.
fn write_marks<M: Machine>(env: &Env<'_, M>, head: Page) {
    head.set_mapping(env.m, 0x1111_2222_3333_4444);
    head.set_private(env.m, 0x5555);
    head.nth(2).set_mapping(env.m, 0x6666_7777);
    head.nth(63).set_private(env.m, 0x8888);
}

fn plain<M: Machine>(env: &Env<'_, M>, head: Page) {
    head.set_mapping(env.m, 0);
    head.set_private(env.m, 0);
    head.nth(2).set_mapping(env.m, 0);
    head.nth(63).set_private(env.m, 0);
}

fn is_folded<M: Machine>(env: &Env<'_, M>, head: Page) -> bool {
    vmemmap::is_optimized(env.m, head)
}

/// Head and first tails are the same bytes when folded, but for the flag, and
/// the same bytes after.
pub fn head_data_survives<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(7), Order::PMD, Order::of(15)] {
        let head = env.compound(order)?;
        write_marks(env, head);
        let before = head_data(env, head);
        env.fold(head, order)?;
        let mut folded = head_data(env, head);
        folded[0][0] = Flags::from_raw(folded[0][0])
            .without(Flags::VMEMMAP_OPTIMIZED)
            .raw();
        env.unfold(head, order)?;
        let after = head_data(env, head);
        plain(env, head);
        env.free_compound(head, order);
        check!(
            folded == before,
            "order {order}: head data changed by folding"
        );
        check!(
            after == before,
            "order {order}: head data changed by unfolding"
        );
    }
    Ok(())
}

/// A thousand times there and back, and not a bit or a frame is lost.
pub fn thousand_round_trips<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    write_marks(env, head);
    let before = (head_data(env, head), env.snapshot());
    for _ in 0..1000 {
        env.fold(head, order)?;
        env.unfold(head, order)?;
    }
    let tails = env.check_tails(head, order);
    let after = (head_data(env, head), env.snapshot());
    plain(env, head);
    env.free_compound(head, order);
    tails?;
    check!(after.0 == before.0, "head data");
    // The first fold may have split a leaf and made a shared tail: both are owned.
    check_eq!(after.1, before.1);
    Ok(())
}

/// Folios restored in another order than they were folded.
pub fn out_of_order_restore<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = env.snapshot();
    let order = Order::PMD;
    let mut heads: Vec<Page> = Vec::new();
    for _ in 0..16 {
        let Ok(head) = env.compound(order) else { break };
        env.fold(head, order)?;
        heads.push(head);
    }
    let mut random = Random::new(5);
    while !heads.is_empty() {
        let which = random.below(heads.len() as u64).try_into().unwrap_or(0);
        let head = heads.swap_remove(which);
        env.unfold(head, order)?;
        env.check_tails(head, order)?;
        env.free_compound(head, order);
        for folded in &heads {
            env.check_tails(*folded, order)?;
        }
    }
    env.same_as(&before)
}

/// Folding twice is an error, unfolding twice is nothing; neither changes a thing.
pub fn twice_is_refused<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let (data, once) = (head_data(env, head), env.snapshot());
    let again = env
        .mm
        .vmemmap
        .optimize_folio(env.m, &env.mm.nodes, head, order);
    let unchanged = head_data(env, head) == data && env.snapshot() == once;
    env.unfold(head, order)?;
    let (data, restored) = (head_data(env, head), env.snapshot());
    env.unfold(head, order)?;
    let still = head_data(env, head) == data && env.snapshot() == restored;
    env.free_compound(head, order);
    check_eq!(again, Err(HvoError::AlreadyOptimized));
    check!(unchanged, "a refused fold changed something");
    check!(still, "a second restore changed something");
    Ok(())
}

/// Frames that folding freed can be allocated, written and read, and the folded
/// memmap does not notice.
pub fn freed_frames_are_usable<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    let old: Vec<Pfn> = (0..8)
        .filter_map(|n| env.frame_of(env.memmap_frame(head, n)))
        .collect();
    check_eq!(old.len(), 8);
    env.fold(head, order)?;
    let mut held: Vec<Pfn> = Vec::new();
    let mut found = 0;
    while found < old.len() && held.len() < 100_000 {
        let placement = Placement::Prefer(head.node(env.m));
        let Some(frame) = env.alloc(Order::PAGE, placement) else {
            break;
        };
        found += usize::from(old.contains(&frame));
        env.m.fill_words(frame.phys(), 0xdead_beef_dead_beef, 512);
        held.push(frame);
    }
    let tails = env.check_tails(head, order);
    let readable = held
        .iter()
        .all(|f| env.m.read_phys(f.phys().offset(4088)) == 0xdead_beef_dead_beef);
    for frame in held {
        env.free(frame, Order::PAGE);
    }
    env.unfold(head, order)?;
    let after = env.check_tails(head, order);
    env.free_compound(head, order);
    tails?;
    after?;
    check!(
        readable,
        "a freed frame does not hold what was written to it"
    );
    check!(
        found >= old.len() - 1,
        "{found} of the {} old frames came back",
        old.len()
    );
    Ok(())
}

/// A batch of any size owes one flush.
pub fn batch_is_one_flush<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let before = env.snapshot();
    let mut list = PageList::new();
    for _ in 0..24 {
        let Ok(head) = env.compound(order) else { break };
        list.push(env.m, head);
    }
    let (nodes, count) = (&env.mm.nodes, list.len());
    let start = env.totals().flushes;
    let folded = env.mm.vmemmap.optimize_folios(env.m, nodes, &list, order);
    let middle = env.totals().flushes;
    let restored = env
        .mm
        .vmemmap
        .restore_folios(env.m, nodes, &list, order, Fill::Tails);
    let end = env.totals().flushes;
    while let Some(head) = list.pop(env.m) {
        env.free_compound(head, order);
    }
    check!(count > 1, "room for {count} folios only");
    check_eq!((folded, restored), (count, count));
    check_eq!(
        (middle - start, end - middle),
        (1, 1),
        "flushes to fold and unfold {count}"
    );
    env.same_as(&before)
}

/// Not frozen, not a head, wrong order, a tail in use: refused, nothing changed.
pub fn refuses_what_it_must<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    let before = env.snapshot();
    let fold = |head, order| {
        env.mm
            .vmemmap
            .optimize_folio(env.m, &env.mm.nodes, head, order)
    };
    head.set_ref_count(env.m, 3);
    let held = fold(head, order);
    head.set_ref_count(env.m, 0);
    let smaller = fold(head, Order::of(8));
    let bounds = fold(head, Order::of(6));
    let tail = fold(head.nth(1), order);
    let poisoned = if page::PAGE_CHECKS {
        head.nth(70)
            .set_flags(env.m, head.nth(70).flags(env.m).with(Flags::HWPOISON));
        let refused = fold(head, order);
        head.nth(70)
            .set_flags(env.m, head.nth(70).flags(env.m).without(Flags::HWPOISON));
        Some(refused)
    } else {
        None
    };
    let after = env.snapshot();
    env.free_compound(head, order);
    check_eq!(held, Err(HvoError::NotFrozen(3)));
    check_eq!(smaller, Err(HvoError::NotCompound(head)));
    check_eq!(bounds, Err(HvoError::OrderOutOfBounds(6)));
    check_eq!(tail, Err(HvoError::HeadMisaligned(head.nth(1))));
    check_eq!(after, before);
    if let Some(refused) = poisoned {
        check_eq!(refused, Err(HvoError::TailInUse(head.nth(70))));
    }
    Ok(())
}

/// T18: for every k, the k-th allocation of a fold fails. The block ends up
/// folded or as it was, the head's bytes are intact, nothing is lost.
pub(crate) fn fails_each_allocation<M: Machine>(
    env: &Env<'_, M>,
    order: Order,
    allocations: u64,
) -> Outcome {
    let head = env.compound(order)?;
    write_marks(env, head);
    let before = (head_data(env, head), env.snapshot());
    let (mut refused, mut folded) = (0, 0);
    for k in 0..allocations {
        env.m.fail_nth(FailPoint::PageAlloc, Some(k));
        let result = env
            .mm
            .vmemmap
            .optimize_folio(env.m, &env.mm.nodes, head, order);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        match result {
            Ok(()) => {
                folded += 1;
                env.check_tails(head, order)?;
                env.unfold(head, order)?;
            }
            Err(HvoError::NoMemory) => {
                refused += 1;
                check!(!is_folded(env, head), "k = {k}: refused but marked folded");
            }
            Err(error) => fail!("k = {k}: {error}"),
        }
        env.check_tails(head, order)?;
        check!(head_data(env, head) == before.0, "k = {k}: head data");
        check_eq!(env.snapshot(), before.1, "k = {k}");
    }
    plain(env, head);
    env.free_compound(head, order);
    // Tables are needed only while there are leaves to replace; slots of tails share one,
    // and can do without it.
    let tables = match vmemmap_pages(order) / 512 {
        _ if !env.m.page_size_may_change() => 0,
        slots if page::SHARES_ACROSS_NODE => slots.min(1),
        slots => slots,
    };
    check!(refused >= tables, "{refused} refusals for {tables} tables");
    check!(folded > 0, "never folded");
    Ok(())
}

/// T18 for 2 MiB: shared tail, table, the head's frame.
pub fn fails_each_allocation_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fails_each_allocation(env, Order::PMD, 6)
}

/// T19: no frame for the head. The folio is folded all the same and the head
/// keeps its frame.
pub fn fails_head_frame<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    // Once there and back, so that shared tail and table exist: then the head's
    // frame is the only allocation.
    env.fold(head, order)?;
    env.unfold(head, order)?;
    write_marks(env, head);
    let (data, frame, before) = (head_data(env, head), env.frame_of(head), env.snapshot());
    env.m.fail_nth(FailPoint::PageAlloc, Some(0));
    let result = env
        .mm
        .vmemmap
        .optimize_folio(env.m, &env.mm.nodes, head, order);
    env.m.fail_nth(FailPoint::PageAlloc, None);
    let kept = env.frame_of(head);
    let saved = env.totals().saved;
    let tails = env.check_tails(head, order);
    env.unfold(head, order)?;
    let (after, end) = (head_data(env, head), env.snapshot());
    plain(env, head);
    env.free_compound(head, order);
    tails?;
    check_eq!(result, Ok(()));
    check_eq!(kept, frame, "the head's frame");
    check!(saved >= 7, "saved {saved}");
    check!(after == data, "head data");
    check_eq!(end, before);
    Ok(())
}

/// Fails the k-th store of a table entry, for every k: everything is put back,
/// the head is the head, which in Linux is so by accident.
pub fn fails_each_store<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(7), Order::PMD, Order::of(12), Order::of(17)] {
        let head = env.compound(order)?;
        // After once there and back a block below order 15 has a table; a larger one
        // has leaves again, if there were free 2 MiB blocks for them.
        env.fold(head, order)?;
        env.unfold(head, order)?;
        let point = match paging::walk(env.m, env.m.root(), head.address()).level {
            Level::Pte => FailPoint::VmemmapPte,
            _ => FailPoint::VmemmapPmd,
        };
        write_marks(env, head);
        let (data, before) = (head_data(env, head), env.snapshot());
        let mut stopped = 0;
        let pages = vmemmap_pages(order);
        let step = usize::try_from(pages / 64).unwrap_or(1).max(1);
        for k in (0..=pages).step_by(if point == FailPoint::VmemmapPmd {
            1
        } else {
            step
        }) {
            env.m.fail_nth(point, Some(k));
            let result = env
                .mm
                .vmemmap
                .optimize_folio(env.m, &env.mm.nodes, head, order);
            env.m.fail_nth(point, None);
            match result {
                Ok(()) => env.unfold(head, order)?,
                Err(HvoError::Injected) => {
                    stopped += 1;
                    check!(
                        !is_folded(env, head),
                        "order {order}, k = {k}: marked folded"
                    );
                }
                Err(error) => fail!("order {order}, k = {k}: {error}"),
            }
            env.check_tails(head, order)?;
            check!(
                head_data(env, head) == data,
                "order {order}, k = {k}: head data"
            );
            check_eq!(env.snapshot(), before, "order {order}, k = {k}");
            if result.is_ok() {
                break;
            }
        }
        plain(env, head);
        env.free_compound(head, order);
        check!(stopped > 0, "order {order}: nothing was injected");
    }
    Ok(())
}

/// T20, vmemmap's part: fails the k-th allocation of a restore, for every k, with
/// contiguous blocks to be had and with single frames only. The folio stays folded
/// and intact, or is restored; a later try heals it.
pub fn fails_each_restore_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(7), Order::PMD, Order::of(16)] {
        let head = env.compound(order)?;
        write_marks(env, head);
        let refused = fail_restores(env, head, order, false)?;
        let held = env.take_all_but(vmemmap_pages(order) + 8)?;
        let scarce = fail_restores(env, head, order, true);
        drop(held);
        plain(env, head);
        env.free_compound(head, order);
        // The block is asked for first, then all frames but the head's. No block is where it
        // would become a leaf and may not.
        let pages = vmemmap_pages(order);
        let (with, singles) = match pages >= 512 && !env.m.page_size_may_change() {
            true => (20, 20),
            false => (0, (pages - 1).min(19)),
        };
        check_eq!(refused, with, "order {order}: refusals with memory");
        check_eq!(scarce?, singles, "order {order}: refusals without");
    }
    Ok(())
}

/// Folds the block and restores it with the k-th allocation failing, for every k
/// up to 20, and without any free block if `scarce`. How many were refused.
fn fail_restores<M: Machine>(
    env: &Env<'_, M>,
    head: Page,
    order: Order,
    scarce: bool,
) -> Result<u64, Stop> {
    let (data, before) = (head_data(env, head), env.snapshot());
    let mut refused = 0;
    for k in 0..20 {
        env.fold(head, order)?;
        let held = if scarce {
            env.take_blocks()
        } else {
            env.hold_nothing()
        };
        let folded = env.snapshot();
        env.m.fail_nth(FailPoint::PageAlloc, Some(k));
        let nodes = &env.mm.nodes;
        let result = env
            .mm
            .vmemmap
            .restore_folio(env.m, nodes, head, order, Fill::Tails);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        let kept = (is_folded(env, head), env.snapshot());
        drop(held);
        env.check_tails(head, order)?;
        if result == Err(HvoError::NoMemory) {
            refused += 1;
            check_eq!(kept, (true, folded), "order {order}, k = {k}");
        } else {
            check_eq!(result, Ok(()), "order {order}, k = {k}");
        }
        env.unfold(head, order)?;
        env.check_tails(head, order)?;
        check!(
            head_data(env, head) == data,
            "order {order}, k = {k}: head data"
        );
        check_eq!(env.snapshot(), before, "order {order}, k = {k}");
    }
    Ok(refused)
}
