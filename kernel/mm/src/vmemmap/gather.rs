//! Frames on their way out: flushed first, freed after (INV-3).
//!
//! A frame that a table entry no longer points to may still be reached through a
//! stale translation. It therefore waits here, and the only way out of here is
//! [`Gather::finish`], which flushes before it frees.

use super::Vmemmap;
use super::slot::Slot;
use crate::addr::{Order, Pfn, VirtRange};
use crate::frames::FrameSource;
use crate::machine::Machine;
use crate::page::{Flags, Memmap, PageList, PageType};
use crate::paging::Flush;

/// A run of consecutive frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: Pfn,
    pub(super) pages: u64,
}

/// What a batch of changes owes: one flush, then these frames.
#[derive(Debug)]
#[must_use = "frames are lost and translations stay stale unless it is finished"]
#[doc(alias = "mmu_gather")]
pub(super) struct Gather {
    flush: Option<Flush>,
    /// First pages of runs of memmap frames; the length is in `private`.
    runs: PageList,
    /// Table frames; the address of the slot that they were of is in `private`.
    tables: PageList,
}

impl Gather {
    pub(super) const fn new() -> Self {
        Self {
            flush: None,
            runs: PageList::new(),
            tables: PageList::new(),
        }
    }

    /// Whether finishing would free anything.
    pub(super) const fn holds_frames(&self) -> bool {
        !self.runs.is_empty() || !self.tables.is_empty()
    }

    /// Owes a flush of `range`.
    pub(super) fn owe(&mut self, range: VirtRange) {
        let new = Flush::new(range);
        self.flush = Some(match self.flush.take() {
            Some(old) => old.merge(new),
            None => new,
        });
    }

    /// Takes a run of frames that held struct pages.
    pub(super) fn push<M: Machine>(&mut self, m: &M, memmap: Memmap, run: Run) {
        let page = memmap.page(run.first);
        page.set_private(m, run.pages);
        self.runs.push(m, page);
    }

    /// Takes frames that held struct pages, in runs as long as they can be.
    pub(super) fn push_all<M: Machine>(
        &mut self,
        m: &M,
        memmap: Memmap,
        frames: impl Iterator<Item = Pfn>,
    ) {
        let mut run: Option<Run> = None;
        for frame in frames {
            match &mut run {
                Some(run) if run.first.offset(run.pages) == frame => run.pages += 1,
                _ => {
                    let new = Run {
                        first: frame,
                        pages: 1,
                    };
                    if let Some(done) = run.replace(new) {
                        self.push(m, memmap, done);
                    }
                }
            }
        }
        if let Some(last) = run {
            self.push(m, memmap, last);
        }
    }

    /// Gives back the run taken last, because its entries have been put back.
    pub(super) fn unpush<M: Machine>(&mut self, m: &M, memmap: Memmap) -> Option<Run> {
        let page = self.runs.pop(m)?;
        let pages = page.private(m);
        page.set_private(m, 0);
        Some(Run {
            first: memmap.pfn(page),
            pages,
        })
    }

    /// Takes the table of `slot`, which no entry points to any more.
    pub(super) fn push_table<M: Machine>(
        &mut self,
        m: &M,
        memmap: Memmap,
        table: Pfn,
        slot: &Slot,
    ) {
        let page = memmap.page(table);
        page.set_private(m, slot.start.as_u64());
        self.tables.push(m, page);
    }

    /// Gives back the table of `slot`, if that was the one taken last, because an entry
    /// will point to it again.
    pub(super) fn unpush_table<M: Machine>(
        &mut self,
        m: &M,
        memmap: Memmap,
        slot: &Slot,
    ) -> Option<Pfn> {
        let last = self.tables.first()?;
        if last.private(m) != slot.start.as_u64() {
            return None;
        }
        self.tables.remove(m, last);
        last.set_private(m, 0);
        Some(memmap.pfn(last))
    }

    /// Flushes, then frees all that was taken.
    pub(super) fn finish<M: Machine>(
        mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        vmemmap: &Vmemmap,
    ) {
        if let Some(flush) = self.flush.take() {
            vmemmap.ledger.count_flush();
            flush.flush(m);
        }
        let memmap = vmemmap.memmap;
        while let Some(run) = self.unpush(m, memmap) {
            vmemmap.release(m, frames, run);
        }
        while let Some(page) = self.tables.pop(m) {
            vmemmap.ledger.count_tables(1, false);
            page.set_private(m, 0);
            page.change_flag(m, Flags::RESERVED, false);
            page.set_page_type(m, PageType::NONE);
            frames.free(m, memmap.pfn(page), Order::PAGE);
        }
    }
}

impl Vmemmap {
    /// Frees frames that held struct pages, whether from boot or later.
    fn release<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, run: Run) {
        let mut boot = 0;
        for n in 0..run.pages {
            let page = self.memmap.page(run.first.offset(n));
            if page.flags(m).contains(Flags::RESERVED) {
                // Another CPU may mark the frame broken at this moment.
                page.change_flag(m, Flags::RESERVED, false);
                boot += 1;
            }
            page.set_page_type(m, PageType::NONE);
        }
        self.ledger.uncount_pages(boot, run.pages - boot);
        frames.free_pages(m, run.first, run.pages);
    }
}
