//! What a page was allocated as, as far as its struct page tells.

use core::fmt;

use super::policy::Policy;
use mm::machine::Machine;
use mm::page::{self, Flags, Page, PageType};

/// What a page belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PageKind {
    /// Free, or nobody has a reference on it and no type says whose it is.
    Unreferenced,
    /// Never handed out by an allocator, or memmap from boot.
    Reserved,
    /// Holds struct pages.
    Memmap,
    /// A page table.
    #[doc(alias = "ptdesc")]
    Table,
    /// Of a slab allocator.
    Slab,
    /// Of a hugetlb folio.
    Hugetlb,
    /// An allocation of single pages that was not made as a folio.
    Bare,
    /// A compound page that was not made as a folio.
    #[doc(alias = "__GFP_COMP")]
    Compound,
    /// A folio: what has the fields that mapping and pinning need.
    #[doc(alias = "folio_test_rmappable")]
    Folio,
}

impl PageKind {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Unreferenced,
        Self::Reserved,
        Self::Memmap,
        Self::Table,
        Self::Slab,
        Self::Hugetlb,
        Self::Bare,
        Self::Compound,
        Self::Folio,
    ];
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreferenced => "unreferenced",
            Self::Reserved => "reserved",
            Self::Memmap => "memmap",
            Self::Table => "page table",
            Self::Slab => "slab",
            Self::Hugetlb => "hugetlb folio",
            Self::Bare => "bare page",
            Self::Compound => "compound page",
            Self::Folio => "folio",
        })
    }
}

/// What `page` belongs to, and the first page of that: a few loads, true for the moment
/// of each. Whoever holds a reference gets an answer that stays.
///
/// Where the policy leaves no mark, what is no folio is taken for one: that is its
/// point, not an error.
pub fn page_kind<M: Machine>(m: &M, policy: Policy, page: Page) -> (PageKind, Page) {
    if page.flags(m).contains(Flags::RESERVED) {
        return (PageKind::Reserved, page);
    }
    match page.page_type(m) {
        PageType::BUDDY => return (PageKind::Unreferenced, page),
        PageType::MEMMAP | PageType::TAILS => return (PageKind::Memmap, page),
        PageType::TABLE => return (PageKind::Table, page),
        _ => {}
    }
    // Nobody's, and then `page` stands for itself.
    let Some(head) = page::page_folio(m, page) else {
        return (PageKind::Unreferenced, page);
    };
    (owned_kind(m, policy, head), head)
}

/// What an allocation with first page `head` was made as, whatever its count.
pub(super) fn owned_kind<M: Machine>(m: &M, policy: Policy, head: Page) -> PageKind {
    let (flags, page_type) = (head.flags(m), head.page_type(m));
    let large = flags.contains(Flags::HEAD);
    let folio = match (policy, page_type) {
        (_, PageType::SLAB) => return PageKind::Slab,
        (_, PageType::HUGETLB) => return PageKind::Hugetlb,
        (Policy::Today, _) => true,
        (Policy::NotRmappable, page_type) => page_type != PageType::NOT_RMAPPABLE,
        (Policy::NotAFolio(_), _) => flags.contains(Flags::RMAPPABLE),
        // PG_large_rmappable: there is no such bit for a page of order 0.
        (Policy::Rfc | Policy::SubClass | Policy::OrderZeroOnly, _) => {
            !large || flags.contains(Flags::RMAPPABLE)
        }
    };
    match (folio, large) {
        (true, _) => PageKind::Folio,
        (false, true) => PageKind::Compound,
        (false, false) => PageKind::Bare,
    }
}
