//! Folding and unfolding a block of every order from 7 to 14, by vmemmap's own
//! interface. Larger ones are in [`crate::gigantic`].

use ktest::{Outcome, check, check_eq};
use mm::addr::Order;
use mm::machine::Machine;
use mm::page::{self, vmemmap_pages};
use mm::paging;

use crate::Env;

macro_rules! order {
    ($($name:ident: $order:literal),*) => { $(
        /// This order; skipped where no free block is large enough.
        pub fn $name<M: Machine>(env: &Env<'_, M>) -> Outcome {
            round_trip(env, Order::of($order))
        }
    )* };
}

order! {
    order_07: 7, order_08: 8, order_09: 9, order_10: 10, order_11: 11, order_12: 12,
    order_13: 13, order_14: 14
}

pub(crate) fn round_trip<M: Machine>(env: &Env<'_, M>, order: Order) -> Outcome {
    let before = env.snapshot();
    let head = env.compound(order)?;
    let pages = vmemmap_pages(order);
    let memmap = env.memmap_pages();
    let saved = env.totals().saved;
    env.fold(head, order)?;
    check_eq!(memmap - env.memmap_pages(), pages - 1, "frames freed");
    check_eq!(env.totals().saved - saved, pages - 1, "frames saved");

    let tail = env.tail_of(head, order);
    check_eq!(
        env.frame_of(env.memmap_frame(head, 1)),
        tail,
        "frame of the second page of memmap"
    );
    check_eq!(
        env.frame_of(env.memmap_frame(head, pages - 1)),
        tail,
        "frame of the last"
    );
    check!(
        env.frame_of(head) != tail || !page::SHARES_ACROSS_NODE,
        "the head is private"
    );
    env.check_tails(head, order)?;
    check_eq!(page::folio_order(env.m, head), order);

    env.unfold(head, order)?;
    check_eq!(env.memmap_pages(), memmap, "frames taken back");
    env.check_tails(head, order)?;
    if pages >= 512 {
        let entry = paging::walk(env.m, env.m.root(), head.address());
        let may_be = env.m.page_size_may_change();
        check!(
            (entry.level == paging::Level::Pmd) == may_be
                || may_be && env.mm.nodes.total_free(env.m) < pages,
            "the slot is one leaf again, if it may be (A-8)"
        );
    }
    env.free_compound(head, order);
    // The shared tail stays, and so do tables of slots that are shared.
    env.same_as(&before)
}
