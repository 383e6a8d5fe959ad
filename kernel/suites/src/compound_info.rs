//! The word in compound_info, and the folio functions on top of it.

use ktest::{Outcome, check, check_eq};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::machine::Machine;
use mm::page::encoding::{Chosen, Encoding};
use mm::page::{self, Memmap, STRUCT_PAGE_SIZE, Shape, vmemmap_pages};

use crate::Env;

/// The words for orders 7, 9, 18 and 22 as Linux has them, for a head at 3/4 of the
/// alignment of the largest.
pub fn matches_the_table<M: Machine>(_env: &Env<'_, M>) -> Outcome {
    let memmap = Memmap::new(VirtAddr::new(0xffff_ea00_0000_0000));
    let head = memmap.page(Pfn::new(3 << 22));
    for (order, pages, info) in [
        (7, 2, 0xffff_ffff_ffff_e001),
        (9, 8, 0xffff_ffff_ffff_8001),
        (18, 4096, 0xffff_ffff_ff00_0001),
        (22, 65536, 0xffff_ffff_f000_0001),
    ] {
        let expected = match Chosen::NAME {
            "mask" => info,
            "order" => u64::from(order) << 1 | 1,
            _ => head.address().as_u64() | 1,
        };
        check_eq!(head.tail_info(Order::of(order)).raw(), expected);
        check_eq!(
            vmemmap_pages(Order::of(order)),
            pages * STRUCT_PAGE_SIZE / 64
        );
    }
    Ok(())
}

/// Of a block that is nowhere but in this test's memory, each page's word leads home.
pub fn leads_to_the_head<M: Machine>(_env: &Env<'_, M>) -> Outcome {
    let memmap = Memmap::new(VirtAddr::new(0xffff_ea00_0000_0000));
    for order in Order::range_inclusive(Order::of(1), Order::MAX) {
        let head = memmap.page(Pfn::new(3 * order.pages()));
        let info = head.tail_info(order);
        check!(info.is_tail());
        let load = |_| info.raw();
        for n in [1, order.pages() / 2, order.pages() - 1] {
            let tail = head.nth(n).address();
            let found = Chosen::folio::<Shape>(&load, tail);
            check_eq!(found, head.address(), "tail {n} of order {order}");
        }
    }
    let own = memmap.page(Pfn::new(12_345)).address();
    check_eq!(Chosen::folio::<Shape>(&|_| 0, own), own);
    Ok(())
}

/// Every page of a compound page finds its head; its neighbours find themselves.
pub fn head_of_every_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(1), Order::of(5), Order::of(7), Order::PMD] {
        let head = env.compound(order)?;
        let tails = env.check_tails(head, order);
        let own = head.compound_head(env.m);
        let folio = page::page_folio(env.m, head.nth(order.pages() - 1));
        env.free_compound(head, order);
        tails?;
        check_eq!(own, head);
        check_eq!(folio, Some(head));
        for n in 0..order.pages() {
            let page = head.nth(n);
            check_eq!(
                page.compound_head(env.m),
                page,
                "freed page {n} of order {order}"
            );
        }
    }
    Ok(())
}

/// A count of zero is never touched, not even that of a folded tail, where a locked
/// instruction would fault; others go up and down.
pub fn counts_load_first<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::of(2);
    let head = env.compound(order)?;
    let frozen = page::folio_try_get(env.m, head);
    let tail = page::folio_try_get(env.m, head.nth(1));
    head.set_ref_count(env.m, 1);
    let taken = page::folio_try_get(env.m, head);
    let count = page::folio_ref_count(env.m, head);
    let last = (page::folio_put(env.m, head), page::folio_put(env.m, head));
    env.free_compound(head, order);
    let order = Order::PMD;
    let head = env.compound(order)?;
    env.fold(head, order)?;
    let folded = page::folio_try_get(env.m, head.nth(order.pages() - 1));
    env.unfold(head, order)?;
    env.free_compound(head, order);
    check!(!folded, "a reference on a folded tail");
    check!(!frozen, "a reference on a frozen page");
    check!(!tail, "a reference on a tail");
    check!(taken && count == 2, "count {count}");
    check_eq!(last, (false, true), "which put was the last");
    Ok(())
}

/// folio_order and folio_nr_pages, for heads and for single pages.
pub fn folio_size<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in [Order::of(1), Order::of(4), Order::PMD] {
        let head = env.compound(order)?;
        let found = (
            page::folio_order(env.m, head),
            page::folio_nr_pages(env.m, head),
        );
        env.free_compound(head, order);
        check_eq!(found, (order, order.pages()));
    }
    let single = env.page(env.block(Order::PAGE)?);
    check_eq!(page::folio_nr_pages(env.m, single), 1);
    check_eq!(
        page::page_folio(env.m, single),
        None,
        "an allocated frame that is no folio"
    );
    env.free(env.mm.vmemmap.memmap().pfn(single), Order::PAGE);
    Ok(())
}
