//! From a page to its descriptor: one load.
//!
//! The free functions take the load as a closure, so that a benchmark can run them
//! with plain loads over memory of its own.

use super::descriptor::{Bare, Descriptor, Folio, Kind, Ptdesc, Slab};
use super::error::MemdescBug;
use super::layout::{Page, StructPage};
use super::map::MemdescMap;
use super::slab;
use super::word::{Memdesc, MemdescType};
use mm::addr::{PhysAddr, VirtAddr};
use mm::machine::Machine;

/// `page->memdesc`.
#[inline(always)]
pub fn page_memdesc<L: StructPage>(page: Page<L>, load: impl Fn(VirtAddr) -> u64) -> Memdesc {
    Memdesc::from_raw(load(page.memdesc_address()))
}

/// The folio that `page` belongs to; `None` for what is no folio. A page of a folio
/// whose type says that it is broken (8 bytes) is answered by
/// [`MemdescMap::page_folio`] only.
#[inline(always)]
pub fn page_folio<L: StructPage>(page: Page<L>, load: impl Fn(VirtAddr) -> u64) -> Option<Folio> {
    let word = page_memdesc(page, load);
    word.is_folio().then(|| Folio::at(word.address()))
}

/// The slab that `page` belongs to, as [`page_folio`].
#[inline(always)]
pub fn page_slab<L: StructPage>(page: Page<L>, load: impl Fn(VirtAddr) -> u64) -> Option<Slab> {
    let word = page_memdesc(page, load);
    word.is(MemdescType::Slab).then(|| Slab::at(word.address()))
}

/// The page table that `page` is, as [`page_folio`].
#[inline(always)]
pub fn page_ptdesc<L: StructPage>(page: Page<L>, load: impl Fn(VirtAddr) -> u64) -> Option<Ptdesc> {
    let word = page_memdesc(page, load);
    word.is(MemdescType::Ptdesc)
        .then(|| Ptdesc::at(word.address()))
}

/// The descriptor that `word` leads to, and its kind. That of a broken page is named by
/// the frame it lies in.
pub(super) fn owner_of<M: Machine>(m: &M, word: Memdesc) -> Option<(PhysAddr, Kind)> {
    let kind = word.kind()?;
    if kind == MemdescType::HwPoison && word != Memdesc::POISONED {
        let at = PhysAddr::new(word.address());
        return Some((at, slab::kind_of(m, at)?));
    }
    Some((PhysAddr::new(word.address()), Kind::of(kind)?))
}

impl<L: StructPage> MemdescMap<L> {
    /// `page->memdesc` of `page`.
    pub fn page_memdesc<M: Machine>(&self, m: &M, page: Page<L>) -> Memdesc {
        page_memdesc(page, |at| m.load64(at))
    }

    /// The descriptor of kind `D` that `page` belongs to; `None` for anything else.
    /// A broken page still belongs to its owner.
    ///
    /// The answer is true for the moment of the load. Who holds no reference must not
    /// look into the descriptor but by [`MemdescMap::folio_try_get`].
    pub fn page_desc<M: Machine, D: Descriptor>(&self, m: &M, page: Page<L>) -> Option<D> {
        let word = self.page_memdesc(m, page);
        let owner = if word.is(MemdescType::HwPoison) {
            // The frame of the descriptor is looked at: it must not go meanwhile (MD-3).
            let irq = m.irq_save();
            let owner = owner_of(m, self.page_memdesc(m, page));
            m.irq_restore(irq);
            owner
        } else {
            owner_of(m, word)
        };
        let (at, kind) = owner?;
        (kind == D::KIND).then(|| D::at(at.as_u64()))
    }

    /// The folio of `page`, or `None` for what is no folio: quietly, because that is
    /// what its callers want to find out.
    pub fn page_folio<M: Machine>(&self, m: &M, page: Page<L>) -> Option<Folio> {
        self.page_desc(m, page)
    }

    /// The slab of `page`, or `None`.
    pub fn page_slab<M: Machine>(&self, m: &M, page: Page<L>) -> Option<Slab> {
        self.page_desc(m, page)
    }

    /// The page table that `page` is, or `None`.
    pub fn page_ptdesc<M: Machine>(&self, m: &M, page: Page<L>) -> Option<Ptdesc> {
        self.page_desc(m, page)
    }

    /// The first page of the bare block that `page` lies in; a page without descriptor
    /// is its own. The caller keeps the block from being freed.
    ///
    /// # Errors
    /// [`MemdescBug::CompoundHead`] for a page of a folio, slab or page table.
    pub fn try_compound_head<M: Machine>(
        &self,
        m: &M,
        page: Page<L>,
    ) -> Result<Page<L>, MemdescBug> {
        let word = self.page_memdesc(m, page);
        match owner_of(m, word) {
            None => Ok(page),
            Some((at, Kind::Bare)) => Ok(self.page(Bare::at(at.as_u64()).pfn(m))),
            Some(_) => Err(MemdescBug::CompoundHead {
                page: page.address(),
                word,
            }),
        }
    }

    /// [`MemdescMap::try_compound_head`] for callers that know what they have.
    ///
    /// # Panics
    /// For a page of a folio, slab or page table: there is nothing in a head page.
    pub fn compound_head<M: Machine>(&self, m: &M, page: Page<L>) -> Page<L> {
        self.try_compound_head(m, page)
            .unwrap_or_else(|bug| panic!("{bug}"))
    }
}
