//! Where the struct page of a frame is.

use super::encoding::{Chosen, Encoding};
use super::geometry::STRUCT_PAGE_SIZE;
use super::struct_page::Page;
use crate::addr::{Order, Pfn, VirtAddr, VirtRange};

/// The vmemmap: where the struct page of frame 0 is, and with it every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "vmemmap_base")]
pub struct Memmap {
    base: VirtAddr,
}

impl Memmap {
    /// Where Linux has it with 4-level page tables and no KASLR.
    #[doc(alias = "__VMEMMAP_BASE_L4")]
    pub const DEFAULT_BASE: VirtAddr = VirtAddr::new(0xffff_ea00_0000_0000);

    /// Where other memory maps may be, behind the kernel's own. Nothing of `mm` is there.
    pub const OTHER_MAPS: VirtAddr = VirtAddr::new(0xffff_eb00_0000_0000);
    /// Bytes of address space set aside for it: 64 bytes for each frame of 64 TiB.
    pub const WINDOW: u64 = 1 << 40;

    /// The unit in which a vmemmap is populated: 128 MiB of RAM, whose struct
    /// pages fill one 2 MiB leaf.
    #[doc(alias = "SECTION_SIZE_BITS")]
    pub const SECTION: Order = Order::of(15);

    /// A vmemmap whose struct page 0 is at `base`, a multiple of 2 MiB: sections
    /// are mapped by leaves of that size.
    #[must_use]
    #[inline]
    pub const fn new(base: VirtAddr) -> Self {
        Self { base }
    }

    /// Address of the struct page of frame 0.
    #[inline]
    #[must_use]
    pub const fn base(self) -> VirtAddr {
        self.base
    }

    /// The struct page of `pfn`, which may or may not be populated.
    #[inline]
    #[must_use]
    #[doc(alias = "pfn_to_page")]
    pub const fn page(self, pfn: Pfn) -> Page {
        Page::at(self.base.offset(pfn.as_u64() * STRUCT_PAGE_SIZE))
    }

    /// The frame of `page`.
    #[inline]
    #[must_use]
    #[doc(alias = "page_to_pfn")]
    pub const fn pfn(self, page: Page) -> Pfn {
        Pfn::new((page.address().as_u64() - self.base.as_u64()) / STRUCT_PAGE_SIZE)
    }

    /// The struct page at `address`, or `None` if the address is outside the
    /// window or not that of a struct page: an alias in the direct map is refused.
    #[must_use]
    #[doc(alias = "virt_to_page")]
    pub const fn page_at(self, address: VirtAddr) -> Option<Page> {
        let offset = address.as_u64().wrapping_sub(self.base.as_u64());
        if offset < Self::WINDOW && offset.is_multiple_of(STRUCT_PAGE_SIZE) {
            Some(Page::at(address))
        } else {
            None
        }
    }

    /// The struct pages of a block of `order` from `first` on, as addresses.
    #[must_use]
    #[inline]
    pub const fn range(self, first: Pfn, order: Order) -> VirtRange {
        self.page(first)
            .address()
            .range(order.pages() * STRUCT_PAGE_SIZE)
    }

    /// The largest order whose folios' tails find their head in this build. An encoding
    /// that computes the way needs the base to be aligned; others do not.
    #[must_use]
    #[inline]
    pub const fn max_folio_order(self) -> Option<Order> {
        if Chosen::COMPUTES {
            self.max_aligned_order()
        } else {
            Some(Order::MAX)
        }
    }

    /// The largest order whose blocks' heads the mask can find: the base must be
    /// a multiple of the memmap of such a block. `None` if not even order 0.
    #[must_use]
    #[doc(alias = "MAX_FOLIO_VMEMMAP_ALIGN")]
    pub const fn max_aligned_order(self) -> Option<Order> {
        let zeros = self.base.as_u64().trailing_zeros();
        let unit = STRUCT_PAGE_SIZE.trailing_zeros();
        if zeros < unit {
            return None;
        }
        Some(Order::clamped(zeros - unit))
    }
}
