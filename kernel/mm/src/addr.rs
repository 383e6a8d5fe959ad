//! Addresses, frame numbers, orders and nodes as types of their own.
//!
//! A bare integer never crosses a function boundary in this crate: a frame
//! number cannot be taken for an address, nor a physical address for a virtual
//! one. No type converts from an integer by `From`; every constructor says what
//! it expects.

use core::fmt;
use core::ops::Range;

/// log2 of the size of a base page.
pub const PAGE_SHIFT: u32 = 12;
/// Size of a base page in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Entries in one page table of any level.
#[doc(alias = "PTRS_PER_PTE")]
pub const ENTRIES: u64 = 512;
/// Size of the block behind a 2 MiB leaf, in bytes.
pub const PMD_SIZE: u64 = PAGE_SIZE * ENTRIES;
/// Size of the block behind a 1 GiB leaf, in bytes.
pub const PUD_SIZE: u64 = PMD_SIZE * ENTRIES;
/// Bits of a physical address that the architecture allows (x86_64: 52).
pub const MAX_PHYSMEM_BITS: u32 = 52;
/// Most NUMA nodes: 6 bits of `page->flags` hold the node.
#[doc(alias = "MAX_NUMNODES")]
pub const MAX_NODES: usize = 64;

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address `bytes`, which must fit in 52 bits.
    ///
    /// # Panics
    /// If it does not.
    #[inline]
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        assert!(
            bytes >> MAX_PHYSMEM_BITS == 0,
            "physical address beyond 52 bits"
        );
        Self(bytes)
    }

    /// The address in bytes.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The frame that this address lies in.
    #[inline]
    #[must_use]
    #[doc(alias = "PHYS_PFN")]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }

    /// `bytes` further on.
    #[inline]
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl fmt::Debug for PhysAddr {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phys {:#x}", self.0)
    }
}

/// A page frame number: a physical address in units of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
#[doc(alias = "pfn")]
pub struct Pfn(u64);

impl Pfn {
    /// Frame number `n`, which must fit in 40 bits.
    ///
    /// # Panics
    /// If it does not.
    #[inline]
    #[must_use]
    pub const fn new(n: u64) -> Self {
        assert!(
            n >> (MAX_PHYSMEM_BITS - PAGE_SHIFT) == 0,
            "pfn beyond 40 bits"
        );
        Self(n)
    }

    /// Frame number `n`, or `None` if it does not fit in 40 bits: for numbers that somebody
    /// typed.
    #[inline]
    #[must_use]
    pub const fn try_new(n: u64) -> Option<Self> {
        if n >> (MAX_PHYSMEM_BITS - PAGE_SHIFT) == 0 {
            Some(Self(n))
        } else {
            None
        }
    }

    /// The number itself.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Address of the frame's first byte.
    #[inline]
    #[must_use]
    #[doc(alias = "PFN_PHYS")]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }

    /// The frame `pages` further on.
    #[inline]
    #[must_use]
    pub const fn offset(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }

    /// Whether a block of `order` may start here.
    #[inline]
    #[must_use]
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.pages() - 1) == 0
    }

    /// The first frame of the block of `order` that this frame lies in.
    #[inline]
    #[must_use]
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !(order.pages() - 1))
    }

    /// The other half of the block of `order + 1` that the block of `order`
    /// starting here belongs to.
    #[inline]
    #[must_use]
    #[doc(alias = "__find_buddy_pfn")]
    pub const fn buddy(self, order: Order) -> Self {
        Self(self.0 ^ order.pages())
    }

    /// The block of `order` that starts here, as a range.
    #[inline]
    #[must_use]
    pub const fn block(self, order: Order) -> PfnRange {
        PfnRange {
            start: self,
            end: self.offset(order.pages()),
        }
    }
}

impl fmt::Debug for Pfn {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

/// A half-open range of frames, `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PfnRange {
    /// First frame.
    pub start: Pfn,
    /// First frame behind it.
    pub end: Pfn,
}

impl PfnRange {
    /// The empty range at frame 0.
    pub const EMPTY: Self = Self {
        start: Pfn(0),
        end: Pfn(0),
    };

