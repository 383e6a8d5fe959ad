//! Memory that runs out at the `k`th allocation, for every `k`: a fold or an
//! unfold that cannot be done has not been begun.

use mm::addr::Order;
use mm::machine::FailPoint;
use mm::page::{self, Page};
use mm::vmemmap::{Fill, HvoError};
use testkit::records::Folio;
use testkit::{Injection, World};

/// One slot in part, one slot, four slots.
const ORDERS: [u8; 3] = [9, 15, 17];

fn begin(order: u8) -> (World, Page, Folio) {
    let w = World::builder().ram(0, 1, 2048).boot();
    let head = w
        .compound(0, Order::of(order), true)
        .expect("empty machine");
    let at = head.address();
    let mut folio = Folio {
        head: at,
        node: 0,
        order,
        folded: false,
        tails: true,
        mark: 0,
    };
    folio.write_mark(&w.m, 0x4321);
    (w, head, folio)
}

/// Everything in order, and freed frames back in their free blocks.
fn check(w: &World, folio: &Folio) {
    folio.check(&w.m, 61);
    w.check();
}

/// T18, T19: the shared tail, the shared table where slots are all tails, the head's slot's
/// own, the head's frame.
#[test]
fn folding_when_memory_runs_out() {
    for order in ORDERS {
        let tables = if order > 15 { 2 } else { 1 };
        for k in 1.. {
            let (w, head, mut folio) = begin(order);
            let free = w.free_pages();
            w.m.fail(FailPoint::PageAlloc, Injection::From(k));
            let result = w.fold(head, Order::of(order));
            w.m.fail(FailPoint::PageAlloc, Injection::Never);
            let totals = w.vmemmap().ledger().totals();
            if result == Err(HvoError::NoMemory) {
                assert!(
                    k <= 1 + tables,
                    "order {order}: allocation {k} is not needed"
                );
                assert_eq!(
                    free - w.free_pages(),
                    totals.tails + totals.shared_tables,
                    "order {order}, k {k}: only what is shared stays"
                );
                check(&w, &folio);
                continue;
            }
            // Only the head's new frame may be missing: the head stays put.
            assert_eq!(result, Ok(()), "order {order}, k {k}");
            assert!(
                k > 1 + tables,
                "order {order}, k {k}: a table out of nothing"
            );
            folio.folded = true;
            check(&w, &folio);
            w.unfold(head, Order::of(order), Fill::Tails)
                .expect("memory is back");
            folio.folded = false;
            check(&w, &folio);
            if k > 2 + tables {
                break;
            }
        }
    }
}

/// T20: a restore takes whole slots while it can, then single frames, and gives
/// all of them back if they are not enough.
#[test]
fn unfolding_when_memory_runs_out() {
    for order in ORDERS {
        let slots = 1u64 << order.saturating_sub(15);
        let mut refused = 0;
        for k in 1..=slots + 3 {
            let (w, head, mut folio) = begin(order);
            w.fold(head, Order::of(order)).expect("memory");
            folio.folded = true;
            let (free, totals) = (w.free_pages(), w.vmemmap().ledger().totals());
            w.m.fail(FailPoint::PageAlloc, Injection::From(k));
            let result = w.unfold(head, Order::of(order), Fill::Tails);
            w.m.fail(FailPoint::PageAlloc, Injection::Never);
            if k <= slots {
                refused += 1;
                assert_eq!(result, Err(HvoError::NoMemory), "order {order}, k {k}");
                assert_eq!(
                    w.free_pages(),
                    free,
                    "order {order}, k {k}: frames are kept"
                );
                let now = w.vmemmap().ledger().totals();
                assert_eq!((now.pages, now.saved), (totals.pages, totals.saved));
                check(&w, &folio);
                w.unfold(head, Order::of(order), Fill::Tails)
                    .expect("memory is back");
            } else {
                assert_eq!(result, Ok(()), "order {order}, k {k}");
            }
            folio.folded = false;
            check(&w, &folio);
        }
        assert_eq!(refused, slots, "order {order}");
    }
}

