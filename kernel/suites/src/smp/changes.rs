//! Everything that can happen to a block, in random order, by one CPU.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq, fail};
use mm::addr::Order;
use mm::hugetlb::Hstate;
use mm::machine::Machine;
use mm::page::{self, Page, PageList, PageType};
use mm::vmemmap::{self, Fill};

use super::arena::Arena;
use super::poison::Poisoning;
use crate::Random;

/// A block that nobody has a reference on, and nobody else can find.
struct Frozen {
    head: Page,
    order: Order,
    /// Whether its tails behind the first frame of memmap are written.
    tails: bool,
}

/// The blocks of an arena, as the CPU that changes them knows them. The other folios
/// are in the arena's pools.
pub(super) struct Changes<'a, 'b, 'c, M: Machine> {
    arena: &'a Arena<'b, 'c, M>,
    frozen: Vec<Frozen>,
    /// Heads of hugetlb folios on which this CPU has a reference.
    live: Vec<Page>,
    random: Random,
}

impl<'a, 'b, 'c, M: Machine> Changes<'a, 'b, 'c, M> {
    pub(super) fn new(arena: &'a Arena<'b, 'c, M>) -> Self {
        Self {
            arena,
            frozen: Vec::new(),
            live: Vec::new(),
            random: Random::new(3),
        }
    }

