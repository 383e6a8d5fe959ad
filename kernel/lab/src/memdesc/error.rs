//! What can go wrong, and what must not.

use core::fmt;

use super::word::Memdesc;
use mm::addr::{Order, Pfn, VirtAddr};

/// Why something was not done. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemdescError {
    /// No frame for memmap, a table or a descriptor.
    NoMemory,
    /// No free block of that order in the map.
    NoSpace(Order),
    /// A map needs at least one frame of struct pages.
    TooSmall {
        /// The order asked for.
        order: Order,
        /// The smallest one.
        least: Order,
    },
    /// The base is not a multiple of 512 GiB, or something is mapped there.
    BadWindow(VirtAddr),
    /// The memmap of a block of this order is less than two frames.
    OrderTooSmall {
        /// The block's order.
        order: Order,
        /// The smallest one that can be folded.
        least: Order,
    },
    /// Not a frame of the map.
    Outside(Pfn),
    /// The page is in use, or free, or reserved, and should not be.
    WrongState(Memdesc),
    /// The map cannot go: descriptors are in use.
    InUse(u64),
    /// A failure was injected while table entries were stored; they were put back.
    Injected,
}

impl fmt::Display for MemdescError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => write!(f, "out of memory"),
            Self::NoSpace(order) => write!(f, "no free block of order {order} in the map"),
            Self::TooSmall { order, least } => {
                write!(f, "a map of order {order} is too small: {least} at least")
            }
            Self::BadWindow(base) => {
                write!(
                    f,
                    "{base:?} is no empty window: a multiple of 512 GiB with nothing mapped"
                )
            }
            Self::OrderTooSmall { order, least } => {
                write!(f, "order {order} cannot be folded: {least} at least")
            }
            Self::Outside(pfn) => write!(f, "{pfn:?} is outside the map"),
            Self::WrongState(word) => write!(f, "the page is {word:?}"),
            Self::InUse(used) => write!(f, "{used} descriptors are in use"),
            Self::Injected => write!(f, "failure injected"),
        }
    }
}

/// A bug of the caller: asking a page for what its type does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemdescBug {
    /// `compound_head` of a page of a folio, slab or page table. There is nothing in a
    /// head page; `page_folio` and its like find the descriptor.
    CompoundHead {
        /// Where the struct page is.
        page: VirtAddr,
        /// Its word.
        word: Memdesc,
    },
    /// A reference put or taken on a page that has no count.
    NoCount {
        /// Where the struct page is.
        page: VirtAddr,
        /// Its word.
        word: Memdesc,
    },
}

impl fmt::Display for MemdescBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompoundHead { page, word } => write!(
                f,
                "BUG: compound_head() of the page at {page:?}, which is {word:?}: only bare pages have a head; use page_folio()"
            ),
            Self::NoCount { page, word } => write!(
                f,
                "BUG: reference count of the page at {page:?}, which is {word:?} and has none"
            ),
        }
    }
}
