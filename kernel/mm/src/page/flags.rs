//! `page->flags` and `page->page_type`.

use crate::addr::NodeId;

/// `page->flags`: single bits below, the node in the top six bits, as Linux
/// packs it. Compare with [`Flags::contains`]; the node does not disturb it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Flags(u64);

impl Flags {
    /// Not RAM the allocator may hand out: firmware, kernel image, or the memmap
    /// built at boot.
    #[doc(alias = "PG_reserved")]
    pub const RESERVED: Self = Self(1 << 0);
    /// First page of a compound page.
    #[doc(alias = "PG_head")]
    pub const HEAD: Self = Self(1 << 1);
    /// The memmap of this block is folded. On the head only.
    #[doc(alias = "hugetlb_vmemmap_optimized")]
    pub const VMEMMAP_OPTIMIZED: Self = Self(1 << 2);
    /// Hardware reported the frame broken.
    #[doc(alias = "PG_hwpoison")]
    pub const HWPOISON: Self = Self(1 << 3);
    /// A frame of this folio is broken. On the head only; which one is another matter.
    #[doc(alias = "PG_has_hwpoisoned")]
    pub const HAS_HWPOISONED: Self = Self(1 << 4);
    /// The allocation was made as a folio, and so can be mapped. On the head only;
    /// hugetlb folios are known by their type instead.
    #[doc(alias = "PG_large_rmappable")]
    pub const RMAPPABLE: Self = Self(1 << 5);

    const NODE_SHIFT: u32 = 58;

    /// No bit, node 0.
    #[must_use]
    #[inline]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// All 64 bits.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// From all 64 bits.
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Whether every bit of `bits` is set.
    #[must_use]
    #[inline]
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// With `bits` set too.
    #[must_use]
    #[inline]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }

    /// With `bits` cleared.
    #[must_use]
    #[inline]
    pub const fn without(self, bits: Self) -> Self {
        Self(self.0 & !bits.0)
    }

    /// The node field.
    #[must_use]
    #[doc(alias = "NODES_SHIFT")]
    #[inline]
    pub const fn node(self) -> NodeId {
        NodeId::of((self.0 >> Self::NODE_SHIFT) as u8)
    }

    /// With the node field replaced.
    #[must_use]
    #[inline]
    pub const fn with_node(self, node: NodeId) -> Self {
        let below = self.0 & ((1 << Self::NODE_SHIFT) - 1);
        Self(below | ((node.get() as u64) << Self::NODE_SHIFT))
    }

    /// Only the single bits, without the node.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0 & ((1 << Self::NODE_SHIFT) - 1)
    }
}

/// What a page is used as, in the top byte of `_mapcount`'s four, as Linux has
/// it since 6.11. [`PageType::NONE`] is a map count of -1: mapped nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PageType(u32);

impl PageType {
    /// No type; `_mapcount` is -1.
    pub const NONE: Self = Self(u32::MAX);
    /// First page of a free block of the buddy allocator; its order is in `private`.
    #[doc(alias = "PGTY_buddy")]
    pub const BUDDY: Self = Self(0xf0 << 24);
    /// A page table.
    #[doc(alias = "PGTY_table")]
    pub const TABLE: Self = Self(0xf2 << 24);
    /// First page of a hugetlb folio.
    #[doc(alias = "PGTY_hugetlb")]
    pub const HUGETLB: Self = Self(0xf4 << 24);
    /// First page of a block of a slab allocator.
    #[doc(alias = "PGTY_slab")]
    pub const SLAB: Self = Self(0xf5 << 24);
    /// Every page of an allocation that was not made as a folio, under one of the
    /// policies of `lab::rmap`. Proposed on the list, not in Linux.
    #[doc(alias = "NotRmappable")]
    pub const NOT_RMAPPABLE: Self = Self(0xfa << 24);
    /// A frame that holds struct pages. Linux has no such type; here it lets the
    /// audit name the owner of every frame (INV-5).
    pub const MEMMAP: Self = Self(0xf8 << 24);
    /// A shared tail page.
    pub const TAILS: Self = Self(0xf9 << 24);

    /// The four bytes.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From the four bytes.
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}
