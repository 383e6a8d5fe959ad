//! Why an operation on a map was not done.

use mm::addr::{Order, Pfn, PfnRange};
use mm::page::encoding::Refusal;

/// Why an operation on a [`Map`](super::Map) was not done. Nothing was changed, except
/// that page tables, shared tails and descriptor frames may have been added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// This layout cannot do it.
    #[error("{0}")]
    Refused(Refusal),
    /// No frame for struct pages, a table, or a descriptor.
    #[error("no frame left")]
    NoMemory,
    /// The range is empty, or does not start and end at multiples of what the model needs.
    #[error("{0:?} must start and end at multiples of 512 frames, and be no fewer")]
    BadRange(PfnRange),
    /// The struct pages would lie beyond the window, or the section table is too short.
    #[error("{0:?} ends beyond what the model can describe")]
    TooFar(PfnRange),
    /// Something is mapped in the window already.
    #[error("another map is in the window")]
    Occupied,
    /// The offset is no multiple of the struct page's size, or of a page where memory is mapped.
    #[error("an offset of {0} bytes is no multiple of the struct page or of 4096")]
    BadSkew(u64),
    /// The block is not in the map, or not naturally aligned.
    #[error("no block of order {1} at {0:?}: outside of the map, or not aligned")]
    BadBlock(Pfn, Order),
    /// Tails of a folio this large would miss their head, or HVO frees nothing of one this small.
    #[error("order {0} is out of bounds for this layout and operation")]
    OrderOutOfBounds(Order),
    /// The page belongs to a folio, or to none, and should not.
    #[error("the folio of {0:?}, if any, is not in the state that this needs")]
    WrongState(Pfn),
    /// The page has a bit of its own, so its struct page cannot be shared.
    #[error("{0:?} has a bit of its own: its struct page cannot be shared")]
    PerPageBits(Pfn),
    /// The struct page is shared with other pages, so it can have no bit of its own.
    #[error("the struct page of {0:?} is shared: its folio must be unfolded first")]
    SharedPage(Pfn),
}

impl From<Refusal> for LayoutError {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}
