//! Allocations of every kind, under a policy, and their way back.

use core::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;

use super::error::VmError;
use super::fields;
use super::freeing;
use super::kind::{PageKind, page_kind};
use super::policy::Policy;
use mm::addr::{Order, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::machine::{Level, Machine};
use mm::page::{self, BadPage, Flags, Memmap, Page, PageType};
use mm::system::Mm;

bitflags! {
    /// How an allocation is made.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[doc(alias = "gfp_t")]
    pub struct Gfp: u32 {
        /// As a compound page, if it has more than one page.
        #[doc(alias = "__GFP_COMP")]
        const COMP = 1 << 0;
    }
}

/// The pages of a machine under one policy: what allocates them, tells them apart and
/// takes them back. Nothing is kept here but two counters, so there may be several as
/// long as each page stays with those of one policy.
#[derive(Debug)]
pub struct Pages<'a, M: Machine> {
    pub(super) m: &'a M,
    mm: &'a Mm,
    policy: Policy,
    /// Relaxed: statistics.
    warnings: AtomicU64,
    bad_pages: AtomicU64,
}

impl<'a, M: Machine> Pages<'a, M> {
    /// The pages of `mm` under `policy`.
    pub const fn new(m: &'a M, mm: &'a Mm, policy: Policy) -> Self {
        Self {
            m,
            mm,
            policy,
            warnings: AtomicU64::new(0),
            bad_pages: AtomicU64::new(0),
        }
    }

    /// The policy.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Where the struct pages are.
    pub const fn memmap(&self) -> Memmap {
        self.mm.vmemmap.memmap()
    }

    /// How often the rmap found a folio whose fields were never initialised.
    #[doc(alias = "VM_WARN_ON_FOLIO")]
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Allocations that were in a bad state when their last reference went.
    #[doc(alias = "bad_page")]
    pub fn bad_pages(&self) -> u64 {
        self.bad_pages.load(Ordering::Relaxed)
    }

    /// 2^order pages with a reference, on the first: a compound page if that is asked
    /// for, else single pages that are freed together unless they are split.
    ///
    /// # Errors
    /// [`VmError::NoMemory`], [`VmError::OrderTooLarge`].
    #[doc(alias = "alloc_pages_noprof")]
    #[doc(alias = "post_alloc_hook")]
    pub fn alloc_pages(&self, order: Order, gfp: Gfp) -> Result<Page, VmError> {
        let compound = gfp.contains(Gfp::COMP) && order > Order::PAGE;
        if compound && self.memmap().max_folio_order() < Some(order) {
            return Err(VmError::OrderTooLarge(order));
        }
        let (m, nodes) = (self.m, &self.mm.nodes);
        let block = nodes.alloc(m, order, Placement::local(m));
        let first = self.memmap().page(block.ok_or(VmError::NoMemory)?);
        if self.policy == Policy::NotRmappable {
            fields::set_types(m, first, order, PageType::NOT_RMAPPABLE);
        }
        if compound {
            page::prep_compound_head(m, first, order);
            page::prep_compound_tails(m, first, order);
            if self.policy.compound_has_rmap_fields() {
                fields::init(m, first, order);
            }
            if self.policy.compound_has_pincount() {
                fields::Field::Pincount.store(m, first, 0);
            }
        }
        first.set_ref_count(m, 1);
        Ok(first)
    }

    /// A folio of `order` with a reference.
    ///
    /// # Errors
    /// As [`Pages::alloc_pages`].
    #[doc(alias = "folio_alloc_noprof")]
    pub fn folio_alloc(&self, order: Order) -> Result<Page, VmError> {
        let head = self.alloc_pages(order, Gfp::COMP)?;
        self.page_rmappable_folio(head, order);
        Ok(head)
    }

    /// Makes what [`Pages::alloc_pages`] made with [`Gfp::COMP`] a folio. Nobody else
    /// has found it yet.
    fn page_rmappable_folio(&self, head: Page, order: Order) {
        let m = self.m;
        if self.policy == Policy::NotRmappable {
            fields::set_types(m, head, order, PageType::NONE);
        }
        if order > Order::PAGE {
            fields::init(m, head, order);
        }
        head.change_flag(m, Flags::RMAPPABLE, true);
    }

    /// A block of a slab allocator, with a reference.
    ///
    /// # Errors
    /// As [`Pages::alloc_pages`].
    #[doc(alias = "alloc_slab_page")]
    pub fn slab_alloc(&self, order: Order) -> Result<Page, VmError> {
        let first = self.alloc_pages(order, Gfp::COMP)?;
        // A type of its own takes the place of NotRmappable on the first page.
        first.set_page_type(self.m, PageType::SLAB);
        Ok(first)
    }

    /// A hugetlb folio from a pool of `order`, with a reference. Its fields are
    /// initialised now, since a folio in a pool has none.
    ///
    /// # Errors
    /// [`VmError::NoMemory`] if the machine has no such pool, or the pools no folio that
    /// is not promised.
    #[doc(alias = "alloc_hugetlb_folio")]
    pub fn hugetlb_alloc(&self, order: Order) -> Result<Page, VmError> {
        let h = self.mm.hugetlb.hstate(order).ok_or(VmError::NoMemory)?;
        let head = h.take_near(self.m, &self.mm.nodes);
        let head = head.ok_or(VmError::NoMemory)?;
        fields::init(self.m, head, order);
        Ok(head)
    }