    /// From `start` to before `end`; empty if `end` is not behind `start`.
    #[inline]
    #[must_use]
    pub const fn new(start: Pfn, end: Pfn) -> Self {
        Self { start, end }
    }

    /// Number of frames.
    #[inline]
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether there is no frame in it.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.pages() == 0
    }

    /// Whether `pfn` lies in it.
    #[inline]
    #[must_use]
    pub const fn contains(self, pfn: Pfn) -> bool {
        self.start.0 <= pfn.0 && pfn.0 < self.end.0
    }

    /// What both ranges have; empty if nothing.
    #[inline]
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        let start = if self.start.0 > other.start.0 {
            self.start
        } else {
            other.start
        };
        let end = if self.end.0 < other.end.0 {
            self.end
        } else {
            other.end
        };
        Self { start, end }
    }

    /// The frames one by one.
    #[inline]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Pfn> + Clone {
        let Range { start, end } = self.start.0..self.end.0;
        (start..end).map(Pfn)
    }

    /// The range cut into naturally aligned blocks, each as large as alignment,
    /// what is left and `max` allow: how a range is handed to a buddy allocator.
    pub fn blocks(self, max: Order) -> impl Iterator<Item = (Pfn, Order)> {
        let mut at = self.start;
        core::iter::from_fn(move || {
            let left = self.end.0.saturating_sub(at.0);
            if left == 0 {
                return None;
            }
            let by_size = left.ilog2();
            let by_alignment = if at.0 == 0 {
                by_size
            } else {
                at.0.trailing_zeros()
            };
            let order = Order::clamped(by_size.min(by_alignment)).min(max);
            let block = (at, order);
            at = at.offset(order.pages());
            Some(block)
        })
    }
}

impl fmt::Debug for PfnRange {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}..{:#x}", self.start.0, self.end.0)
    }
}

/// A canonical 48-bit virtual address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address `bytes`, which must be canonical.
    ///
    /// # Panics
    /// If bits 63..47 are not all equal.
    #[inline]
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        let top = bytes >> 47;
        assert!(
            top == 0 || top == 0x1_ffff,
            "virtual address is not canonical"
        );
        Self(bytes)
    }

    /// Address 0, which no struct page and no descriptor has.
    pub const NULL: Self = Self(0);

    /// Returns the address `bytes`, which must be canonical, as every address is that was stored as
    /// a `VirtAddr`: for paths on which [`new`](Self::new)'s check would be measured too. Only
    /// checked with debug assertions.
    #[inline]
    #[must_use]
    pub const fn trusted(bytes: u64) -> Self {
        debug_assert!(bytes >> 47 == 0 || bytes >> 47 == 0x1_ffff);
        Self(bytes)
    }

    /// The address in bytes.
    #[inline]
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// `bytes` further on; wraps at the top of the address space, as an
    /// exclusive end does.
    #[inline]
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Whether the address is a multiple of `bytes`, a power of two.
    #[inline]
    #[must_use]
    pub const fn is_aligned(self, bytes: u64) -> bool {
        self.0 & (bytes - 1) == 0
    }

    /// Rounded down to a multiple of `bytes`, a power of two.
    #[inline]
    #[must_use]
    pub const fn align_down(self, bytes: u64) -> Self {
        Self(self.0 & !(bytes - 1))
    }

    /// With the bits that are clear in `mask` cleared. Bits 63..47 of `mask` are
    /// set, so the address stays canonical without a check.
    #[inline]
    #[must_use]
    pub(crate) const fn masked(self, mask: u64) -> Self {
        debug_assert!(mask >> 47 == 0x1_ffff, "the word of a tail is no mask");
        Self(self.0 & mask)
    }

    /// Rounded up to a multiple of `bytes`, a power of two.
    #[inline]
    #[must_use]
    pub const fn align_up(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes - 1) & !(bytes - 1))
    }

    /// The range of `bytes` that starts here.
    #[inline]
    #[must_use]
    pub const fn range(self, bytes: u64) -> VirtRange {
        VirtRange {
            start: self,
            end: self.offset(bytes),
        }
    }
}

impl fmt::Debug for VirtAddr {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virt {:#018x}", self.0)
    }
}

