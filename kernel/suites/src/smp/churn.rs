//! All CPUs change things at once: races for a shared tail and for a leaf, and blocks
//! that come and go on every node.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ktest::{Outcome, check, check_eq, skip};
use mm::addr::{NodeId, Order, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::hugetlb::HugeTlb;
use mm::machine::Machine;
use mm::node::Nodes;
use mm::page::{self, CompoundInfo, Flags, Memmap, Page, PageType, VMEMMAP_TAIL_MIN_ORDER};
use mm::paging::{self, Level};
use mm::vmemmap::{Fill, Vmemmap};

use super::poison::{POISON, Poisoning};
use super::{Party, several};
use crate::{Env, Random};

/// The nodes, but an allocation comes back only when every CPU has made one: all then
/// race for what they do next. Counts what is allocated and freed.
struct Together<'a, 'b, M: Machine> {
    nodes: &'a Nodes,
    party: &'a Party<'b, M>,
    /// Allocations of each CPU that are still to be waited with.
    waits: &'a [AtomicUsize],
    /// Frames allocated and not freed.
    out: &'a AtomicU64,
    /// Frames freed.
    freed: &'a AtomicU64,
}

impl<M: Machine> FrameSource<M> for Together<'_, '_, M> {
    fn alloc(&self, m: &M, order: Order, placement: Placement) -> Option<Pfn> {
        let block = self.nodes.alloc(m, order, placement);
        let pages = if block.is_some() { order.pages() } else { 0 };
        self.out.fetch_add(pages, Ordering::AcqRel);
        let waits = &self.waits[m.this_cpu()];
        if waits.load(Ordering::Relaxed) > 0 {
            waits.fetch_sub(1, Ordering::Relaxed);
            // Only a case that has failed goes on alone.
            let _ = self.party.meet();
        }
        block
    }

    fn free(&self, m: &M, block: Pfn, order: Order) {
        self.out.fetch_sub(order.pages(), Ordering::AcqRel);
        self.freed.fetch_add(order.pages(), Ordering::AcqRel);
        self.nodes.free(m, block, order);
    }

    fn split(&self, m: &M, block: Pfn, order: Order) {
        self.nodes.split(m, block, order);
    }

    fn free_pages(&self, m: &M, first: Pfn, pages: u64) {
        // Those are frames of memmap, which were not allocated here.
        self.nodes.free_pages(m, first, pages);
    }
}

/// T21: no CPU finds a shared tail, all make one, one is published: all use that, the
/// others' frames come back, and the ledger has one more. For each node and order.
///
/// In a `Vmemmap` of the case's own, which has no shared tail yet: they are never freed.
pub fn one_shared_tail<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let cpus = several(env)?;
    let (m, nodes) = (env.m, &env.mm.nodes);
    let before = env.snapshot();
    let vmemmap = Box::new(Vmemmap::new(env.mm.vmemmap.memmap()));
    let mut outcome = Ok(());
    let mut made = 0;
    for node in nodes.online() {
        for order in Order::range_inclusive(VMEMMAP_TAIL_MIN_ORDER, Order::MAX) {
            outcome = outcome.and_then(|()| race_for_tail(env, &vmemmap, node, order, cpus));
            made += u64::from(vmemmap.existing_tail(node, order).is_some());
            let counted = vmemmap.ledger().totals().tails;
            outcome = outcome.and_then(|()| {
                check_eq!(counted, made, "shared tails by the ledger");
                Ok(())
            });
        }
    }
    for node in nodes.online() {
        for order in Order::range_inclusive(VMEMMAP_TAIL_MIN_ORDER, Order::MAX) {
            if let Some(tail) = vmemmap.existing_tail(node, order) {
                env.page(tail).set_page_type(m, PageType::NONE);
                env.free(tail, Order::PAGE);
            }
        }
    }
    outcome?;
    env.same_as(&before)
}

