//! Why an operation on a map was not done.

use core::fmt;

use mm::addr::{Order, Pfn, PfnRange};
use mm::page::encoding::Refusal;

/// Why an operation on a [`Map`](super::Map) was not done. Nothing was changed, except
/// that page tables, shared tails and descriptor frames may have been added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// This layout cannot do it.
    Refused(Refusal),
    /// No frame for struct pages, a table, or a descriptor.
    NoMemory,
    /// The range is empty, or does not start and end at multiples of what the model needs.
    BadRange(PfnRange),
    /// The struct pages would lie beyond the window, or the section table is too short.
    TooFar(PfnRange),
    /// Something is mapped in the window already.
    Occupied,
    /// The offset is no multiple of the struct page's size, or of a page where memory is mapped.
    BadSkew(u64),
    /// The block is not in the map, or not naturally aligned.
    BadBlock(Pfn, Order),
    /// Tails of a folio this large would miss their head, or HVO frees nothing of one this small.
    OrderOutOfBounds(Order),
    /// The page belongs to a folio, or to none, and should not.
    WrongState(Pfn),
    /// The page has a bit of its own, so its struct page cannot be shared.
    PerPageBits(Pfn),
    /// The struct page is shared with other pages, so it can have no bit of its own.
    SharedPage(Pfn),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::NoMemory => f.write_str("no frame left"),
            Self::BadRange(range) => {
                write!(
                    f,
                    "{range:?} must start and end at multiples of 512 frames, and be no fewer"
                )
            }
            Self::TooFar(range) => write!(f, "{range:?} ends beyond what the model can describe"),
            Self::Occupied => f.write_str("another map is in the window"),
            Self::BadSkew(bytes) => {
                write!(
                    f,
                    "an offset of {bytes} bytes is no multiple of the struct page or of 4096"
                )
            }
            Self::BadBlock(pfn, order) => {
                write!(
                    f,
                    "no block of order {order} at {pfn:?}: outside of the map, or not aligned"
                )
            }
            Self::OrderOutOfBounds(order) => {
                write!(
                    f,
                    "order {order} is out of bounds for this layout and operation"
                )
            }
            Self::WrongState(pfn) => {
                write!(
                    f,
                    "the folio of {pfn:?}, if any, is not in the state that this needs"
                )
            }
            Self::PerPageBits(pfn) => {
                write!(
                    f,
                    "{pfn:?} has a bit of its own: its struct page cannot be shared"
                )
            }
            Self::SharedPage(pfn) => {
                write!(
                    f,
                    "the struct page of {pfn:?} is shared: its folio must be unfolded first"
                )
            }
        }
    }
}

impl From<Refusal> for LayoutError {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}
