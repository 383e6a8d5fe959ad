//! What a CPU holds in the middle of churn.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq, fail};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::machine::Machine;
use mm::page::{self, Page};
use mm::vmemmap::{Fill, HvoError};

use crate::Env;

/// Most of each kind that one CPU holds.
pub(super) const MOST: usize = 24;

/// A block of memory, with something written into it.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first: Pfn,
    pub(super) order: Order,
    pub(super) stamp: u64,
}

/// A compound page made by hand, folded or not.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) head: Page,
    pub(super) order: Order,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) blocks: Vec<Block>,
    pub(super) folded: Vec<Folded>,
    /// Folios out of the pools, each with a reference.
    pub(super) folios: Vec<(Order, Page)>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            blocks: Vec::with_capacity(MOST),
            folded: Vec::with_capacity(MOST),
            folios: Vec::with_capacity(MOST),
        }
    }
}

impl Held {
    /// Gives memory back.
    pub(super) fn release_memory<M: Machine>(&mut self, env: &Env<'_, M>) -> Outcome {
        self.blocks.drain(..).try_for_each(|block| block.free(env))
    }

    /// Gives hand-made compound pages back.
    pub(super) fn release_folded<M: Machine>(&mut self, env: &Env<'_, M>) -> Outcome {
        for folded in self.folded.drain(..) {
            if let Some(kept) = folded.free(env, Fill::Tails)? {
                fail!("{:?} cannot be unfolded with all memory free", kept.head);
            }
        }
        Ok(())
    }

    /// Puts folios back into their pools.
    pub(super) fn release_folios<M: Machine>(&mut self, env: &Env<'_, M>) -> Outcome {
        for (order, head) in self.folios.drain(..) {
            check_eq!(
                page::folio_ref_count(env.m, head),
                1,
                "references on {head:?}"
            );
            env.hstate(order)?.put(env.m, head);
        }
        Ok(())
    }
}

impl Block {
    /// Pages that are written: the first few of a large block.
    fn written(&self) -> impl Iterator<Item = Pfn> {
        self.first.block(self.order).iter().take(16)
    }

    /// Words at both ends of a page.
    fn words(page: Pfn) -> [mm::addr::PhysAddr; 2] {
        [page.phys(), page.phys().offset(PAGE_SIZE - 8)]
    }

    /// Writes its stamp into it.
    pub(super) fn write<M: Machine>(&self, m: &M) {
        for word in self.written().flat_map(Self::words) {
            m.write_phys(word, self.stamp);
        }
    }

    /// Frees it; nobody else must have written into it.
    pub(super) fn free<M: Machine>(self, env: &Env<'_, M>) -> Outcome {
        for word in self.written().flat_map(Self::words) {
            let found = env.m.read_phys(word);
            check!(
                found == self.stamp,
                "{:#x} of an allocated block holds {found:#x}, not {:#x}",
                word.as_u64(),
                self.stamp
            );
        }
        env.free(self.first, self.order);
        Ok(())
    }
}

impl Folded {
    /// Unfolds it with `fill` if it is folded, and frees it. It comes back if there is
    /// no memory for that, or a failure was injected.
    pub(super) fn free<M: Machine>(
        self,
        env: &Env<'_, M>,
        fill: Fill,
    ) -> Result<Option<Self>, ktest::Stop> {
        let was = mm::vmemmap::is_optimized(env.m, self.head);
        let nodes = &env.mm.nodes;
        match (env.mm.vmemmap).restore_folio(env.m, nodes, self.head, self.order, fill) {
            Err(HvoError::NoMemory | HvoError::Injected) => return Ok(Some(self)),
            Err(error) => fail!("unfolding {:?}: {error}", self.head),
            Ok(()) => {}
        }
        if !was || fill == Fill::Tails {
            env.check_tails(self.head, self.order)?;
            page::undo_compound_tails(env.m, self.head, self.order);
        }
        page::undo_compound_head(env.m, self.head, self.order);
        env.free(env.mm.vmemmap.memmap().pfn(self.head), self.order);
        Ok(None)
    }
}
