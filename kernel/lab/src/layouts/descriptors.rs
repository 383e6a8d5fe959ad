//! Where the data of a folio are when they are not in its struct pages: folios of
//! [`memdesc`](crate::memdesc), from the same slab, in the direct map. Nobody counts
//! references on them here: a folio's count stays 0.

use super::error::LayoutError;
use super::ledger::Ledger;
use super::model::{phys, virt};
use crate::memdesc::{
    Cache, Descriptor, Folio, Kind, MemdescType, Totals, capacity, init, set_folded,
};
use mm::addr::{NodeId, Order, Pfn, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::encoding::Memdesc;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u64 = Kind::Folio.size();
/// Descriptors in a frame, behind a header.
pub(super) const PER_FRAME: u64 = capacity(Kind::Folio);

/// What the descriptors say that their folios are: what words of the encoding do.
const TYPE: MemdescType = MemdescType::File;
const _: () = assert!(TYPE as u64 == Memdesc::FOLIO);

/// The descriptors of a map.
#[derive(Debug)]
pub(super) struct Descriptors {
    cache: Cache,
    totals: Totals,
}

/// The folio whose descriptor is at `at`.
fn folio(at: VirtAddr) -> Folio {
    Folio::at(phys(at).as_u64())
}

impl Descriptors {
    pub(super) const fn new() -> Self {
        Self {
            cache: Cache::new(Kind::Folio),
            totals: Totals::EMPTY,
        }
    }

    /// A descriptor for the folio of `order` at `first`.
    pub(super) fn take<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        (first, order, node): (Pfn, Order, NodeId),
        ledger: &mut Ledger,
    ) -> Result<VirtAddr, LayoutError> {
        let near = Placement::Prefer(node);
        let at = self.cache.alloc(m, frames, near, &mut self.totals);
        let at = at.ok_or(LayoutError::NoMemory)?;
        let place = (first, order, node.get());
        init(m, at, Kind::Folio, TYPE, place, false);
        ledger.descriptors = self.totals.descriptor_frames;
        Ok(virt(at))
    }

    /// Takes the descriptor at `at` back. No page leads to it any more.
    pub(super) fn give<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        at: VirtAddr,
        ledger: &mut Ledger,
    ) {
        self.cache.free(m, frames, phys(at), &mut self.totals);
        ledger.descriptors = self.totals.descriptor_frames;
    }

    /// First page of the folio whose descriptor is at `at`.
    pub(super) fn first<M: Machine>(m: &M, at: VirtAddr) -> Pfn {
        folio(at).pfn(m)
    }

    pub(super) fn is_folded<M: Machine>(m: &M, at: VirtAddr) -> bool {
        folio(at).is_folded(m)
    }

    pub(super) fn set_folded<M: Machine>(m: &M, at: VirtAddr, folded: bool) {
        set_folded(m, phys(at), folded);
    }

    /// Gives all frames back, those of folios that still are there, too.
    pub(super) fn release<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        ledger: &mut Ledger,
    ) {
        self.cache.destroy(m, frames, &mut self.totals);
        ledger.descriptors = self.totals.descriptor_frames;
    }
}
