//! Allocators under all CPUs at once, and whose memory a CPU is given.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq, fail, skip};
use mm::addr::{ENTRIES, NodeId, Order, Pfn};
use mm::frames::Placement;
use mm::hugetlb::HugeTlb;
use mm::machine::Machine;
use mm::page::Page;

use super::{Party, several};
use crate::{Env, Random};

/// All CPUs allocate and free blocks of small orders: no frame has two owners (INV-5),
/// and the counts of free pages are right afterwards.
pub fn no_frame_has_two_owners<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const BLOCKS: u64 = 1200;
    /// Blocks a CPU holds at most.
    const HELD: usize = 24;
    let cpus = several(env)?;
    let (m, nodes) = (env.m, &env.mm.nodes);
    let online: Vec<NodeId> = nodes.online().collect();
    let before: Vec<u64> = online.iter().map(|n| nodes.get(*n).free_pages(m)).collect();
    Party::run(m, |party, cpu| {
        let mut random = Random::new(cpu as u64 + 1);
        let mut mine: Vec<(Pfn, Order, u64)> = Vec::new();
        let give_back = |(block, order, stamp): (Pfn, Order, u64)| -> Outcome {
            for word in [0, order.pages() * ENTRIES - 1] {
                let found = m.read_phys(block.phys().offset(word * 8));
                check_eq!(found, stamp, "word {word} of {block:?}, order {order}");
            }
            env.free(block, order);
            Ok(())
        };
        for n in 0..BLOCKS / cpus as u64 {
            let order = Order::clamped(u32::try_from(random.below(5)).unwrap_or(0));
            let node = online[usize::try_from(n).unwrap_or(0) % online.len()];
            if let Some(block) = env.alloc(order, Placement::Prefer(node)) {
                let stamp = (n << 8) | cpu as u64;
                m.write_phys(block.phys(), stamp);
                let last = order.pages() * ENTRIES - 1;
                m.write_phys(block.phys().offset(last * 8), stamp);
                mine.push((block, order, stamp));
            }
            if mine.len() > HELD || (n % 3 == 0 && !mine.is_empty()) {
                let which = usize::try_from(random.below(mine.len() as u64)).unwrap_or(0);
                give_back(mine.swap_remove(which))?;
            }
            m.touch_watchdog();
            if party.is_broken() {
                break;
            }
        }
        mine.into_iter().try_for_each(give_back)
    })?;
    let after: Vec<u64> = online.iter().map(|n| nodes.get(*n).free_pages(m)).collect();
    check_eq!(after, before, "free pages, node by node");
    Ok(())
}

/// Runs `case` with pools of its own that hold `count` 2 MiB folios on each of `online`.
fn with_pools<M: Machine>(
    env: &Env<'_, M>,
    online: &[NodeId],
    count: u64,
    case: impl FnOnce(&HugeTlb) -> Outcome,
) -> Outcome {
    let (m, before) = (env.m, env.snapshot());
    let pools = Box::new(HugeTlb::new());
    pools.init(m, env.mm.vmemmap.memmap());
    let Some(h) = pools.hstate(Order::PMD) else {
        fail!("no pools of 2 MiB folios");
    };
    let mut added = 0;
    for node in online {
        added += pools.grow(m, env.backing(), h, Some(*node), count);
    }
    let outcome = if added == count * online.len() as u64 {
        case(&pools)
    } else {
        Err(ktest::Stop::skipped(format_args!(
            "no room for {count} folios of 2 MiB on each node"
        )))
    };
    if outcome.is_err() {
        env.kept.put_folios(env, h);
    }
    let counts = h.total(m);
    let removed = pools.shrink(m, env.backing(), h, None, counts.nr);
    outcome?;
    check_eq!((counts.nr, counts.free), (added, added), "folios, and free");
    check_eq!(removed, added, "folios given back");
    env.same_as(&before)
}

/// All CPUs take folios from the same few, and put them back: none is ever taken by two.
pub fn no_folio_has_two_owners<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const TURNS: u64 = 2000;
    let cpus = several(env)?;
    let m = env.m;
    let near = [m.this_node()];
    // One less than there are CPUs, so that some find the pool empty.
    with_pools(env, &near, cpus as u64 - 1, |pools| {
        let h = pools.hstates().next();
        let Some(h) = h else { fail!("no pool") };
        Party::run(m, |party, cpu| {
            for turn in 0..TURNS / cpus as u64 {
                let Some(folio) = h.take(m, near[0]) else {
                    continue;
                };
                let mark = (turn << 8) | (cpu as u64 + 1);
                check_eq!(folio.mapping(m), 0, "{folio:?} has an owner");
                folio.set_mapping(m, mark);
                check_eq!(folio.ref_count(m), 1, "{folio:?}");
                check_eq!(folio.mapping(m), mark, "{folio:?}");
                folio.set_mapping(m, 0);
                h.put(m, folio);
                m.touch_watchdog();
                if party.is_broken() {
                    break;
                }
            }
            Ok(())
        })
    })
}

