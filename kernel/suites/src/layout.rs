//! What the layout that this kernel was built with promises of sharing, looked at in the
//! bytes of the struct pages.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq};
use mm::addr::{Order, PAGE_SIZE};
use mm::machine::Machine;
use mm::page::encoding::Sharing;
use mm::page::{self, HEAD_PAGES, Page, STRUCT_PAGE_SIZE};
use mm::vmemmap::{self, HvoError};

use crate::Env;

/// The bytes of the frames of memmap of the block at `head`, the first frame left out.
fn frames_of_tails<M: Machine>(env: &Env<'_, M>, head: Page, order: Order) -> Vec<Vec<u64>> {
    let bytes = order.pages() * STRUCT_PAGE_SIZE;
    (1..bytes / PAGE_SIZE)
        .map(|n| {
            let words = (0..PAGE_SIZE / 8).map(|word| n * PAGE_SIZE + word * 8);
            words
                .map(|at| env.m.load64(head.address().offset(at)))
                .collect()
        })
        .collect()
}

/// T29 and its counterpart: unfolded, frames of tails are the same bytes exactly where
/// the layout says that they can be one frame.
pub fn frames_are_alike_where_it_says<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let (a, b) = (env.compound(order)?, env.compound(order)?);
    let (first, second) = (
        frames_of_tails(env, a, order),
        frames_of_tails(env, b, order),
    );
    let same_node = a.node(env.m) == b.node(env.m);
    for head in [a, b] {
        env.free_compound(head, order);
    }
    let within = first.windows(2).all(|pair| pair[0] == pair[1]);
    check_eq!(
        within,
        STRUCT_PAGE_SIZE.is_power_of_two(),
        "frames of tails of one folio are alike"
    );
    if same_node {
        let across = first == second;
        check_eq!(
            across,
            page::SHARES_ACROSS_NODE,
            "two folios' tails are alike"
        );
    }
    Ok(())
}

/// HVO does what this build says it can, or refuses with the reason and changes nothing.
pub fn folds_or_refuses<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let before = env.snapshot();
    let head = env.compound(order)?;
    let nodes = &env.mm.nodes;
    let folded = env.mm.vmemmap.optimize_folio(env.m, nodes, head, order);
    let (marked, tail) = (vmemmap::is_optimized(env.m, head), env.tail_of(head, order));
    let last = head.nth(order.pages() - 1);
    let (home, frame) = (last.compound_head(env.m), env.frame_of(last));
    if folded.is_ok() {
        env.unfold(head, order)?;
    }
    env.free_compound(head, order);
    check_eq!(folded, page::HVO.map(|_| ()).map_err(HvoError::Refused));
    check_eq!(marked, folded.is_ok(), "the mark");
    check_eq!(home, head, "head of the last page");
    check_eq!(
        frame == tail,
        folded.is_ok(),
        "the last page's frame is the shared one"
    );
    check_eq!(
        vmemmap::optimizable_bytes(order) > 0,
        page::HVO.is_ok(),
        "what the log says can be freed"
    );
    env.same_as(&before)
}

/// Where the head's frame is all of a folio's memmap, every frame of tails starts with
/// struct pages that have the head's flags, type and count, and what the first tails keep
/// for the folio; they are tails all the same. Elsewhere no tail has anything of that.
pub fn tails_show_the_head_or_not<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    let head = env.compound(order)?;
    let folds = page::HVO.is_ok();
    if folds {
        env.fold(head, order)?;
    }
    head.set_ref_count(env.m, 3);
    let fake = head.nth(HEAD_PAGES);
    let shown = (
        fake.flags(env.m).contains(page::Flags::HEAD),
        fake.ref_count(env.m),
    );
    // Behind it: the first tail, which has the order.
    let (second, order_shown) = (fake.nth(1), u64::from(order.get()));
    let private = second.private(env.m);
    let next = (second.is_tail(env.m), second.compound_head(env.m));
    let seen = (fake.is_tail(env.m), fake.is_head(env.m));
    let home = page::page_folio(env.m, fake);
    let got = page::folio_try_get(env.m, fake);
    head.set_ref_count(env.m, 0);
    if folds {
        env.unfold(head, order)?;
    }
    env.free_compound(head, order);
    let fakes = page::HVO == Ok(Sharing::WithinFolio);
    check_eq!(
        shown,
        (fakes, if fakes { 3 } else { 0 }),
        "head flag and count"
    );
    check_eq!(private, if fakes { order_shown } else { 0 }, "order");
    check_eq!(next, (true, head), "the tail behind");
    check_eq!(seen, (true, false), "tail, head");
    check_eq!(home, Some(head));
    check!(!got, "a reference on a tail");
    Ok(())
}
