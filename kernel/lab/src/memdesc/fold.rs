//! HVO in the memdesc world: one read-only frame for all struct pages of a block.
//!
//! Fold, under the map's lock; the block's words do not change meanwhile, but readers
//! look and references come and go:
//!
//! 1. The frames whose pages all hold the block's word, with no flag set, are found.
//!    One of them stays: nothing is allocated.
//! 2. Their entries are stored: all to the one that stays, read-only.
//! 3. One flush.
//! 4. The other frames are freed.
//!
//! A stored entry that fails (injected) undoes those before it: the frames still hold
//! what they held.
//!
//! Unfold: all frames first, or nothing changes; filled by copying; entries stored
//! writable; one flush, before anybody writes. A single page is unshared likewise.

use super::descriptor::{self, Descriptor, Folio};
use super::error::MemdescError;
use super::layout::{Page, StructPage};
use super::lookup::owner_of;
use super::map::{MemdescMap, State};
use super::word::Memdesc;
use mm::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::frames::FrameSource;
use mm::machine::{FailPoint, Machine};
use mm::page::PageList;
use mm::paging::{self, Flush, Pte, PteFlags};

/// The entries of a block's memmap: where each lies, and what it holds.
fn entries<M: Machine>(
    m: &M,
    memmap: VirtRange,
) -> impl Iterator<Item = (VirtAddr, PhysAddr, Pte)> {
    (0..memmap.bytes() / PAGE_SIZE).map(move |n| {
        let at = memmap.start.offset(n * PAGE_SIZE);
        let entry = paging::walk(m, m.root(), at);
        (at, entry.at, entry.pte)
    })
}

const fn is_shared(pte: Pte) -> bool {
    pte.is_present() && !pte.flags().contains(PteFlags::WRITABLE)
}

/// The frame that the pages of `memmap` share, if any do.
pub(super) fn shared_frame<M: Machine>(m: &M, memmap: VirtRange) -> Option<Pfn> {
    let mut entries = entries(m, memmap);
    entries
        .find(|(_, _, pte)| is_shared(*pte))
        .map(|(_, _, pte)| pte.pfn())
}

/// The block that a page with that word lies in, if its memmap may be folded.
pub(super) fn block_of<M: Machine>(m: &M, pfn: Pfn, word: Memdesc) -> Option<(Pfn, Order)> {
    if let Some(order) = word.folded_order() {
        return Some((pfn.align_down(order), order));
    }
    let (at, _) = owner_of(m, word)?;
    let desc = Folio::at(at.as_u64());
    Some((desc.pfn(m), desc.order(m)))
}