    fn m(&self) -> &'b M {
        self.arena.env.m
    }

    fn frames(&self) -> Poisoning<'b> {
        Poisoning(&self.arena.env.mm.nodes)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }

    /// The pools of `order` within the arena.
    fn hstate(&self, order: Order) -> Option<&'a Hstate> {
        self.arena.pools.hstate(order)
    }

    /// Makes live 2 MiB folios of the whole arena, some of them folded.
    pub(super) fn all_live(&mut self) -> Outcome {
        while self.alloc(Order::PMD, true) {
            if self.live.len() < 16 && self.live.len().is_multiple_of(2) {
                self.fold(self.frozen.len() - 1)?;
            }
            self.go_live(self.frozen.len() - 1);
        }
        check!(!self.live.is_empty(), "an arena without a folio");
        Ok(())
    }

    /// One change of a random kind to a random block; may find nothing to do.
    pub(super) fn any(&mut self) -> Outcome {
        match self.below(10) {
            0 | 1 => {
                let orders = self.arena.orders;
                let order = orders[self.below(orders.len())];
                let tails = self.below(2) == 0;
                self.alloc(order, tails);
                Ok(())
            }
            2 => self.batch(),
            3 => match self.live.pop() {
                Some(head) => self.put(head),
                None => Ok(()),
            },
            4 => {
                self.take();
                Ok(())
            }
            5 => self.freeze(),
            _ if self.frozen.is_empty() => Ok(()),
            kind => {
                let which = self.below(self.frozen.len());
                match kind {
                    6 => self.fold(which),
                    7 => self.unfold(which),
                    8 => {
                        self.go_live(which);
                        Ok(())
                    }
                    _ => self.free(which),
                }
            }
        }
    }

    /// Frees all there is. Nobody else has a reference any more.
    pub(super) fn end(mut self) -> Outcome {
        while self.take() {}
        while !self.live.is_empty() {
            let before = self.frozen.len();
            self.freeze()?;
            check_eq!(self.frozen.len(), before + 1, "a reference was left");
        }
        while !self.frozen.is_empty() {
            self.free(0)?;
        }
        Ok(())
    }

    fn alloc(&mut self, order: Order, tails: bool) -> bool {
        let m = self.m();
        let Some(block) = self.arena.buddy.lock(m).alloc(m, order) else {
            return false;
        };
        let head = self.arena.env.page(block);
        page::prep_compound_head(m, head, order);
        if self.hstate(order).is_some() {
            head.set_page_type(m, PageType::HUGETLB);
        }
        if tails {
            page::prep_compound_tails(m, head, order);
        }
        self.frozen.push(Frozen { head, order, tails });
        true
    }

    fn fold(&mut self, which: usize) -> Outcome {
        let (m, frames) = (self.m(), self.frames());
        let Frozen { head, order, tails } = &mut self.frozen[which];
        if vmemmap::is_optimized(m, *head) {
            return Ok(());
        }
        *tails = true;
        let vmemmap = &self.arena.env.mm.vmemmap;
        let folded = vmemmap.optimize_folio(m, &frames, *head, *order);
        check_eq!(folded, Ok(()), "fold, order {order}");
        Ok(())
    }

    fn unfold(&mut self, which: usize) -> Outcome {
        let (m, block) = (self.m(), &self.frozen[which]);
        let vmemmap = &self.arena.env.mm.vmemmap;
        let (head, order) = (block.head, block.order);
        let unfolded = vmemmap.restore_folio(m, &self.frames(), head, order, Fill::Tails);
        check_eq!(unfolded, Ok(()), "unfold, order {order}");
        Ok(())
    }

    /// Folds all frozen blocks of an order at once, or unfolds those that are folded.
    fn batch(&mut self) -> Outcome {
        let (m, frames) = (self.m(), self.frames());
        let vmemmap = &self.arena.env.mm.vmemmap;
        let order = self.arena.orders[self.below(self.arena.orders.len())];
        let fold = self.below(2) == 0;
        let mut list = PageList::new();
        for block in self.frozen.iter_mut().filter(|block| block.order == order) {
            if vmemmap::is_optimized(m, block.head) != fold {
                block.tails = true;
                list.push(m, block.head);
            }
        }
        let done = if fold {
            vmemmap.optimize_folios(m, &frames, &list, order)
        } else {
            vmemmap.restore_folios(m, &frames, &list, order, Fill::Tails)
        };
        let wanted = list.len();
        while list.pop(m).is_some() {}
        check_eq!(done, wanted, "a batch of order {order}, fold: {fold}");
        Ok(())
    }

    /// Gives a hugetlb folio its first reference: readers can get one, too, now.
    fn go_live(&mut self, which: usize) {
        let m = self.m();
        let block = &self.frozen[which];
        if self.hstate(block.order).is_none() {
            return;
        }
        let block = self.frozen.swap_remove(which);
        if !block.tails {
            page::prep_compound_tails(m, block.head, block.order);
        }
        block.head.set_ref_count(m, 1);
        self.live.push(block.head);
    }

    /// Drops this CPU's reference; the last one, here or on another CPU, puts the folio
    /// into its pool.
    fn put(&self, head: Page) -> Outcome {
        let order = page::folio_order(self.m(), head);
        match self.hstate(order) {
            Some(h) => h.put(self.m(), head),
            None => fail!("{head:?}, live, has order {order}"),
        }
        Ok(())
    }

    /// Takes a folio out of a pool, the larger ones first; whether there was one.
    fn take(&mut self) -> bool {
        let (m, node) = (self.m(), self.arena.node);
        let mut orders = self.arena.orders.iter().rev();
        let taken = orders.find_map(|order| self.hstate(*order)?.take(m, node));
        self.live.extend(taken);
        taken.is_some()
    }

    /// Drops a reference that may be the last: then the folio is frozen, and this CPU's.
    fn freeze(&mut self) -> Outcome {
        let m = self.m();
        let Some(head) = self.live.pop() else {
            return Ok(());
        };
        let order = page::folio_order(m, head);
        // A reader's reference, if it is the last, puts the folio into its pool.
        if page::folio_put(m, head) {
            let tails = true;
            self.frozen.push(Frozen { head, order, tails });
        }
        Ok(())
    }

    fn free(&mut self, which: usize) -> Outcome {
        let (m, frames) = (self.m(), self.frames());
        let Frozen { head, order, tails } = self.frozen.swap_remove(which);
        let env = self.arena.env;
        if vmemmap::is_optimized(m, head) {
            let vmemmap = &env.mm.vmemmap;
            let unfolded = vmemmap.restore_folio(m, &frames, head, order, Fill::Unused);
            check_eq!(unfolded, Ok(()), "unfold to free, order {order}");
        } else if tails {
            page::undo_compound_tails(m, head, order);
        }
        head.set_page_type(m, PageType::NONE);
        page::undo_compound_head(m, head, order);
        let block = env.mm.vmemmap.memmap().pfn(head);
        self.arena.buddy.lock(m).free(m, block, order);
        Ok(())
    }
}
