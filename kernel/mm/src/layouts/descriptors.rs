//! Where the data of a folio are when they are not in its struct pages: frames cut into
//! slots as a slab's are, in the direct map. [`memdesc`](crate::page::encoding::Memdesc) says what an
//! encoding does with their addresses; a life of their own they have elsewhere.

use super::error::LayoutError;
use super::ledger::Ledger;
use super::model::DIRECT_MAP;
use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::memdesc::{Kind, OBJECTS, capacity};

/// Bytes of a descriptor: the one that [`memdesc`](crate::memdesc) keeps for a folio.
pub const DESCRIPTOR_SIZE: u64 = Kind::Folio.size();
/// Descriptors in a frame, behind a header.
pub(super) const PER_FRAME: u64 = capacity(Kind::Folio);

/// In a free slot: the next free one.
const LINK: u64 = 0;
/// In the first word of each frame: the next frame.
const NEXT: u64 = 0;
/// First pfn and order of the folio.
const BLOCK: u64 = 0;
/// State of the folio: bit 0 is that its memmap is folded.
const STATE: u64 = 8;

/// All frames with descriptors, and the free ones in them. Links are physical addresses; 0
/// ends a list: no allocator hands out frame 0.
#[derive(Debug)]
pub(super) struct Descriptors {
    frames: u64,
    free: u64,
}

fn phys(at: VirtAddr) -> PhysAddr {
    PhysAddr::new(at.as_u64() - DIRECT_MAP.as_u64())
}

impl Descriptors {
    pub(super) const fn new() -> Self {
        Self { frames: 0, free: 0 }
    }

    /// A descriptor for the folio of `order` at `first`.
    pub(super) fn take<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        (first, order, node): (Pfn, Order, NodeId),
        ledger: &mut Ledger,
    ) -> Result<VirtAddr, LayoutError> {
        if self.free == 0 {
            self.grow(m, frames, node)?;
            ledger.descriptors += 1;
        }
        let slot = PhysAddr::new(self.free);
        self.free = m.read_phys(slot.offset(LINK));
        let block = first.phys().as_u64() | u64::from(order.get());
        m.write_phys(slot.offset(BLOCK), block);
        m.write_phys(slot.offset(STATE), 0);
        Ok(DIRECT_MAP.offset(slot.as_u64()))
    }

    fn grow<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
    ) -> Result<(), LayoutError> {
        let frame = frames
            .alloc(m, Order::PAGE, Placement::Prefer(node))
            .ok_or(LayoutError::NoMemory)?
            .phys();
        m.write_phys(frame.offset(NEXT), self.frames);
        self.frames = frame.as_u64();
        for n in (0..PER_FRAME).rev() {
            let slot = frame.offset(OBJECTS + n * DESCRIPTOR_SIZE);
            m.write_phys(slot.offset(LINK), self.free);
            self.free = slot.as_u64();
        }
        Ok(())
    }

    /// Takes the descriptor at `at` back.
    pub(super) fn give<M: Machine>(&mut self, m: &M, at: VirtAddr) {
        let slot = phys(at);
        m.write_phys(slot.offset(LINK), self.free);
        self.free = slot.as_u64();
    }

    /// First page and order of the folio whose descriptor is at `at`.
    pub(super) fn block<M: Machine>(m: &M, at: VirtAddr) -> (Pfn, Option<Order>) {
        let word = m.read_phys(phys(at).offset(BLOCK));
        let order = u8::try_from(word % PAGE_SIZE).ok().and_then(Order::new);
        (Pfn::new(word / PAGE_SIZE), order)
    }

    pub(super) fn is_folded<M: Machine>(m: &M, at: VirtAddr) -> bool {
        m.read_phys(phys(at).offset(STATE)) & 1 != 0
    }

    pub(super) fn set_folded<M: Machine>(m: &M, at: VirtAddr, folded: bool) {
        m.write_phys(phys(at).offset(STATE), u64::from(folded));
    }

    /// Gives all frames back.
    pub(super) fn release<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        ledger: &mut Ledger,
    ) {
        while self.frames != 0 {
            let frame = PhysAddr::new(self.frames);
            self.frames = m.read_phys(frame.offset(NEXT));
            frames.free(m, frame.pfn(), Order::PAGE);
            ledger.descriptors -= 1;
        }
        self.free = 0;
    }
}