    /// Makes the pages of an allocation without [`Gfp::COMP`] allocations of their own,
    /// each with a reference.
    ///
    /// # Errors
    /// [`VmError::CompoundRefused`] for a compound page, [`VmError::NoReference`] if
    /// `first` is not the first page of an allocation.
    pub fn split_page(&self, first: Page) -> Result<(), VmError> {
        let m = self.m;
        if first.is_head(m) || first.is_tail(m) {
            return Err(VmError::CompoundRefused(first));
        }
        let order = page::allocated_order(m, first)
            .filter(|_| first.ref_count(m) > 0)
            .ok_or(VmError::NoReference(first))?;
        self.mm.nodes.split(m, self.memmap().pfn(first), order);
        for n in 1..order.pages() {
            first.nth(n).set_ref_count(m, 1);
        }
        Ok(())
    }

    /// What `page` was allocated as, as the policy lets it be told.
    pub fn kind(&self, page: Page) -> PageKind {
        page_kind(self.m, self.policy, page).0
    }

    /// The head of the folio that `page` belongs to; `None` if it belongs to none.
    pub fn page_folio(&self, page: Page) -> Option<Page> {
        let (kind, head) = page_kind(self.m, self.policy, page);
        self.policy.is_folio(kind).then_some(head)
    }

    /// One more reference on what `page` belongs to; its first page.
    ///
    /// # Errors
    /// [`VmError::NoReference`] if there is none yet, [`VmError::TooManyReferences`].
    #[doc(alias = "folio_get")]
    pub fn get_page(&self, page: Page) -> Result<Page, VmError> {
        let head = page.compound_head(self.m);
        self.add_refs(head, 1)?;
        Ok(head)
    }

    /// Adds `refs` references to `head`, which must have one.
    #[doc(alias = "try_grab_folio")]
    pub(super) fn add_refs(&self, head: Page, refs: u32) -> Result<(), VmError> {
        let mut count = head.ref_count(self.m);
        loop {
            if count == 0 {
                return Err(VmError::NoReference(head));
            }
            let more = count.checked_add(refs).filter(|n| *n <= i32::MAX as u32);
            let more = more.ok_or(VmError::TooManyReferences(head))?;
            match self.exchange_count(head, count, more) {
                Ok(_) => return Ok(()),
                Err(found) => count = found,
            }
        }
    }

    /// Drops a reference on what `page` belongs to; whether it was the last, so that
    /// the pages are free.
    ///
    /// # Errors
    /// [`VmError::NoReference`]; [`VmError::Bad`] if the last reference went while the
    /// page still was mapped, pinned or folded: it is not freed then, and its count is 0.
    #[doc(alias = "folio_put")]
    pub fn put_page(&self, page: Page) -> Result<bool, VmError> {
        self.drop_refs(page.compound_head(self.m), 1)
    }

    pub(super) fn drop_refs(&self, head: Page, refs: u32) -> Result<bool, VmError> {
        let mut count = head.ref_count(self.m);
        loop {
            let less = count.checked_sub(refs).filter(|_| count > 0);
            let less = less.ok_or(VmError::NoReference(head))?;
            match self.exchange_count(head, count, less) {
                Ok(_) if less == 0 => break,
                Ok(_) => return Ok(false),
                Err(found) => count = found,
            }
        }
        // Frozen: nobody finds the page any more, and no reader takes a reference.
        match freeing::free(self.m, self.mm, self.policy, head) {
            Ok(()) => Ok(true),
            Err(bad) => {
                self.bad_pages.fetch_add(1, Ordering::Relaxed);
                self.m.log(Level::Warn, format_args!("BUG: {bad}"));
                Err(bad.into())
            }
        }
    }

    /// Never on a count of 0, so never on a tail.
    fn exchange_count(&self, head: Page, old: u32, new: u32) -> Result<u32, u32> {
        let at = head.ref_count_address();
        self.m.compare_exchange32(at, old, new)
    }

    /// Says in the log, once, that the rmap met something that it cannot have to do
    /// with.
    #[doc(alias = "VM_WARN_ON_ONCE")]
    pub(super) fn warn(&self, bad: BadPage) {
        if self.warnings.fetch_add(1, Ordering::Relaxed) == 0 {
            self.m.log(Level::Warn, format_args!("WARNING: {bad}"));
        }
    }

    /// A frame for a page table, empty.
    #[doc(alias = "pagetable_alloc")]
    pub(super) fn table_alloc(&self) -> Option<Pfn> {
        let (m, nodes) = (self.m, &self.mm.nodes);
        let table = nodes.alloc(m, Order::PAGE, Placement::local(m))?;
        self.memmap().page(table).set_page_type(m, PageType::TABLE);
        Some(table)
    }

    /// Takes a page table back that nothing points to any more.
    #[doc(alias = "pagetable_free")]
    pub(super) fn table_free(&self, table: Pfn) {
        let m = self.m;
        self.memmap().page(table).set_page_type(m, PageType::NONE);
        self.mm.nodes.free(m, table, Order::PAGE);
    }
}
