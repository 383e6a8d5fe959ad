//! 1 GiB folios that the command line asked for: their memmap was never built in full
//! (T28). Skipped where there are none.

use ktest::{Outcome, Stop, check, check_eq, skip};
use mm::addr::{Order, PAGE_SIZE};
use mm::hugetlb::Hstate;
use mm::machine::Machine;
use mm::page::{HEAD_PAGES, Page, PageType, vmemmap_pages};
use mm::paging::{self, Level, PteFlags};

use crate::Env;

/// A folded folio, with a count of one.
fn take<'a, M: Machine>(env: &Env<'a, M>) -> Result<(&'a Hstate, Page), Stop> {
    let h = env.hstate(Order::PUD)?;
    let Some(head) = env.mm.nodes.online().find_map(|node| h.take(env.m, node)) else {
        skip!("no 1 GiB page was asked for at boot");
    };
    if !mm::vmemmap::is_optimized(env.m, head) {
        h.put(env.m, head);
        skip!("the 1 GiB page is not folded: HVO is off");
    }
    Ok((h, head))
}

/// One frame of struct pages is the folio's own, all other entries are read-only and
/// lead to the shared tail page; every tail finds the head.
pub fn one_frame_is_its_own<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (h, head) = take(env)?;
    let result = look(env, head);
    h.put(env.m, head);
    result
}

fn look<M: Machine>(env: &Env<'_, M>, head: Page) -> Outcome {
    let tail = env.tail_of(head, Order::PUD);
    for n in 0..vmemmap_pages(Order::PUD) {
        let at = head.address().offset(n * PAGE_SIZE);
        let entry = paging::walk(env.m, env.m.root(), at);
        check_eq!(entry.level, Level::Pte, "page {n} of the memmap");
        let writable = entry.pte.flags().contains(PteFlags::WRITABLE);
        check_eq!(writable, n == 0, "page {n} of the memmap");
        if n > 0 {
            check_eq!(Some(entry.pte.pfn()), tail, "page {n} of the memmap");
        }
    }
    check_eq!(head.page_type(env.m), PageType::HUGETLB);
    for n in [1, HEAD_PAGES - 1, HEAD_PAGES, 1 << 17, (1 << 18) - 1] {
        check!(head.nth(n).is_tail(env.m), "tail {n}");
        check_eq!(head.nth(n).compound_head(env.m), head, "tail {n}");
    }
    Ok(())
}

/// Given back, it is memory like any other, with all its struct pages; asked for
/// again, it is folded, and nothing has been lost.
pub fn goes_and_comes_back<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (h, head) = take(env)?;
    let node = head.node(env.m);
    h.put(env.m, head);
    let hugetlb = &env.mm.hugetlb;
    let (before, was) = (env.snapshot(), env.totals().folded);
    let removed = hugetlb.shrink(env.m, env.backing(), h, Some(node), 1);
    check_eq!(removed, 1, "a free folio goes");
    let folded = env.totals().folded;
    let optimizes = hugetlb.optimizes();
    hugetlb.set_optimize(true);
    let added = hugetlb.grow(env.m, env.backing(), h, Some(node), 1);
    hugetlb.set_optimize(optimizes);
    check_eq!(added, 1, "its memory is whole again");
    check_eq!(folded + 1, was, "while it was away");
    env.same_as(&before)
}
