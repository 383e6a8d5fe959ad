//! Blocks whose memmap is one or more whole 2 MiB leaves: orders 15 to 22, and the
//! 1 GiB pool (R17: Linux's tests never go above 1 GiB).
//!
//! A suite of its own that runs early: later ones leave page tables and restored
//! memmap all over the machine, as they do in Linux, and then few blocks are whole.

use ktest::Outcome;
use mm::addr::{Order, PUD_SIZE};
use mm::machine::Machine;

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

/// T18 for 1 GiB: each of the eight tables, and the head's frame.
pub fn fails_each_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hvo::fails_each_allocation(env, Order::PUD, 12)
}
