//! The buddy allocator: splitting, merging, running dry, misuse.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq};
use mm::addr::{NodeId, Order, Pfn};
use mm::buddy::Misuse;
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;

use crate::{Env, Random};

/// A block of each order can be had, is aligned, and is whole again once freed.
pub fn splits_and_merges<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = blocks(env);
    for order in Order::range_inclusive(Order::PAGE, Order::MAX) {
        let placement = Placement::Prefer(NodeId::ZERO);
        let Some(block) = env.alloc(order, placement) else {
            continue;
        };
        check!(block.is_aligned(order), "{block:?} of order {order}");
        env.free(block, order);
        check_eq!(blocks(env), before, "free lists after order {order}");
    }
    Ok(())
}

/// Blocks of many orders at once do not overlap, and come back in any order.
pub fn keeps_orders_apart<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = blocks(env);
    let mut random = Random::new(2);
    let mut held: Vec<(Pfn, Order)> = Vec::new();
    for _ in 0..400 {
        let order = Order::clamped(random.below(10).try_into().unwrap_or(0));
        if random.below(3) > 0 {
            let placement = Placement::Prefer(NodeId::ZERO);
            let Some(block) = env.alloc(order, placement) else {
                continue;
            };
            let new = block.block(order);
            let overlap = held
                .iter()
                .find(|(b, o)| !b.block(*o).intersect(new).is_empty());
            check!(
                overlap.is_none(),
                "{block:?} order {order} overlaps {overlap:?}"
            );
            held.push((block, order));
        } else if !held.is_empty() {
            let which = random.below(held.len() as u64).try_into().unwrap_or(0);
            let (block, order) = held.swap_remove(which);
            env.free(block, order);
        }
    }
    for (block, order) in held {
        env.free(block, order);
    }
    check_eq!(blocks(env), before, "free lists");
    Ok(())
}

/// All memory can be taken in blocks of 2 MiB and less, then there is `None`; and
/// all of it comes back, in the blocks it was.
pub fn exhausts_and_recovers<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = blocks(env);
    let mut held: Vec<(Pfn, Order)> = Vec::new();
    let mut taken = 0;
    for order in [Order::of(14), Order::PMD, Order::of(3), Order::PAGE] {
        let placement = Placement::Prefer(NodeId::ZERO);
        while let Some(block) = env.alloc(order, placement) {
            held.push((block, order));
            taken += order.pages();
        }
    }
    let left = env.mm.nodes.total_free(env.m);
    let none = env
        .mm
        .nodes
        .alloc(env.m, Order::PAGE, Placement::Prefer(NodeId::ZERO));
    let total: u64 = taken + left;
    for (block, order) in held {
        env.free(block, order);
    }
    check_eq!(left, 0, "pages left");
    check_eq!(none, None, "from an empty machine");
    check_eq!(env.mm.nodes.total_free(env.m), total, "free again");
    check_eq!(blocks(env), before, "free lists");
    Ok(())
}

/// Double free, wrong order, foreign frame and misaligned block are told apart.
pub fn names_misuse<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::of(3);
    let block = env.block(order)?;
    let check = |block, order| env.mm.nodes.check_free(env.m, block, order);
    let good = check(block, order);
    let wrong = check(block, Order::of(2));
    let middle = check(block.offset(4), Order::of(2));
    let misaligned = check(block.offset(1), order);
    env.free(block, order);
    let twice = check(block, order);
    let reserved = check(env.m.root(), Order::PAGE);
    check_eq!(good, Ok(()));
    check_eq!(
        wrong,
        Err(Misuse::WrongOrder {
            block,
            allocated: order,
            freed: Order::of(2)
        })
    );
    check_eq!(
        middle,
        Err(Misuse::Foreign {
            block: block.offset(4)
        })
    );
    check_eq!(
        misaligned,
        Err(Misuse::Misaligned {
            block: block.offset(1),
            order
        })
    );
    check!(
        matches!(twice, Err(Misuse::DoubleFree { .. })),
        "freeing twice is {twice:?}"
    );
    check_eq!(
        reserved,
        Err(Misuse::Foreign {
            block: env.m.root()
        })
    );
    Ok(())
}

/// A block split into single frames comes back whole, whatever the pieces.
pub fn freed_ranges_merge<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = blocks(env);
    let block = env.block(Order::PMD)?;
    env.mm.nodes.split(env.m, block, Order::PMD);
    for (first, pages) in [(0, 1), (8, 504), (1, 7)] {
        env.mm.nodes.free_pages(env.m, block.offset(first), pages);
    }
    check_eq!(blocks(env), before, "free lists");
    Ok(())
}

/// Free blocks by node and order, as `/proc/buddyinfo` shows them.
fn blocks<M: Machine>(env: &Env<'_, M>) -> Vec<(NodeId, [u64; Order::COUNT])> {
    let orders = || Order::range_inclusive(Order::PAGE, Order::MAX);
    let count = |node| {
        env.mm.nodes.get(node).with_buddy(env.m, |buddy| {
            let mut counts = [0; Order::COUNT];
            for order in orders() {
                counts[order.index()] = buddy.free_blocks(order);
            }
            counts
        })
    };
    env.mm
        .nodes
        .online()
        .map(|node| (node, count(node)))
        .collect()
}
