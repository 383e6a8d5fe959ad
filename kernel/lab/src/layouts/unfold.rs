//! The way back: each page of a folio has a struct page of its own again.

use super::error::LayoutError;
use super::map::Map;
use super::model::Model;
use mm::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::encoding::{Encoding, PageShape};
use mm::paging::{self, Flush, Pte, PteFlags};

/// Frames that nobody maps yet, each with the address of the next in its first word.
struct Chain(u64);

impl Chain {
    fn take<M: Machine>(
        m: &M,
        frames: &impl FrameSource<M>,
        count: u64,
        place: Placement,
    ) -> Result<Self, LayoutError> {
        let mut chain = Self(0);
        for _ in 0..count {
            let Some(frame) = frames.alloc(m, Order::PAGE, place) else {
                while let Some(frame) = chain.pop(m) {
                    frames.free(m, frame, Order::PAGE);
                }
                return Err(LayoutError::NoMemory);
            };
            // 0 ends it: no allocator hands out frame 0.
            m.write_phys(frame.phys(), chain.0);
            chain.0 = frame.phys().as_u64();
        }
        Ok(chain)
    }

    fn pop<M: Machine>(&mut self, m: &M) -> Option<Pfn> {
        if self.0 == 0 {
            return None;
        }
        let frame = PhysAddr::new(self.0);
        self.0 = m.read_phys(frame);
        Some(frame.pfn())
    }
}

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// Unfolds the memmap of the folio of `order` at `first`: all frames first, filled,
    /// then mapped, then flushed, then the flag.
    ///
    /// # Errors
    /// [`LayoutError::WrongState`], or [`LayoutError::NoMemory`] with nothing changed.
    #[doc(alias = "hugetlb_vmemmap_restore_folio")]
    pub fn unfold<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<(), LayoutError> {
        self.check_block(first, order)?;
        if !self.is_folio(m, first, order) || !self.is_folded(m, first) {
            return Err(LayoutError::WrongState(first));
        }
        let count = Self::memmap_frames(order);
        let place = Placement::Prefer(self.spec.node);
        let mut chain = Chain::take(m, frames, count - 1, place)?;
        let record = self.tail_record(m, first, order);
        let at = self.page(m, first);
        let mut n = 1;
        while let Some(frame) = chain.pop(m) {
            self.fill_frame(m, frame, &record);
            let entry = paging::walk(m, m.root(), at.offset(n * PAGE_SIZE));
            // Release: the frame's content is seen before the frame is (INV-3).
            m.write_phys(entry.at, Pte::new(frame, PteFlags::KERNEL).raw());
            n += 1;
        }
        Flush::new(at.range(count * PAGE_SIZE)).flush(m);
        self.set_folded(m, first, false);
        self.ledger.flushes += 1;
        self.ledger.frames += count - 1;
        self.ledger.saved -= count - 1;
        self.ledger.folded[order.index()] -= 1;
        Ok(())
    }
}