impl<L: StructPage> MemdescMap<L> {
    /// Folds the memmap of `desc`'s block, or what of it is not folded yet; how many
    /// frames that freed. The caller holds a reference or owns it.
    ///
    /// # Errors
    /// [`MemdescError::OrderTooSmall`], [`MemdescError::Injected`].
    #[doc(alias = "hugetlb_vmemmap_optimize_folio")]
    pub fn fold<M: Machine, D: Descriptor>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        desc: D,
    ) -> Result<u64, MemdescError> {
        let (block, order) = (desc.pfn(m), desc.order(m));
        let least = L::MIN_ORDER;
        if order < least {
            return Err(MemdescError::OrderTooSmall { order, least });
        }
        let mut state = self.lock(m);
        let memmap = self.memmap_of(block, order);
        let was = shared_frame(m, memmap);
        let record = L::records(self.node(), desc.memdesc(m));
        let clean = |pte: Pte| {
            let words = (0..PAGE_SIZE / 8).zip(record.iter().cycle());
            let frame = pte.pfn().phys();
            words
                .into_iter()
                .all(|(n, word)| m.read_phys(frame.offset(n * 8)) == *word)
        };
        let mut home = was;
        let mut old = PageList::new();
        let mut changed = 0;
        for (_, at, pte) in entries(m, memmap) {
            if is_shared(pte) || !clean(pte) {
                continue;
            }
            if m.inject(FailPoint::VmemmapPte) {
                self.undo(m, &mut state, memmap, was, old);
                return Err(MemdescError::Injected);
            }
            let to = *home.get_or_insert(pte.pfn());
            if to != pte.pfn() {
                old.push(m, self.kernel().page(pte.pfn()));
            }
            m.write_phys(at, Pte::new(to, PteFlags::KERNEL_RO).raw());
            changed += 1;
        }
        let freed = old.len();
        if freed == 0 {
            // Nothing to share: a frame alone gets its rights back.
            if changed > 0 && was.is_none() {
                self.undo(m, &mut state, memmap, was, old);
            }
            return Ok(0);
        }
        self.flush(m, &mut state, memmap);
        while let Some(page) = old.pop(m) {
            page.set_private(m, 0);
            frames.free(m, self.kernel().pfn(page), Order::PAGE);
        }
        state.totals.frames -= freed;
        state.totals.saved += freed;
        if was.is_none() {
            state.totals.folded += 1;
            descriptor::set_folded(m, desc.phys(), true);
        }
        Ok(freed)
    }

    /// Puts back the entries of `old`, and of the frame that was to stay unless it was
    /// shared before.
    fn undo<M: Machine>(
        &self,
        m: &M,
        state: &mut State,
        memmap: VirtRange,
        was: Option<Pfn>,
        mut old: PageList,
    ) {
        if was.is_none()
            && let Some(home) = shared_frame(m, memmap)
        {
            self.map_home(m, home);
        }
        while let Some(page) = old.pop(m) {
            self.map_home(m, self.kernel().pfn(page));
        }
        self.flush(m, state, memmap);
    }

    /// Maps a frame of memmap, writable, where it belongs.
    fn map_home<M: Machine>(&self, m: &M, frame: Pfn) {
        let index = self.kernel().page(frame).private(m) - 1;
        let start = self.memmap_of(self.range().start, L::FRAME_ORDER).start;
        let entry = paging::walk(m, m.root(), start.offset(index * PAGE_SIZE));
        m.write_phys(entry.at, Pte::new(frame, PteFlags::KERNEL).raw());
    }

    /// Which page of the map's memmap `at` is.
    fn index_of(&self, at: VirtAddr) -> u64 {
        let start = self.memmap_of(self.range().start, L::FRAME_ORDER).start;
        (at.as_u64() - start.as_u64()) / PAGE_SIZE
    }

    fn flush<M: Machine>(&self, m: &M, state: &mut State, range: VirtRange) {
        state.totals.flushes += 1;
        Flush::new(range).flush(m);
    }

    /// Gives every page of the memmap of `desc`'s block a frame of its own again. Does
    /// nothing if it is not folded.
    ///
    /// # Errors
    /// [`MemdescError::NoMemory`].
    #[doc(alias = "hugetlb_vmemmap_restore_folio")]
    pub fn unfold<M: Machine, D: Descriptor>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        desc: D,
    ) -> Result<(), MemdescError> {
        let mut state = self.lock(m);
        let block = (desc.pfn(m), desc.order(m));
        self.unfold_entries(m, frames, &mut state, block)?;
        descriptor::set_folded(m, desc.phys(), false);
        Ok(())
    }

    /// [`MemdescMap::unfold`] for a block that may have no descriptor.
    pub(super) fn unfold_entries<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        state: &mut State,
        block: (Pfn, Order),
    ) -> Result<(), MemdescError> {
        let memmap = self.memmap_of(block.0, block.1);
        let Some(home) = shared_frame(m, memmap) else {
            return Ok(());
        };
        let sharers = entries(m, memmap)
            .filter(|(_, _, pte)| is_shared(*pte))
            .count() as u64;
        let mut new = PageList::new();
        while new.len() + 1 < sharers {
            let Some(frame) = self.frame(m, frames) else {
                while let Some(page) = new.pop(m) {
                    frames.free(m, self.kernel().pfn(page), Order::PAGE);
                }
                return Err(MemdescError::NoMemory);
            };
            m.copy_frame(frame, home);
            new.push(m, self.kernel().page(frame));
        }
        let restored = new.len();
        for (at, entry, _) in entries(m, memmap).filter(|(_, _, pte)| is_shared(*pte)) {
            let frame = new.pop(m).map_or(home, |page| self.kernel().pfn(page));
            self.set_home(m, frame, self.index_of(at));
            m.write_phys(entry, Pte::new(frame, PteFlags::KERNEL).raw());
        }
        self.flush(m, state, memmap);
        state.totals.frames += restored;
        state.totals.saved -= restored;
        state.totals.folded -= 1;
        Ok(())
    }

    /// Gives `page`'s part of the memmap a frame of its own if it shares one with the
    /// rest of `block`. On return it can be written, on every CPU.
    pub(super) fn unshare<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        state: &mut State,
        block: (Pfn, Order),
        page: Page<L>,
    ) -> Result<(), MemdescError> {
        let at = page.address().align_down(PAGE_SIZE);
        let entry = paging::walk(m, m.root(), at);
        if !is_shared(entry.pte) {
            return Ok(());
        }
        let memmap = self.memmap_of(block.0, block.1);
        let sharers = entries(m, memmap)
            .filter(|(_, _, pte)| is_shared(*pte))
            .count();
        let shared = entry.pte.pfn();
        let frame = if sharers > 2 {
            let frame = self.frame(m, frames).ok_or(MemdescError::NoMemory)?;
            m.copy_frame(frame, shared);
            frame
        } else {
            // The frame would be left with one page: better two frames and no sharing.
            return self.unshare_last(m, frames, state, block, page);
        };
        self.set_home(m, frame, self.index_of(at));
        m.write_phys(entry.at, Pte::new(frame, PteFlags::KERNEL).raw());
        self.flush(m, state, at.range(PAGE_SIZE));
        state.totals.frames += 1;
        state.totals.saved -= 1;
        state.totals.unshared += 1;
        Ok(())
    }

    /// Ends the sharing of a block of which two pages of memmap share still.
    fn unshare_last<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        state: &mut State,
        block: (Pfn, Order),
        page: Page<L>,
    ) -> Result<(), MemdescError> {
        let word = self.page_memdesc(m, page);
        self.unfold_entries(m, frames, state, block)?;
        state.totals.unshared += 1;
        match owner_of(m, word) {
            Some((at, _)) => descriptor::set_folded(m, at, false),
            None => self.free_pages_of(m, block.0, block.1, Memdesc::FREE),
        }
        Ok(())
    }
}