fn race_for_tail<M: Machine>(
    env: &Env<'_, M>,
    vmemmap: &Vmemmap,
    node: NodeId,
    order: Order,
    cpus: usize,
) -> Outcome {
    let waits: Vec<AtomicUsize> = (0..cpus).map(|_| AtomicUsize::new(1)).collect();
    let (out, freed) = (AtomicU64::new(0), AtomicU64::new(0));
    let found: Vec<AtomicU64> = (0..cpus).map(|_| AtomicU64::new(u64::MAX)).collect();
    Party::run(env.m, |party, cpu| {
        let frames = Together {
            nodes: &env.mm.nodes,
            party,
            waits: &waits,
            out: &out,
            freed: &freed,
        };
        let tail = vmemmap.shared_tail(env.m, &frames, node, order);
        let Ok(tail) = tail else {
            ktest::fail!("shared tail of order {order} on {node:?}: {tail:?}");
        };
        found[cpu].store(tail.as_u64(), Ordering::Release);
        for n in 0..page::HEAD_PAGES * 8 {
            let word = env.m.read_phys(tail.phys().offset(n * 8));
            let tail = page::tail_record(node, CompoundInfo::any_tail(order));
            let expected = tail[(n % 8) as usize];
            check_eq!(word, expected, "word {n} of the tail of order {order}");
        }
        Ok(())
    })?;
    let found: Vec<u64> = found.into_iter().map(AtomicU64::into_inner).collect();
    check!(
        found.iter().all(|tail| *tail == found[0]),
        "order {order} on {node:?}, CPU by CPU: {found:x?}"
    );
    let (out, freed) = (out.into_inner(), freed.into_inner());
    check_eq!(
        (out, freed),
        (1, cpus as u64 - 1),
        "frames kept and given back, order {order} on {node:?}"
    );
    Ok(())
}

/// All CPUs fold neighbours in one section, whose leaf nobody has split yet: one table
/// is made, no fold is lost, and the losers' tables come back.
pub fn one_table<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const ROUNDS: usize = 16;
    let cpus = several(env)?;
    let order = VMEMMAP_TAIL_MIN_ORDER;
    // Makes the shared tail, so that none of the allocations below is for that.
    let other = env.compound(order)?;
    env.fold(other, order)?;
    env.unfold(other, order)?;
    env.free_compound(other, order);
    let before = env.snapshot();
    let whole = env.compound(Memmap::SECTION)?;
    let mut raced = 0;
    for _ in 0..ROUNDS {
        // Folding and unfolding all of it leaves a leaf, if a block of 2 MiB is free.
        env.fold(whole, Memmap::SECTION)?;
        env.unfold(whole, Memmap::SECTION)?;
        let leaf = paging::leaf(env.m, env.m.root(), whole.address());
        if leaf.is_none_or(|leaf| leaf.level != Level::Pmd) {
            break;
        }
        page::undo_compound_tails(env.m, whole, Memmap::SECTION);
        page::undo_compound_head(env.m, whole, Memmap::SECTION);
        race_for_table(env, whole, cpus)?;
        raced += 1;
        page::prep_compound_head(env.m, whole, Memmap::SECTION);
        page::prep_compound_tails(env.m, whole, Memmap::SECTION);
    }
    env.free_compound(whole, Memmap::SECTION);
    env.same_as(&before)?;
    if raced == 0 {
        skip!("no free block of 2 MiB to make a leaf of");
    }
    Ok(())
}

/// Each CPU folds its own block of the lowest order in the section at `first`.
fn race_for_table<M: Machine>(env: &Env<'_, M>, first: Page, cpus: usize) -> Outcome {
    let (m, order) = (env.m, VMEMMAP_TAIL_MIN_ORDER);
    let block = |n: usize| first.nth(n as u64 * order.pages());
    for n in 0..cpus {
        page::prep_compound_head(m, block(n), order);
        page::prep_compound_tails(m, block(n), order);
    }
    let tables = env.totals().tables;
    // Each allocates a table, then a frame for the head.
    let waits: Vec<AtomicUsize> = (0..cpus).map(|_| AtomicUsize::new(2)).collect();
    let (out, freed) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcome = Party::run(m, |party, cpu| {
        let frames = Together {
            nodes: &env.mm.nodes,
            party,
            waits: &waits,
            out: &out,
            freed: &freed,
        };
        let vmemmap = &env.mm.vmemmap;
        let folded = vmemmap.optimize_folio(m, &frames, block(cpu), order);
        check_eq!(folded, Ok(()), "fold");
        env.check_tails(block(cpu), order)?;
        party.meet()?;
        let neighbour = block((cpu + 1) % cpus);
        env.check_tails(neighbour, order)?;
        check!(
            mm::vmemmap::is_optimized(m, neighbour),
            "the neighbour's fold is lost"
        );
        Ok(())
    });
    outcome?;
    let tables = env.totals().tables - tables;
    for n in 0..cpus {
        env.unfold(block(n), order)?;
        page::undo_compound_tails(m, block(n), order);
        page::undo_compound_head(m, block(n), order);
    }
    check_eq!(tables, 1, "tables that came into being");
    let (out, freed) = (out.into_inner(), freed.into_inner());
    check_eq!(
        (out, freed),
        (cpus as u64 + 1, cpus as u64 - 1),
        "frames kept and given back"
    );
    Ok(())
}

