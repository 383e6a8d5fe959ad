//! `page->memdesc`: one word, the type in its low four bits, the address of the
//! descriptor in the rest.

use core::fmt;

use mm::addr::{Order, PhysAddr};

/// What a page is. The numbers are those of the plan for 8-byte struct pages; 6
/// (movable), 7 (mapped by vmalloc) and 10 (network pool) have no user here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum MemdescType {
    /// Nothing, or reserved: no RAM that an allocator may hand out.
    None = 0,
    /// A folio of the page cache.
    File = 1,
    /// A folio of anonymous memory.
    Anon = 2,
    /// An anonymous folio shared by KSM.
    Ksm = 3,
    /// Objects of a slab cache.
    Slab = 4,
    /// Free. If the block's memmap is folded its order is in the bits above.
    Free = 5,
    /// Allocated, no folio, with nothing known but where it starts. The plan has no
    /// number for it; 8 is free there.
    Bare = 8,
    /// A page table.
    Ptdesc = 9,
    /// Broken. Where flags have no place (8 bytes) the address still leads to the
    /// owner's descriptor, whose cache says what it is.
    HwPoison = 11,
    /// A page of an anonymous folio that no other process maps, where flags have no
    /// place (8 bytes).
    AnonExclusive = 12,
}

/// The word itself.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
#[doc(alias = "memdesc_t")]
pub struct Memdesc(u64);

impl Memdesc {
    const TYPE: u64 = 0xf;
    /// Types whose descriptor is a folio, one bit each: one shift finds out.
    const FOLIOS: u64 = 1 << MemdescType::File as u8
        | 1 << MemdescType::Anon as u8
        | 1 << MemdescType::Ksm as u8
        | 1 << MemdescType::AnonExclusive as u8;

    /// Nothing is there.
    pub const NONE: Self = Self(0);
    /// Not RAM that may be handed out.
    pub const RESERVED: Self = Self(1 << 4);
    /// Free, memmap not folded.
    pub const FREE: Self = Self(MemdescType::Free as u64);
    /// Broken, and nobody's.
    pub const POISONED: Self = Self(MemdescType::HwPoison as u64);

    /// Type `of`, descriptor at `address`.
    ///
    /// # Panics
    /// If the address is not a multiple of 16: its low bits are the type's.
    #[must_use]
    pub const fn new(of: MemdescType, address: PhysAddr) -> Self {
        assert!(
            address.as_u64() & Self::TYPE == 0,
            "memdesc: a descriptor that is not 16-byte aligned"
        );
        Self(address.as_u64() | of as u64)
    }

    /// Free, in a block of `order` whose memmap is folded.
    #[must_use]
    pub const fn free_folded(order: Order) -> Self {
        Self((order.get() as u64) << 4 | MemdescType::Free as u64)
    }

    /// From the eight bytes.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The eight bytes.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// What the page is; `None` for a number that means nothing here.
    #[must_use]
    #[doc(alias = "memdesc_type")]
    pub const fn kind(self) -> Option<MemdescType> {
        Some(match self.0 & Self::TYPE {
            0 => MemdescType::None,
            1 => MemdescType::File,
            2 => MemdescType::Anon,
            3 => MemdescType::Ksm,
            4 => MemdescType::Slab,
            5 => MemdescType::Free,
            8 => MemdescType::Bare,
            9 => MemdescType::Ptdesc,
            11 => MemdescType::HwPoison,
            12 => MemdescType::AnonExclusive,
            _ => return None,
        })
    }

    /// Whether the type is `of`.
    #[inline]
    #[must_use]
    pub const fn is(self, of: MemdescType) -> bool {
        self.0 & Self::TYPE == of as u64
    }

    /// Whether the descriptor is a folio. One shift, no branch.
    #[inline]
    #[must_use]
    pub const fn is_folio(self) -> bool {
        Self::FOLIOS >> (self.0 & Self::TYPE) & 1 == 1
    }

    /// The address above the type's bits: of the descriptor, if the type has one.
    #[inline]
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 & !Self::TYPE
    }

    /// With another type, same descriptor.
    #[must_use]
    pub const fn retyped(self, to: MemdescType) -> Self {
        Self(self.address() | to as u64)
    }

    /// The order of the free, folded block that the page lies in.
    #[must_use]
    pub fn folded_order(self) -> Option<Order> {
        let order = u8::try_from(self.address() >> 4).ok()?;
        Order::new(order).filter(|order| self.is(MemdescType::Free) && *order > Order::PAGE)
    }
}

impl fmt::Debug for Memdesc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "{kind:?}:{:#x}", self.address()),
            None => write!(f, "memdesc {:#x}", self.0),
        }
    }
}
