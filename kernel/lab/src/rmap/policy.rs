//! What becomes of allocations that are not folios: the proposals, as a switch.

use core::fmt;

use super::kind::PageKind;

/// What GUP does with a page of no folio under [`Policy::NotAFolio`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gup {
    /// It takes a reference and counts no pin.
    PlainReference,
    /// It fails.
    Fail,
}

/// How allocations that were not made as folios are told apart, and treated, when user
/// mode maps them. One policy holds from the allocation of a page to its free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// A compound page is a folio, with every field of one.
    Today,
    /// A plain compound page has no folio fields initialised, and nothing else is
    /// changed: the series as first posted.
    Rfc,
    /// Every page of an allocation has the type NotRmappable until it is made a folio.
    NotRmappable,
    /// A compound page is a folio that has `_pincount` but no rmap.
    SubClass,
    /// What was not made as a folio is none, whatever its order.
    NotAFolio(Gup),
    /// `vm_insert_pages` refuses compound pages: drivers split what they allocate.
    OrderZeroOnly,
}

/// What the rmap does with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Count {
    Yes,
    /// Not a field is touched.
    No,
}

/// How a pin is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pin {
    /// A reference and one in `_pincount`.
    Pincount,
    /// Many references at once.
    Bias,
    /// A reference like any other.
    Plain,
    Refuse,
}

impl Policy {
    /// All, in the order of the tables in [`rmap`](super).
    pub const ALL: [Self; 7] = [
        Self::Today,
        Self::Rfc,
        Self::NotRmappable,
        Self::SubClass,
        Self::NotAFolio(Gup::PlainReference),
        Self::NotAFolio(Gup::Fail),
        Self::OrderZeroOnly,
    ];

    /// Whether a compound page that is no folio has rmap fields.
    pub(super) const fn compound_has_rmap_fields(self) -> bool {
        matches!(self, Self::Today)
    }

    /// Whether a compound page that is no folio has `_pincount`.
    pub(super) const fn compound_has_pincount(self) -> bool {
        matches!(self, Self::Today | Self::SubClass)
    }

    /// Whether `page_folio` of a page of `kind` is its head, and not nothing.
    pub(super) const fn is_folio(self, kind: PageKind) -> bool {
        match kind {
            PageKind::Folio | PageKind::Hugetlb => true,
            PageKind::Compound | PageKind::Bare | PageKind::Slab => {
                !matches!(self, Self::NotAFolio(_))
            }
            PageKind::Unreferenced | PageKind::Reserved | PageKind::Memmap | PageKind::Table => {
                false
            }
        }
    }

    pub(super) const fn counts(self, kind: PageKind) -> Count {
        match (kind, self) {
            (PageKind::Folio | PageKind::Hugetlb, _) | (PageKind::Compound, Self::Rfc) => {
                Count::Yes
            }
            _ => Count::No,
        }
    }

    pub(super) const fn pin(self, kind: PageKind, large: bool) -> Pin {
        match (kind, self) {
            (PageKind::Folio | PageKind::Hugetlb, _)
            | (PageKind::Compound, Self::Rfc | Self::SubClass)
            | (PageKind::Bare, Self::NotRmappable) => {
                if large {
                    Pin::Pincount
                } else {
                    Pin::Bias
                }
            }
            (PageKind::Compound | PageKind::Bare, Self::NotAFolio(Gup::PlainReference)) => {
                Pin::Plain
            }
            _ => Pin::Refuse,
        }
    }

    /// Whether GUP may take a plain reference on a page of `kind`.
    pub(super) const fn may_get(self, kind: PageKind) -> bool {
        match kind {
            PageKind::Folio | PageKind::Hugetlb => true,
            PageKind::Compound | PageKind::Bare => !matches!(self, Self::NotAFolio(Gup::Fail)),
            _ => false,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Today => "Today",
            Self::Rfc => "Rfc",
            Self::NotRmappable => "NotRmappable",
            Self::SubClass => "SubClass",
            Self::NotAFolio(Gup::PlainReference) => "NotAFolio(PlainReference)",
            Self::NotAFolio(Gup::Fail) => "NotAFolio(Fail)",
            Self::OrderZeroOnly => "OrderZeroOnly",
        })
    }
}
