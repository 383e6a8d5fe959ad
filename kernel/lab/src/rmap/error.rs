//! Why a request was refused.

use core::fmt;

use super::kind::PageKind;
use super::policy::Policy;
use mm::addr::{Order, VirtAddr};
use mm::page::{BadPage, Page};

/// Why a request was refused. Nothing is changed then, unless the variant says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmError {
    /// No frame for a page table or an allocation.
    #[doc(alias = "ENOMEM")]
    NoMemory,
    /// The memmap is not aligned for a compound page of that order.
    OrderTooLarge(Order),
    /// Not an address of user mode, or the range leaves it.
    NotUser(VirtAddr),
    /// Not a multiple of the size that is to be mapped, in bytes.
    Misaligned(VirtAddr, u64),
    /// Something is mapped at the address.
    #[doc(alias = "EBUSY")]
    Occupied(VirtAddr),
    /// Nothing is mapped at the address.
    #[doc(alias = "EFAULT")]
    NotMapped(VirtAddr),
    /// The range ends inside a larger entry, which starts at the address.
    CutsEntry(VirtAddr),
    /// Nobody has a reference on the page.
    NoReference(Page),
    /// One more reference would overflow the count.
    TooManyReferences(Page),
    /// The page is of a kind that is not mapped into user mode that way.
    WrongKind(Page, PageKind),
    /// The policy does not let compound pages into user mode.
    CompoundRefused(Page),
    /// The head of no folio.
    NotAHead(Page),
    /// The folio has not that many pages: first and number asked for.
    OutOfFolio(Page, u64, u64),
    /// Pages of a folded folio have no map counts of their own.
    Folded(Page),
    /// No single entry maps a folio of that kind and order.
    NoEntryOfSize(Page, Order),
    /// What is mapped there has no struct page to take a reference on.
    Special(VirtAddr),
    /// The policy has no pin, or no reference, for that kind of page.
    GupRefused(Page, PageKind, Policy),
    /// The page has no pin.
    NotPinned(Page),
    /// The page was in a bad state when its last reference went. It is never handed out
    /// again; the rest of the request was carried out.
    Bad(BadPage),
}

impl VmError {
    /// The name Linux has for it.
    #[must_use]
    pub const fn errno(&self) -> &'static str {
        match self {
            Self::NoMemory => "ENOMEM",
            Self::Occupied(_) => "EBUSY",
            Self::NotMapped(_) | Self::Special(_) | Self::GupRefused(..) => "EFAULT",
            _ => "EINVAL",
        }
    }
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.errno())?;
        match self {
            Self::NoMemory => write!(f, "no frame is left for a page or page table"),
            Self::OrderTooLarge(order) => {
                write!(
                    f,
                    "the memmap is not aligned for compound pages of {order:?}"
                )
            }
            Self::NotUser(at) => {
                write!(f, "{at:?} is not in the lower half, or the range leaves it")
            }
            Self::Misaligned(at, bytes) => write!(f, "{at:?} is not a multiple of {bytes:#x}"),
            Self::Occupied(at) => write!(f, "something is mapped at {at:?}; unmap it first"),
            Self::NotMapped(at) => write!(f, "nothing is mapped at {at:?}"),
            Self::CutsEntry(at) => {
                write!(f, "the range cuts the entry at {at:?}; unmap all of it")
            }
            Self::NoReference(page) => {
                write!(f, "nobody has a reference on {page:?}; take one first")
            }
            Self::TooManyReferences(page) => write!(f, "{page:?} has too many references"),
            Self::WrongKind(page, kind) => {
                write!(f, "{page:?} is a {kind}, which is not mapped that way")
            }
            Self::CompoundRefused(page) => write!(
                f,
                "{page:?} is of a compound page; split it, or allocate single pages"
            ),
            Self::NotAHead(page) => write!(f, "{page:?} is not the head of a folio"),
            Self::OutOfFolio(head, first, nr) => {
                write!(
                    f,
                    "the folio at {head:?} has no pages {first}, {nr} of them"
                )
            }
            Self::Folded(head) => write!(
                f,
                "the folio at {head:?} is folded; map it by one entry, or unfold it"
            ),
            Self::NoEntryOfSize(head, order) => {
                write!(
                    f,
                    "no single entry maps {head:?} of {order:?}; map its pages"
                )
            }
            Self::Special(at) => write!(f, "{at:?} maps a frame number, not a page"),
            Self::GupRefused(page, kind, policy) => {
                write!(
                    f,
                    "{page:?} is a {kind}, which {policy} does not let be pinned"
                )
            }
            Self::NotPinned(page) => write!(f, "{page:?} has no pin to drop"),
            Self::Bad(bad) => bad.fmt(f),
        }
    }
}

impl From<BadPage> for VmError {
    fn from(bad: BadPage) -> Self {
        Self::Bad(bad)
    }
}
