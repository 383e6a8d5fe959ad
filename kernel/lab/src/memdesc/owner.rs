//! Allocating and freeing blocks: descriptor first, words after, count last.

use super::descriptor::{self, Bare, COUNTS, Descriptor, Folio, Kind, NO_COUNTS, Ptdesc, Slab};
use super::error::MemdescError;
use super::layout::StructPage;
use super::map::MemdescMap;
use super::word::{Memdesc, MemdescType};
use mm::addr::{Order, PhysAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;

impl<L: StructPage> MemdescMap<L> {
    /// An anonymous folio of `order`, with one reference.
    ///
    /// # Errors
    /// [`MemdescError::NoMemory`] for the descriptor, or for the memmap of a folded free
    /// block that must be broken up; [`MemdescError::NoSpace`].
    #[doc(alias = "folio_alloc")]
    pub fn alloc_folio<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        order: Order,
    ) -> Result<Folio, MemdescError> {
        self.alloc(m, frames, MemdescType::Anon, order)
    }

    /// A folio of the page cache; otherwise as [`MemdescMap::alloc_folio`].
    ///
    /// # Errors
    /// See there.
    #[doc(alias = "filemap_alloc_folio")]
    pub fn alloc_file_folio<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        order: Order,
    ) -> Result<Folio, MemdescError> {
        self.alloc(m, frames, MemdescType::File, order)
    }

    /// A block for a slab cache. It has no count.
    ///
    /// # Errors
    /// See [`MemdescMap::alloc_folio`].
    #[doc(alias = "allocate_slab")]
    pub fn alloc_slab<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        order: Order,
    ) -> Result<Slab, MemdescError> {
        self.alloc(m, frames, MemdescType::Slab, order)
    }

    /// A page table. It has no count.
    ///
    /// # Errors
    /// See [`MemdescMap::alloc_folio`].
    #[doc(alias = "pagetable_alloc")]
    pub fn alloc_ptdesc<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        order: Order,
    ) -> Result<Ptdesc, MemdescError> {
        self.alloc(m, frames, MemdescType::Ptdesc, order)
    }

    /// A block that is no folio, with one reference: what `__GFP_COMP` gives.
    ///
    /// # Errors
    /// See [`MemdescMap::alloc_folio`].
    #[doc(alias = "alloc_pages")]
    pub fn alloc_bare<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        order: Order,
    ) -> Result<Bare, MemdescError> {
        self.alloc(m, frames, MemdescType::Bare, order)
    }

    fn alloc<M: Machine, D: Descriptor>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        word: MemdescType,
        order: Order,
    ) -> Result<D, MemdescError> {
        let mut state = self.lock(m);
        let state = &mut *state;
        let placement = Placement::Prefer(self.node());
        let block = self
            .find_free(m, order)
            .ok_or(MemdescError::NoSpace(order))?;
        let cache = &mut state.caches[D::KIND as usize];
        let at = cache
            .alloc(m, frames, placement, &mut state.totals)
            .ok_or(MemdescError::NoMemory)?;
        let folded = match self.make_room(m, frames, state, block, order) {
            Ok(folded) => folded,
            Err(error) => {
                let cache = &mut state.caches[D::KIND as usize];
                cache.free(m, frames, at, &mut state.totals);
                return Err(error);
            }
        };
        let place = (block, order, self.node().get());
        descriptor::init(m, at, D::KIND, word, place, folded);
        self.set_words(m, block, order, Memdesc::new(word, at));
        // Release, and last: nobody gets a reference before all pages say the same.
        let counted = matches!(D::KIND, Kind::Folio | Kind::Bare);
        m.write_phys(at.offset(COUNTS), NO_COUNTS | u64::from(counted));
        Ok(D::at(at.as_u64()))
    }

    /// Frees a slab's block.
    pub fn free_slab<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, slab: Slab) {
        self.release(m, frames, slab.phys(), Kind::Slab);
    }

    /// Frees a page table.
    #[doc(alias = "pagetable_free")]
    pub fn free_ptdesc<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, ptdesc: Ptdesc) {
        self.release(m, frames, ptdesc.phys(), Kind::Ptdesc);
    }

    /// Frees the block of a descriptor whose count is 0. A folded memmap stays folded,
    /// as that of a free block: nothing is allocated, so nothing can fail (MD-5).
    pub(super) fn release<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        at: PhysAddr,
        kind: Kind,
    ) {
        let mut state = self.lock(m);
        let state = &mut *state;
        let desc = Folio::at(at.as_u64());
        let (block, order) = (desc.pfn(m), desc.order(m));
        let word = if desc.is_folded(m) {
            Memdesc::free_folded(order)
        } else {
            Memdesc::FREE
        };
        self.free_pages_of(m, block, order, word);
        let cache = &mut state.caches[kind as usize];
        cache.free(m, frames, at, &mut state.totals);
    }
}
