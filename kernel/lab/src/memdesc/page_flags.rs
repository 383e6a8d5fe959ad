//! The word of flags that a struct page of 16 bytes or more has.

use mm::addr::NodeId;

/// `page->flags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PageFlags(u64);

impl PageFlags {
    /// Not RAM the allocator may hand out.
    #[doc(alias = "PG_reserved")]
    pub const RESERVED: Self = Self(1 << 0);
    /// Hardware reported the frame broken.
    #[doc(alias = "PG_hwpoison")]
    pub const HWPOISON: Self = Self(1 << 1);
    /// A page of an anonymous folio that no other process maps.
    #[doc(alias = "PG_anon_exclusive")]
    pub const ANON_EXCLUSIVE: Self = Self(1 << 2);

    const NODE_SHIFT: u32 = 58;

    /// No flag, zone 0 of `node`: each node has one zone.
    #[must_use]
    pub const fn of_node(node: NodeId) -> Self {
        Self((node.get() as u64) << Self::NODE_SHIFT)
    }

    /// From the eight bytes.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The eight bytes.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether every bit of `bits` is set.
    #[must_use]
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// With `bits` set or cleared.
    #[must_use]
    pub const fn with(self, bits: Self, on: bool) -> Self {
        Self(if on {
            self.0 | bits.0
        } else {
            self.0 & !bits.0
        })
    }

    /// The node.
    #[must_use]
    #[doc(alias = "page_to_nid")]
    pub const fn node(self) -> NodeId {
        NodeId::of((self.0 >> Self::NODE_SHIFT) as u8)
    }
}
