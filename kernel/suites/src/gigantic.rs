//! Blocks whose memmap is one or more whole 2 MiB leaves: orders 15 to 22, and the
//! 1 GiB pool (Linux's tests never go above 1 GiB).
//!
//! A suite of its own that runs early: later ones leave page tables and restored
//! memmap all over the machine, as they do in Linux, and then few blocks are whole.

use ktest::{Outcome, check_eq, skip};
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, PUD_SIZE};
use mm::machine::Machine;
use mm::page::{self, vmemmap_pages};
use mm::paging;

use crate::{Env, hugetlb, hvo, hvo_orders};

macro_rules! order {
    ($($name:ident: $order:literal),*) => { $(
        /// This order; skipped where no free block is large enough.
        pub fn $name<M: Machine>(env: &Env<'_, M>) -> Outcome {
            hvo_orders::round_trip(env, Order::of($order))
        }
    )* };
}

order! {
    order_15: 15, order_16: 16, order_17: 17, order_18: 18, order_19: 19, order_20: 20,
    order_21: 21, order_22: 22
}

/// T1 for 1 GiB: 262,144 pages.
pub fn flags_of_every_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hugetlb::flags_of_every_page(env, Order::PUD)
}

/// T2 for 1 GiB.
pub fn accounting_is_exact<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hugetlb::accounting_is_exact(env, Order::PUD, 2)
}

/// Data in a folio mapped by a 1 GiB leaf.
pub fn mapped_data_survives<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hugetlb::mapped_data_survives(env, Order::PUD, env.scratch.offset(PUD_SIZE * 9))
}

/// What a folded block of 1 GiB has to itself, by the live tables: the frame with its head
/// and one page table, 8 KiB. All else is the node's.
pub fn keeps_8_kib<M: Machine>(env: &Env<'_, M>) -> Outcome {
    if !page::SHARES_ACROSS_NODE {
        skip!("this build shares struct pages within a folio only");
    }
    let head = env.compound(Order::PUD)?;
    env.fold(head, Order::PUD)?;
    let tail = env.tail_of(head, Order::PUD);
    let shared = env.mm.vmemmap.existing_table(head.node(env.m), Order::PUD);
    let (mut frames, mut tables) = (0, 0);
    for n in 0..vmemmap_pages(Order::PUD) {
        let at = head.address().offset(n * PAGE_SIZE);
        let entry = paging::walk(env.m, env.m.root(), at);
        frames += u64::from(Some(entry.pte.pfn()) != tail);
        let table = Some(entry.at.pfn());
        tables += u64::from(at.is_aligned(PMD_SIZE) && table != shared);
    }
    env.unfold(head, Order::PUD)?;
    env.free_compound(head, Order::PUD);
    check_eq!((frames, tables), (1, 1));
    Ok(())
}

/// T18 for 1 GiB: the shared table, the head's slot's own, and the head's frame.
pub fn fails_each_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hvo::fails_each_allocation(env, Order::PUD, 12)
}