/// A half-open range of virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtRange {
    /// First byte.
    pub start: VirtAddr,
    /// First byte behind it.
    pub end: VirtAddr,
}

impl VirtRange {
    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.end.0.wrapping_sub(self.start.0)
    }

    /// The smallest range that covers both.
    #[inline]
    #[must_use]
    pub const fn merge(self, other: Self) -> Self {
        let start = if self.start.0 < other.start.0 {
            self.start
        } else {
            other.start
        };
        let end = if self.end.0 > other.end.0 {
            self.end
        } else {
            other.end
        };
        Self { start, end }
    }

    /// Whether `at` lies in it.
    #[inline]
    #[must_use]
    pub const fn contains(self, at: VirtAddr) -> bool {
        self.start.0 <= at.0 && at.0 < self.end.0
    }
}

impl fmt::Debug for VirtRange {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virt {:#018x}..{:#018x}", self.start.0, self.end.0)
    }
}

/// log2 of a number of base pages, 0 to [`Order::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
#[doc(alias = "order")]
pub struct Order(u8);

impl Order {
    /// One base page, 4 KiB.
    pub const PAGE: Self = Self(0);
    /// 512 base pages, 2 MiB.
    #[doc(alias = "HPAGE_PMD_ORDER")]
    pub const PMD: Self = Self(9);
    /// 262144 base pages, 1 GiB.
    pub const PUD: Self = Self(18);
    /// The largest folio, 16 GiB.
    #[doc(alias = "MAX_FOLIO_ORDER")]
    pub const MAX: Self = Self(22);
    /// Number of different orders.
    #[doc(alias = "NR_PAGE_ORDERS")]
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// Order `n`, or `None` above [`Order::MAX`].
    #[inline]
    #[must_use]
    pub const fn new(n: u8) -> Option<Self> {
        if n <= Self::MAX.0 {
            Some(Self(n))
        } else {
            None
        }
    }

    /// Order `n` known to be in bounds.
    ///
    /// # Panics
    /// If `n` is above [`Order::MAX`].
    #[inline]
    #[must_use]
    pub const fn of(n: u8) -> Self {
        match Self::new(n) {
            Some(order) => order,
            None => panic!("order above 22"),
        }
    }

    /// Order `n`, or [`Order::MAX`] if `n` is above it.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared just before")]
    pub const fn clamped(n: u32) -> Self {
        if n < Self::MAX.0 as u32 {
            Self(n as u8)
        } else {
            Self::MAX
        }
    }

    /// The order as a number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The order as an index into a table of [`Order::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Base pages in a block of this order.
    #[inline]
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a block of this order.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        PAGE_SIZE << self.0
    }

    /// One lower; `None` at 0.
    #[inline]
    #[must_use]
    pub const fn down(self) -> Option<Self> {
        if self.0 == 0 {
            None
        } else {
            Some(Self(self.0 - 1))
        }
    }

    /// One higher; `None` at [`Order::MAX`].
    #[inline]
    #[must_use]
    pub const fn up(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// `first` to `last`, both included.
    #[inline]
    pub fn range_inclusive(first: Self, last: Self) -> impl DoubleEndedIterator<Item = Self> {
        (first.0..=last.0).map(Self)
    }
}

impl fmt::Debug for Order {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}", self.0)
    }
}

impl fmt::Display for Order {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A NUMA node, 0 to [`MAX_NODES`] - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
#[doc(alias = "nid")]
pub struct NodeId(u8);

impl NodeId {
    /// Node 0, which every machine has.
    pub const ZERO: Self = Self(0);

    /// Node `n`, or `None` at or above [`MAX_NODES`].
    #[inline]
    #[must_use]
    pub const fn new(n: u8) -> Option<Self> {
        if (n as usize) < MAX_NODES {
            Some(Self(n))
        } else {
            None
        }
    }

    /// Node `n` known to be in bounds.
    ///
    /// # Panics
    /// If `n` is [`MAX_NODES`] or more.
    #[inline]
    #[must_use]
    pub const fn of(n: u8) -> Self {
        match Self::new(n) {
            Some(node) => node,
            None => panic!("node above 63"),
        }
    }

    /// The node as a number.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The node as an index into a table of [`MAX_NODES`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for NodeId {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
