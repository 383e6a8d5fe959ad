//! How a mapping is made.

use crate::frames::Placement;

/// What a write to a folio of which there are more users than one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// All see it.
    #[doc(alias = "MAP_SHARED")]
    Shared,
    /// The writer gets a copy.
    #[doc(alias = "MAP_PRIVATE")]
    Private,
}

/// Whether a mapping is promised its folios when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// It is, so touching it does not fail.
    Reserve,
    /// It is not, and takes what nobody was promised.
    #[doc(alias = "MAP_NORESERVE")]
    NoReserve,
}

/// How a mapping is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapFlags {
    /// Shared or private.
    pub sharing: Sharing,
    /// Promised or not.
    pub promise: Promise,
    /// Where folios must come from; `None` is near the CPU that touches.
    #[doc(alias = "mempolicy")]
    pub bound: Option<Placement>,
}

impl MapFlags {
    /// Shared, promised, near.
    pub const SHARED: Self = Self {
        sharing: Sharing::Shared,
        promise: Promise::Reserve,
        bound: None,
    };
    /// Private, promised, near.
    pub const PRIVATE: Self = Self {
        sharing: Sharing::Private,
        ..Self::SHARED
    };

    /// The same without a promise.
    #[must_use]
    pub const fn no_reserve(self) -> Self {
        Self {
            promise: Promise::NoReserve,
            ..self
        }
    }

    /// The same with folios from `placement`.
    #[must_use]
    pub const fn bound_to(self, placement: Placement) -> Self {
        Self {
            bound: Some(placement),
            ..self
        }
    }
}
