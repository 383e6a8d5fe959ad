//! One step of one CPU, chosen at random.

use ktest::{Outcome, check, fail};
use mm::addr::{NodeId, Order};
use mm::frames::{FrameSource, Placement};
use mm::hugetlb::Hstate;
use mm::machine::{FailPoint, Machine};
use mm::page;
use mm::vmemmap::{Fill, HvoError};

use super::held::{Block, Folded, MOST};
use super::{Churn, Cpu};

/// Folios in the largest batch.
const BATCH: u64 = 16;

impl<M: Machine> Churn<'_, M> {
    /// Does something.
    pub(super) fn step(&self, cpu: &mut Cpu) -> Outcome {
        match cpu.random.below(100) {
            0..30 => self.pool(cpu, Order::PMD),
            30..32 => self.pool(cpu, Order::PUD),
            32..46 => self.folio(cpu),
            46..60 => self.memory(cpu),
            60..78 => self.block(cpu),
            78..80 => {
                let on = cpu.random.below(4) > 0;
                self.env.mm.hugetlb.set_optimize(on);
                Ok(())
            }
            80..83 => {
                self.fault(cpu);
                Ok(())
            }
            _ => self.read(cpu),
        }
    }

    fn node(&self, cpu: &mut Cpu) -> NodeId {
        let nodes = self.env.mm.nodes.online();
        let which = cpu.random.below(nodes.clone().count().max(1) as u64);
        nodes
            .clone()
            .nth(usize::try_from(which).unwrap_or(0))
            .unwrap_or(NodeId::ZERO)
    }

    /// A pool grows or shrinks, by one or a batch, on one node or on all in turn.
    fn pool(&self, cpu: &mut Cpu, order: Order) -> Outcome {
        let env = self.env;
        let Some(h) = env.mm.hugetlb.hstate(order) else {
            return Ok(());
        };
        let node = self.node(cpu);
        let counts = h.counts(env.m, node);
        let one = cpu.random.below(2) == 0 || order > Order::PMD;
        let count = if one { 1 } else { 1 + cpu.random.below(BATCH) };
        // Gigantic folios in turns, for their own good: there is room for few.
        let shrink = match order {
            Order::PUD => counts.free > 0,
            _ => self.is_crowded(h, node, counts.nr) || cpu.random.below(2) == 0,
        };
        let node = (cpu.random.below(2) == 0).then_some(node);
        let (hugetlb, backing) = (&env.mm.hugetlb, env.backing());
        let done = if shrink {
            hugetlb.shrink(env.m, backing, h, node, count)
        } else {
            hugetlb.grow(env.m, backing, h, node, count)
        };
        check!(done <= count, "{done} folios of {count} asked for");
        Ok(())
    }

    /// Whether half of the node is in its pool.
    fn is_crowded(&self, h: &Hstate, node: NodeId, nr: u64) -> bool {
        nr * h.order().pages() * 2 > self.env.mm.nodes.get(node).present_pages()
    }

    /// A folio is taken out of its pool, or one put back.
    fn folio(&self, cpu: &mut Cpu) -> Outcome {
        let env = self.env;
        let held = cpu.held.folios.len() as u64;
        if cpu.random.below(MOST as u64) < held {
            let which = usize::try_from(cpu.random.below(held)).unwrap_or(0);
            let (order, head) = cpu.held.folios.swap_remove(which);
            self.check_folio(cpu, head, order)?;
            env.hstate(order)?.put(env.m, head);
            return Ok(());
        }
        let order = if cpu.random.below(16) == 0 {
            Order::PUD
        } else {
            Order::PMD
        };
        let node = self.node(cpu);
        let folio = (env.mm.hugetlb.hstate(order)).and_then(|h| h.take(env.m, node));
        if let Some(head) = folio {
            check!(
                head.node(env.m) == node,
                "{head:?} is in the pool of node {node}"
            );
            cpu.held.folios.push((order, head));
            self.check_folio(cpu, head, order)?;
        }
        Ok(())
    }

    /// Memory is taken and written, or read and given back.
    fn memory(&self, cpu: &mut Cpu) -> Outcome {
        let env = self.env;
        let held = cpu.held.blocks.len() as u64;
        if cpu.random.below(MOST as u64) < held {
            let which = usize::try_from(cpu.random.below(held)).unwrap_or(0);
            return cpu.held.blocks.swap_remove(which).free(env);
        }
        // Small ones mostly: halves of halves.
        let most = cpu.random.below(11);
        let order = Order::clamped(u32::try_from(cpu.random.below(most + 1)).unwrap_or(0));
        let placement = Placement::Prefer(self.node(cpu));
        if let Some(first) = env.mm.nodes.alloc(env.m, order, placement) {
            let stamp = cpu.random.below(u64::MAX);
            let block = Block {
                first,
                order,
                stamp,
            };
            block.write(env.m);
            cpu.held.blocks.push(block);
        }
        Ok(())
    }

    /// A compound page of any small order is made and folded, or unfolded and freed.
    fn block(&self, cpu: &mut Cpu) -> Outcome {
        let env = self.env;
        let held = cpu.held.folded.len() as u64;
        if cpu.random.below(MOST as u64) < held {
            let which = usize::try_from(cpu.random.below(held)).unwrap_or(0);
            let fill = match cpu.random.below(2) {
                0 => Fill::Tails,
                _ => Fill::Unused,
            };
            let folded = cpu.held.folded.swap_remove(which);
            cpu.held.folded.extend(folded.free(env, fill)?);
            return Ok(());
        }
        let order = Order::clamped(7 + u32::try_from(cpu.random.below(4)).unwrap_or(0));
        let placement = Placement::Prefer(self.node(cpu));
        let Some(first) = env.mm.nodes.alloc(env.m, order, placement) else {
            return Ok(());
        };
        let head = env.page(first);
        page::prep_compound_head(env.m, head, order);
        let written = cpu.random.below(2) == 0;
        if written {
            page::prep_compound_tails(env.m, head, order);
        }
        match (env.mm.vmemmap).optimize_folio(env.m, &env.mm.nodes, head, order) {
            Ok(()) => {}
            Err(HvoError::NoMemory | HvoError::Injected) => {
                if !written {
                    page::prep_compound_tails(env.m, head, order);
                }
            }
            Err(error) => fail!("folding {head:?} of order {order}: {error}"),
        }
        env.check_tails(head, order)?;
        cpu.held.folded.push(Folded { head, order });
        Ok(())
    }

    /// Something will fail soon, on whatever CPU gets there first.
    fn fault(&self, cpu: &mut Cpu) {
        let point = match cpu.random.below(3) {
            0 => FailPoint::PageAlloc,
            1 => FailPoint::VmemmapPte,
            _ => FailPoint::VmemmapPmd,
        };
        let nth = cpu.random.below(24);
        self.env.m.fail_nth(point, Some(nth));
    }
}
