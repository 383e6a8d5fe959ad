//! What is in a struct page of each size, besides the word of the encoding.

use mm::addr::{NodeId, Pfn};
use mm::page::encoding::{MemoryModel, PageShape, SECTION};
use mm::page::{Flags, PageType};

/// The flags that stay with each page when a folio has flags of its own: where the page
/// is, and what is true of this page alone.
///
/// ```text
/// bit 63    58 57  56 55       36        4  3  0
///     +-------+------+-----------+------+--+--+--+
///     | node  | zone | section   |      |AE|HP|RS|
///     +-------+------+-----------+------+--+--+--+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PageBits(u64);

impl PageBits {
    /// `PG_reserved`.
    pub const RESERVED: Self = Self(Flags::RESERVED.raw());
    /// `PG_hwpoison`.
    pub const HWPOISON: Self = Self(Flags::HWPOISON.raw());
    /// `PG_anon_exclusive`.
    pub const ANON_EXCLUSIVE: Self = Self(1 << 4);

    const SECTION_SHIFT: u32 = 36;
    const SECTION_BITS: u64 = (1 << 20) - 1;
    const ZONE_SHIFT: u32 = 56;

    /// Of the page `pfn` on `node`: `ZONE_NORMAL` (2), and the number of its section if
    /// that is the way back to the pfn.
    pub(super) fn of(node: NodeId, model: MemoryModel, pfn: Pfn) -> Self {
        const ZONE_NORMAL: u64 = 2;
        let section = match model {
            MemoryModel::Sparsemem => pfn.as_u64() >> SECTION.get(),
            MemoryModel::SparsememVmemmap | MemoryModel::Flatmem => 0,
        };
        let node = Flags::empty().with_node(node).raw();
        Self(node | ZONE_NORMAL << Self::ZONE_SHIFT | section << Self::SECTION_SHIFT)
    }

    /// From all 64 bits.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// All 64 bits.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The number of the section, where it is kept.
    #[must_use]
    #[doc(alias = "page_to_section")]
    pub const fn section(self) -> u64 {
        self.0 >> Self::SECTION_SHIFT & Self::SECTION_BITS
    }

    /// The zone.
    #[must_use]
    #[doc(alias = "page_zonenum")]
    pub const fn zone(self) -> u64 {
        self.0 >> Self::ZONE_SHIFT & 3
    }

    /// The node.
    #[must_use]
    #[doc(alias = "page_to_nid")]
    pub const fn node(self) -> NodeId {
        Flags::from_raw(self.0).node()
    }
}

/// The most words of a struct page.
pub(super) const WORDS: usize = 8;

/// Words of a struct page of shape `S`.
pub(super) const fn words<S: PageShape>() -> u64 {
    S::SIZE / 8
}

/// Where map count and reference count are, if there are any: in the seventh word as in
/// [`page`](mm::page), or in the last of a smaller struct page.
pub(super) const fn counts<S: PageShape>() -> Option<u64> {
    match (S::FLAGS, S::SIZE) {
        (None, _) => None,
        (Some(_), 56..) => Some(48),
        (Some(_), size) => Some(size - 8),
    }
}

/// Map count -1, reference count `count`.
pub(super) const fn counts_word(count: u32) -> u64 {
    (count as u64) << 32 | PageType::NONE.raw() as u64
}

/// The struct page with `bits` and the encoding's `word`, and no user: as many words as
/// the shape has.
pub(super) fn record<S: PageShape>(bits: PageBits, word: u64) -> [u64; WORDS] {
    core::array::from_fn(|n| {
        let at = n as u64 * 8;
        if at == S::INFO {
            word
        } else if Some(at) == S::FLAGS {
            bits.raw()
        } else if Some(at) == counts::<S>() {
            counts_word(0)
        } else {
            0
        }
    })
}

/// `record` as often as it fits in 64 bytes, if that is a whole number of times.
pub(super) fn pattern<S: PageShape>(record: &[u64; WORDS]) -> Option<[u64; WORDS]> {
    let words = usize::try_from(words::<S>()).ok()?;
    (WORDS.is_multiple_of(words)).then(|| core::array::from_fn(|n| record[n % words]))
}
