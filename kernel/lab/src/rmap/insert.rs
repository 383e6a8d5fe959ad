//! Drivers' ways into user mode: pages that they allocated, and bare frame numbers.

use super::alloc::Pages;
use super::error::VmError;
use super::kind::{PageKind, page_kind};
use super::policy::Policy;
use super::space::{AddressSpace, Leaf, SPECIAL};
use mm::addr::{PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use mm::machine::Machine;
use mm::page::Page;
use mm::paging::{Level, PteFlags};

impl<M: Machine> AddressSpace<'_, M> {
    /// Maps `pages`, of whatever allocation, from `at` on by 4 KiB entries, and takes a
    /// reference on the allocation for each.
    ///
    /// # Errors
    /// [`VmError`]: all pages are mapped or none is. (Linux leaves those before the one
    /// that failed.)
    #[doc(alias = "vm_insert_page")]
    #[doc(alias = "validate_page_before_insert")]
    pub fn vm_insert_pages(&mut self, at: VirtAddr, pages: &[Page]) -> Result<(), VmError> {
        for page in pages {
            validate(self.pages, *page)?;
        }
        self.map_pages(at, pages.iter().copied())
    }

    /// Maps `nr` frames from `first` on at `at` as nothing but frames: not a struct page
    /// is looked at, then or later. The caller keeps them for as long as they are mapped.
    ///
    /// # Errors
    /// [`VmError`]: all are mapped or none is.
    pub fn remap_pfn_range(&mut self, at: VirtAddr, first: Pfn, nr: u64) -> Result<(), VmError> {
        let flags = SPECIAL
            .union(PteFlags::PRESENT)
            .union(PteFlags::WRITABLE)
            .union(PteFlags::ACCESSED)
            .union(PteFlags::DIRTY)
            .union(PteFlags::NO_EXECUTE);
        for n in 0..nr {
            let here = at.offset(n * PAGE_SIZE);
            if let Err(error) = self.set_entry(here, first.offset(n), Level::Pte, flags) {
                if n > 0 {
                    self.munmap(VirtRange {
                        start: at,
                        end: here,
                    })?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The page that is mapped at `at`; `None` if nothing is, or nothing with a struct
    /// page that may be looked at. Works for every kind.
    pub fn vm_normal_page(&self, at: VirtAddr) -> Option<Page> {
        let leaf = self.next_leaf(at.range(1))?;
        self.normal_page(&leaf, at)
    }

    /// The head of the folio that is mapped at `at`; `None` also if what is mapped there
    /// is of no folio.
    pub fn vm_normal_folio(&self, at: VirtAddr) -> Option<Page> {
        self.pages.page_folio(self.vm_normal_page(at)?)
    }

    pub(super) fn normal_page(&self, leaf: &Leaf, at: VirtAddr) -> Option<Page> {
        if leaf.is_special() {
            return None;
        }
        let inside = at.as_u64() - leaf.at.as_u64();
        let pfn = leaf.pte.pfn().offset(inside / PAGE_SIZE);
        Some(self.pages.memmap().page(pfn))
    }

    /// The page at `at`, pinned by the way of its kind.
    ///
    /// # Errors
    /// [`VmError::NotMapped`], [`VmError::Special`], or as [`Pages::pin`].
    #[doc(alias = "pin_user_pages")]
    pub fn pin_user_page(&self, at: VirtAddr) -> Result<Page, VmError> {
        let page = self.follow(at)?;
        self.pages.pin(page)?;
        Ok(page)
    }

    /// The page at `at`, with a reference.
    ///
    /// # Errors
    /// [`VmError::NotMapped`], [`VmError::Special`], or as [`Pages::get`].
    #[doc(alias = "get_user_pages")]
    pub fn get_user_page(&self, at: VirtAddr) -> Result<Page, VmError> {
        let page = self.follow(at)?;
        self.pages.get(page)?;
        Ok(page)
    }

    #[doc(alias = "follow_page_mask")]
    fn follow(&self, at: VirtAddr) -> Result<Page, VmError> {
        let leaf = self.next_leaf(at.range(1)).ok_or(VmError::NotMapped(at))?;
        self.normal_page(&leaf, at).ok_or(VmError::Special(at))
    }
}

/// Whether a driver may insert `page`. A type says that the page is somebody's who does
/// not expect it in user mode; NotRmappable, though a type, must not.
fn validate<M: Machine>(pages: &Pages<'_, M>, page: Page) -> Result<(), VmError> {
    let m = pages.m;
    let (kind, head) = page_kind(m, pages.policy(), page);
    match kind {
        PageKind::Folio | PageKind::Compound | PageKind::Bare => {}
        PageKind::Unreferenced => return Err(VmError::NoReference(page)),
        _ => return Err(VmError::WrongKind(page, kind)),
    }
    if head.ref_count(m) == 0 {
        return Err(VmError::NoReference(page));
    }
    if pages.policy() == Policy::OrderZeroOnly && head.is_head(m) {
        return Err(VmError::CompoundRefused(page));
    }
    Ok(())
}