/// Nodes with memory that have a CPU, or a skip if those are not two.
fn nodes_with_cpus<M: Machine>(env: &Env<'_, M>) -> Result<Vec<NodeId>, ktest::Stop> {
    several(env)?;
    let m = env.m;
    let has_cpu = |node: &NodeId| (0..m.cpus()).any(|cpu| m.node_of_cpu(cpu) == *node);
    let has_memory = |node: &NodeId| env.mm.nodes.get(*node).present_pages() > 0;
    let online = env.mm.nodes.online();
    let both: Vec<NodeId> = online.filter(|n| has_cpu(n) && has_memory(n)).collect();
    if both.len() < 2 {
        skip!("fewer than two nodes have both memory and a CPU");
    }
    Ok(both)
}

/// Whose CPU asks, of that node is the block, as long as there is one; then another's.
pub fn blocks_are_local<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let online = nodes_with_cpus(env)?;
    let (m, nodes) = (env.m, &env.mm.nodes);
    Party::run(m, |party, cpu| {
        let own = m.node_of_cpu(cpu);
        check_eq!(m.this_node(), own, "node of the CPU that runs this");
        let block = env.block(Order::PMD)?;
        party.meet()?;
        let got = env.page(block).node(m);
        env.free(block, Order::PMD);
        check!(
            got == own || !online.contains(&own),
            "{got:?}'s block for a CPU of {own:?}"
        );
        Ok(())
    })?;
    // The largest order that another node has a block of; of the own node, all taken.
    let own = m.this_node();
    let others = || online.iter().filter(|node| **node != own);
    let largest = Order::range_inclusive(Order::PMD, Order::MAX)
        .rev()
        .find(|order| others().any(|n| nodes.get(*n).with_buddy(m, |b| b.free_blocks(*order)) > 0));
    let Some(order) = largest else {
        skip!("no other node has a block of 2 MiB");
    };
    let mut held = Vec::new();
    held.extend(core::iter::from_fn(|| {
        env.alloc(order, Placement::Only(own))
    }));
    let far = env.alloc(order, Placement::local(m));
    let near = env.block(Order::PAGE);
    for block in held {
        env.free(block, order);
    }
    let Some(far) = far else {
        fail!("none of order {order}, though another node has one");
    };
    let far_node = env.page(far).node(m);
    env.free(far, order);
    let near = near?;
    let near_node = env.page(near).node(m);
    env.free(near, Order::PAGE);
    check!(far_node != own, "a block of {own:?}, which had none left");
    check_eq!(near_node, own, "node of a frame, which the own node has");
    Ok(())
}

/// The same of folios: from the own node's pool, then from another's.
pub fn folios_are_local<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let online = nodes_with_cpus(env)?;
    let (m, nodes, cpus) = (env.m, &env.mm.nodes, env.m.cpus());
    with_pools(env, &online, cpus as u64, |pools| {
        let Some(h) = pools.hstates().next() else {
            fail!("no pool");
        };
        Party::run(m, |party, cpu| {
            let own = m.node_of_cpu(cpu);
            let Some(folio) = h.take_near(m, nodes) else {
                fail!("no folio, of {} on each node", m.cpus());
            };
            let got = folio.node(m);
            party.meet()?;
            h.put(m, folio);
            check!(
                got == own || !online.contains(&own),
                "{got:?}'s folio for a CPU of {own:?}"
            );
            Ok(())
        })?;
        let own = m.this_node();
        let mut held: Vec<Page> = Vec::new();
        held.extend(core::iter::from_fn(|| h.take(m, own)));
        let mut far = Vec::new();
        far.extend(core::iter::from_fn(|| h.take_near(m, nodes)));
        let of: Vec<NodeId> = far.iter().map(|folio| folio.node(m)).collect();
        held.into_iter()
            .chain(far)
            .for_each(|folio| h.put(m, folio));
        let others = online.iter().filter(|node| **node != own).count();
        check!(!of.contains(&own), "{own:?} had none left, but: {of:?}");
        check_eq!(of.len(), others * cpus, "folios of the other nodes");
        Ok(())
    })
}
