//! Memory models: how a pfn becomes the address of a struct page, one file each.

mod direct;
mod flatmem;
mod sparsemem;
mod vmemmap;

pub use direct::DIRECT_MAP;
pub(super) use direct::{phys, virt};
pub use flatmem::Flatmem;
pub use sparsemem::Sparsemem;
pub(super) use vmemmap::window_tables;
pub use vmemmap::{Vmemmap, WINDOW};

use core::fmt::Debug;

use super::error::LayoutError;
use super::ledger::Ledger;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::encoding::{MemoryModel, PageShape};

/// What a map is asked to describe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The frames, which need not exist.
    pub range: PfnRange,
    /// Their node, from which the struct pages come, too, if they can.
    pub node: NodeId,
    /// Bytes by which the memmap starts behind where it should. Anything but 0 breaks
    /// the alignment, deliberately.
    pub skew: u64,
}

impl Spec {
    /// Aligned as it should be, on node 0.
    #[must_use]
    pub const fn of(range: PfnRange) -> Self {
        Self {
            range,
            node: NodeId::ZERO,
            skew: 0,
        }
    }

    /// The bytes that the struct pages of `pages` pages take, and the order of a block
    /// that holds them and the skew.
    fn block<S: PageShape>(&self, pages: u64) -> Result<(u64, Order), LayoutError> {
        let bytes = (pages * S::SIZE + self.skew).next_multiple_of(PAGE_SIZE);
        let order = (bytes / PAGE_SIZE).next_power_of_two().ilog2();
        let order = u8::try_from(order).ok().and_then(Order::new);
        Ok((bytes, order.ok_or(LayoutError::TooFar(self.range))?))
    }
}

/// Where a populated memmap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The frames described.
    pub(super) range: PfnRange,
    /// Where struct pages start: that of frame 0, or of the first, by model.
    pub(super) origin: VirtAddr,
    /// The frame with the section table, if there is one.
    pub(super) sections: Option<Pfn>,
}

/// A way from pfn to struct page and back.
///
/// Loads are acquires, stores releases, as [`Machine`]'s are.
pub trait Model: Copy + Debug + 'static {
    /// Its name.
    const MODEL: MemoryModel;
    /// What ranges start and end at multiples of.
    const GRAIN: Order;

    /// Takes frames for the struct pages of `spec`, content undefined.
    ///
    /// # Errors
    /// With everything given back.
    fn populate<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        ledger: &mut Ledger,
    ) -> Result<Place, LayoutError>;

    /// Gives back what [`Model::populate`] took. Nothing is folded.
    fn release<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        place: &Place,
        ledger: &mut Ledger,
    );

    /// Address of the struct page of `pfn`, which is in the range.
    #[doc(alias = "pfn_to_page")]
    fn page<M: Machine, S: PageShape>(m: &M, place: &Place, pfn: Pfn) -> VirtAddr;

    /// The frame of the struct page at `page`, which is one of this map's.
    #[doc(alias = "page_to_pfn")]
    fn pfn<M: Machine, S: PageShape>(m: &M, place: &Place, page: VirtAddr) -> Pfn;

    /// Loads 8 bytes of a struct page.
    fn load<M: Machine>(m: &M, at: VirtAddr) -> u64;

    /// Stores 8 bytes of a struct page.
    fn store<M: Machine>(m: &M, at: VirtAddr, value: u64);

    /// The memory behind `at`, now.
    fn phys<M: Machine>(m: &M, at: VirtAddr) -> Option<PhysAddr>;
}
