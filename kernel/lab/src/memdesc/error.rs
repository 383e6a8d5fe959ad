//! What can go wrong, and what must not.

use super::word::Memdesc;
use mm::addr::{Order, Pfn, VirtAddr};

/// Why something was not done. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemdescError {
    /// No frame for memmap, a table or a descriptor.
    #[error("out of memory")]
    NoMemory,
    /// No free block of that order in the map.
    #[error("no free block of order {0} in the map")]
    NoSpace(Order),
    /// A map needs at least one frame of struct pages.
    #[error("a map of order {order} is too small: {least} at least")]
    TooSmall {
        /// The order asked for.
        order: Order,
        /// The smallest one.
        least: Order,
    },
    /// The base is not a multiple of 512 GiB, or something is mapped there.
    #[error("{0:?} is no empty window: a multiple of 512 GiB with nothing mapped")]
    BadWindow(VirtAddr),
    /// The memmap of a block of this order is less than two frames.
    #[error("order {order} cannot be folded: {least} at least")]
    OrderTooSmall {
        /// The block's order.
        order: Order,
        /// The smallest one that can be folded.
        least: Order,
    },
    /// Not a frame of the map.
    #[error("{0:?} is outside the map")]
    Outside(Pfn),
    /// The page is in use, or free, or reserved, and should not be.
    #[error("the page is {0:?}")]
    WrongState(Memdesc),
    /// The map cannot go: descriptors are in use.
    #[error("{0} descriptors are in use")]
    InUse(u64),
    /// A failure was injected while table entries were stored; they were put back.
    #[error("failure injected")]
    Injected,
}

/// A bug of the caller: asking a page for what its type does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemdescBug {
    /// `compound_head` of a page of a folio, slab or page table. There is nothing in a
    /// head page; `page_folio` and its like find the descriptor.
    #[error(
        "BUG: compound_head() of the page at {page:?}, which is {word:?}: only bare pages have a head; use page_folio()"
    )]
    CompoundHead {
        /// Where the struct page is.
        page: VirtAddr,
        /// Its word.
        word: Memdesc,
    },
    /// A reference put or taken on a page that has no count.
    #[error("BUG: reference count of the page at {page:?}, which is {word:?} and has none")]
    NoCount {
        /// Where the struct page is.
        page: VirtAddr,
        /// Its word.
        word: Memdesc,
    },
}
