//! FLATMEM: one array for a node, in the direct map.

use super::{Model, Place, Spec, direct};
use crate::layouts::error::LayoutError;
use crate::layouts::ledger::Ledger;
use mm::addr::{Order, Pfn, PhysAddr, VirtAddr};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::encoding::{MemoryModel, PageShape};

/// One array, aligned to its own size rounded up: folios up to the size of the node find
/// their heads, as long as the node itself starts at a multiple of them.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "alloc_node_mem_map")]
pub struct Flatmem;

impl Model for Flatmem {
    const MODEL: MemoryModel = MemoryModel::Flatmem;
    const GRAIN: Order = Order::PMD;

    fn populate<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        ledger: &mut Ledger,
    ) -> Result<Place, LayoutError> {
        let origin = direct::take::<M, S>(m, frames, spec, spec.range.pages(), ledger)?;
        Ok(Place {
            range: spec.range,
            origin,
            sections: None,
        })
    }

    fn release<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        place: &Place,
        ledger: &mut Ledger,
    ) {
        direct::give::<M, S>(m, frames, spec, spec.range.pages(), place.origin, ledger);
    }

    #[inline(always)]
    fn page<M: Machine, S: PageShape>(_: &M, place: &Place, pfn: Pfn) -> VirtAddr {
        let n = pfn.as_u64() - place.range.start.as_u64();
        place.origin.offset(n * S::SIZE)
    }

    #[inline(always)]
    fn pfn<M: Machine, S: PageShape>(_: &M, place: &Place, page: VirtAddr) -> Pfn {
        let n = (page.as_u64() - place.origin.as_u64()) / S::SIZE;
        place.range.start.offset(n)
    }

    #[inline(always)]
    fn load<M: Machine>(m: &M, at: VirtAddr) -> u64 {
        direct::load(m, at)
    }

    #[inline(always)]
    fn store<M: Machine>(m: &M, at: VirtAddr, value: u64) {
        direct::store(m, at, value);
    }

    fn phys<M: Machine>(_: &M, at: VirtAddr) -> Option<PhysAddr> {
        Some(direct::phys(at))
    }
}