/// When only large blocks are short, single frames do: the slots that got no
/// block keep their tables, the others become leaves again.
#[test]
fn unfolding_without_enough_large_blocks() {
    let order = Order::of(17);
    for k in 1..=4 {
        let (w, head, mut folio) = begin(order.get());
        w.fold(head, order).expect("memory");
        w.m.fail(FailPoint::PageAlloc, Injection::Kth(k));
        w.unfold(head, order, Fill::Tails).expect("single frames");
        w.m.fail(FailPoint::PageAlloc, Injection::Never);
        folio.folded = false;
        check(&w, &folio);
        let report = w.audit();
        let own = report.tables - report.shared_tables;
        assert_eq!(own, 4 - (k - 1), "slots that got no block");
        folio.write_mark(&w.m, 0);
        w.dissolve(head, order);
        w.check();
    }
}

/// A single frame that is missing, in the middle of many: all come back.
#[test]
fn unfolding_when_single_frames_run_out() {
    let order = Order::of(16);
    for k in [2, 3, 400, 513] {
        let (w, head, mut folio) = begin(order.get());
        w.fold(head, order).expect("memory");
        folio.folded = true;
        // No block of 2 MiB is left: every one is held, but for single pages.
        let mut held = Vec::new();
        while let Some(block) = w.compound(0, Order::PMD, true) {
            held.push(block);
        }
        let loose = held.pop().expect("there was memory");
        let nodes = &w.mm.nodes;
        page::undo_compound_tails(&w.m, loose, Order::PMD);
        page::undo_compound_head(&w.m, loose, Order::PMD);
        let first = w.memmap().pfn(loose);
        mm::frames::FrameSource::split(nodes, &w.m, first, Order::PMD);
        for n in (0..512).step_by(2) {
            mm::frames::FrameSource::free(nodes, &w.m, first.offset(n), Order::PAGE);
        }
        let free = w.free_pages();
        w.m.fail(FailPoint::PageAlloc, Injection::From(k));
        let result = w.unfold(head, order, Fill::Tails);
        w.m.fail(FailPoint::PageAlloc, Injection::Never);
        assert_eq!(result, Err(HvoError::NoMemory));
        assert_eq!(w.free_pages(), free, "k {k}: frames are kept");
        check(&w, &folio);
        // A block of the size of the missing ones heals it.
        for block in held {
            w.dissolve(block, Order::PMD);
        }
        w.unfold(head, order, Fill::Tails).expect("memory is back");
        folio.folded = false;
        check(&w, &folio);
    }
}

/// Bulk: what ran out of memory is retried with what the batch itself has freed.
#[test]
fn a_batch_pays_for_its_own_tables() {
    let order = Order::of(15);
    let w = World::builder().ram(0, 1, 2048).boot();
    let mut list = page::PageList::new();
    let mut heads = Vec::new();
    while let Some(head) = w.compound(0, order, true) {
        list.push(&w.m, head);
        heads.push(head);
    }
    assert!(heads.len() > 8, "{}", heads.len());
    // Take all that is left, down to four frames: tail, table, head, and one.
    let mut held = Vec::new();
    while w.free_pages() > 4 {
        let placement = mm::frames::Placement::Only(mm::addr::NodeId::ZERO);
        let page = mm::frames::FrameSource::alloc(&w.mm.nodes, &w.m, Order::PAGE, placement);
        held.push(page.expect("some are left"));
    }
    let folded = w.vmemmap().optimize_folios(&w.m, &w.mm.nodes, &list, order);
    assert_eq!(
        folded,
        heads.len() as u64,
        "each block's frames pay for the next one's table"
    );
    w.check();
    while list.pop(&w.m).is_some() {}
    for head in heads {
        w.unfold(head, order, Fill::Tails)
            .expect("what it freed is still free");
        w.dissolve(head, order);
    }
    w.check();
}