/// T22: every CPU folds and unfolds its own block while it reads the others'. What is
/// freed is poisoned, and nobody ever sees that.
pub fn nobody_sees_freed_frames<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const ROUNDS: u64 = 96;
    let cpus = several(env)?;
    let (m, order) = (env.m, Order::PMD);
    let before = env.snapshot();
    let mut heads = Vec::new();
    for _ in 0..cpus {
        let head = env.compound(order)?;
        heads.push((head, head.node(m)));
    }
    let outcome = Party::run(m, |party, cpu| {
        let (vmemmap, frames) = (&env.mm.vmemmap, Poisoning(&env.mm.nodes));
        let mut random = Random::new(cpu as u64 + 1);
        for round in 0..ROUNDS / cpus as u64 {
            let mine = heads[cpu].0;
            let changed = if round % 2 == 0 {
                vmemmap.optimize_folio(m, &frames, mine, order)
            } else {
                vmemmap.restore_folio(m, &frames, mine, order, Fill::Tails)
            };
            check_eq!(changed, Ok(()), "round {round}");
            for _ in 0..256 {
                let other = random.below(cpus as u64).try_into().unwrap_or(0);
                let (head, node): (Page, NodeId) = heads[other];
                let page = head.nth(random.below(order.pages()));
                let record = page.record(m);
                check!(
                    !record.contains(&POISON),
                    "{page:?}, block of CPU {other}, shows a freed frame: {record:x?}"
                );
                let of = Flags::from_raw(record[0]).node();
                check_eq!((of, page.compound_head(m)), (node, head), "{page:?}");
            }
            m.touch_watchdog();
            if party.is_broken() {
                break;
            }
        }
        Ok(())
    });
    outcome?;
    for (head, _) in heads {
        env.unfold(head, order)?;
        env.free_compound(head, order);
    }
    env.same_as(&before)
}

/// Blocks of many orders on every node, from every CPU: allocated, folded, checked,
/// unfolded, freed; and pools that all CPUs grow, take from, put into and shrink.
pub fn every_node_from_every_cpu<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const ROUNDS: u64 = 160;
    let cpus = several(env)?;
    let (m, nodes) = (env.m, &env.mm.nodes);
    let with_memory = |node: &NodeId| nodes.get(*node).present_pages() > 0;
    let online: Vec<NodeId> = nodes.online().filter(with_memory).collect();
    // Makes tables and shared tails that stay.
    for node in &online {
        for order in Order::range_inclusive(Order::of(7), Order::of(12)) {
            if let Some(head) = env.compound_on(order, *node) {
                env.fold(head, order)?;
                env.unfold(head, order)?;
                env.free_compound(head, order);
            }
        }
    }
    let before = env.snapshot();
    let pools = Box::new(HugeTlb::new());
    pools.init(m, env.mm.vmemmap.memmap());
    pools.set_optimize(true);
    let Some(h) = pools.hstate(Order::PMD) else {
        skip!("no pools of 2 MiB folios");
    };
    let outcome = Party::run(m, |party, cpu| {
        let mut random = Random::new(cpu as u64 + 1);
        for round in 0..ROUNDS / cpus as u64 {
            // Its own node at first, then the next.
            let node = online[(cpu + usize::try_from(round).unwrap_or(0)) % online.len()];
            if round % 4 == 0 {
                pools.grow(m, env.backing(), h, Some(node), 2);
                if let Some(folio) = h.take_near(m, nodes) {
                    env.check_tails(folio, Order::PMD)?;
                    h.put(m, folio);
                }
                pools.shrink(m, env.backing(), h, Some(node), 1);
            }
            let order = Order::clamped(7 + u32::try_from(random.below(6)).unwrap_or(0));
            let Some(head) = env.compound_on(order, node) else {
                continue;
            };
            let mark = (round << 8) | cpu as u64;
            head.set_mapping(m, mark);
            env.fold(head, order)?;
            env.check_tails(head, order)?;
            check_eq!(head.mapping(m), mark, "folded head of order {order}");
            env.unfold(head, order)?;
            env.check_tails(head, order)?;
            check_eq!(head.mapping(m), mark, "unfolded head of order {order}");
            head.set_mapping(m, 0);
            env.free_compound(head, order);
            m.touch_watchdog();
            if party.is_broken() {
                break;
            }
        }
        Ok(())
    });
    let counts = h.total(m);
    let removed = pools.shrink(m, env.backing(), h, None, counts.nr);
    outcome?;
    check_eq!(counts.nr, counts.free, "folios, and those nobody has");
    check_eq!(removed, counts.nr, "folios that could be given back");
    check!(counts.nr > 0, "no folio was ever in the pools");
    // Sections that were folded for the first time have a table more: it is counted.
    env.same_as(&before)
}
