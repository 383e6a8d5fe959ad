//! The descriptors that a memdesc word leads to.
//!
//! All start alike, so that counting, freeing and checking need not know which it is:
//!
//! ```text
//! byte    0       8           12          16      24      28        32
//!         +-------+-----------+-----------+-------+-------+---------+
//!         | flags | _refcount | _mapcount |  pfn  | order | by kind |
//!         +-------+-----------+-----------+-------+-------+---------+
//! folio   ... _pincount at 28, lru.next 32, lru.prev 40, mapping 48, index 56,
//!             private 64, memcg 72                                        (80 bytes)
//! slab    ... inuse | objects at 28, slab_list 32, 40, slab_cache 48, freelist 56 (64)
//! ptdesc  ... unused at 28, pt_list 32, 40, pmd_huge_pte 48, pt_mm 56             (64)
//! bare    ... unused at 28                                                        (32)
//! ```
//!
//! They are reached by physical address, through the direct map. While one is on a
//! free list its count is 0 and its kind stays what it was (MD-3).

use core::fmt::Debug;
use core::mem::offset_of;

use super::word::{Memdesc, MemdescType};
use mm::addr::{Order, Pfn, PhysAddr};
use mm::machine::Machine;

/// The kinds of descriptor; each has a cache of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// [`Folio`].
    Folio = 0,
    /// [`Slab`].
    Slab = 1,
    /// [`Ptdesc`].
    Ptdesc = 2,
    /// [`Bare`].
    Bare = 3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Folio, Self::Slab, Self::Ptdesc, Self::Bare];

    /// Bytes of a descriptor.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Folio => size_of::<FolioRecord>() as u64,
            Self::Slab => size_of::<SlabRecord>() as u64,
            Self::Ptdesc => size_of::<PtdescRecord>() as u64,
            Self::Bare => size_of::<Common>() as u64,
        }
    }

    /// The kind of descriptor that words of this type lead to.
    #[must_use]
    pub const fn of(word: MemdescType) -> Option<Self> {
        match word {
            MemdescType::File
            | MemdescType::Anon
            | MemdescType::Ksm
            | MemdescType::AnonExclusive => Some(Self::Folio),
            MemdescType::Slab => Some(Self::Slab),
            MemdescType::Ptdesc => Some(Self::Ptdesc),
            MemdescType::Bare => Some(Self::Bare),
            MemdescType::None | MemdescType::Free | MemdescType::HwPoison => None,
        }
    }
}

#[repr(C)]
struct Common {
    flags: u64,
    counts: u64,
    pfn: u64,
    order: u64,
}

#[repr(C)]
struct FolioRecord {
    common: Common,
    lru: [u64; 2],
    mapping: u64,
    index: u64,
    private: u64,
    memcg: u64,
}

#[repr(C)]
struct SlabRecord {
    common: Common,
    slab_list: [u64; 2],
    slab_cache: u64,
    freelist: u64,
}

#[repr(C)]
struct PtdescRecord {
    common: Common,
    pt_list: [u64; 2],
    pmd_huge_pte: u64,
    pt_mm: u64,
}

const FLAGS: u64 = offset_of!(Common, flags) as u64;
pub(super) const COUNTS: u64 = offset_of!(Common, counts) as u64;
const PFN: u64 = offset_of!(Common, pfn) as u64;
const ORDER: u64 = offset_of!(Common, order) as u64;

const _: () = {
    assert!(FLAGS == 0 && COUNTS == 8 && PFN == 16 && ORDER == 24);
    assert!(size_of::<FolioRecord>() == 80 && size_of::<SlabRecord>() == 64);
    assert!(size_of::<PtdescRecord>() == 64 && size_of::<Common>() == 32);
    assert!(offset_of!(FolioRecord, mapping) == 48 && offset_of!(FolioRecord, memcg) == 72);
    assert!(offset_of!(SlabRecord, slab_cache) == 48 && offset_of!(PtdescRecord, pt_mm) == 56);
    let mut n = 0;
    while n < Kind::ALL.len() {
        // The low four bits of the address are the type's.
        assert!(Kind::ALL[n].size().is_multiple_of(16));
        n += 1;
    }
};

/// `_mapcount` of -1, nothing counted in `_refcount`.
pub(super) const NO_COUNTS: u64 = (u32::MAX as u64) << 32;

/// In `flags`: the block's memmap is folded. Changes under the map's lock.
const FOLDED: u64 = 1 << 0;
/// In `flags`, from here on: the type of the block's words.
const TYPE_SHIFT: u32 = 8;
/// In `flags`, from here on: the node, as in `page->flags`.
const NODE_SHIFT: u32 = 58;

/// Any descriptor.
pub trait Descriptor: Copy + Eq + Debug {
    /// Which kind it is.
    const KIND: Kind;

    /// The descriptor at `address`, a multiple of 16.
    fn at(address: u64) -> Self;

    /// Its address: physical, unless a benchmark made it up.
    fn address(self) -> u64;

    /// Its address in physical memory.
    fn phys(self) -> PhysAddr {
        PhysAddr::new(self.address())
    }

    /// `_refcount`.
    #[doc(alias = "folio_ref_count")]
    #[expect(clippy::cast_possible_truncation, reason = "it is the lower half")]
    fn ref_count<M: Machine>(self, m: &M) -> u32 {
        m.read_phys(self.phys().offset(COUNTS)) as u32
    }

    /// The first frame of its block. The caller holds a reference.
    #[doc(alias = "folio_pfn")]
    fn pfn<M: Machine>(self, m: &M) -> Pfn {
        Pfn::new(m.read_phys(self.phys().offset(PFN)))
    }

    /// The order of its block. The caller holds a reference.
    ///
    /// # Panics
    /// If the descriptor holds none.
    #[doc(alias = "folio_order")]
    fn order<M: Machine>(self, m: &M) -> Order {
        let raw = m.read_phys(self.phys().offset(ORDER));
        let order = u8::try_from(raw & u64::from(u32::MAX)).ok();
        order.and_then(Order::new).unwrap_or_else(|| {
            panic!(
                "BUG: memdesc: the descriptor at {:#x} claims order {raw:#x}",
                self.address()
            )
        })
    }

    /// Whether the memmap of its block is folded.
    fn is_folded<M: Machine>(self, m: &M) -> bool {
        m.read_phys(self.phys()) & FOLDED != 0
    }

    /// `page->memdesc` of its block's pages.
    ///
    /// # Panics
    /// If the descriptor holds no type.
    fn memdesc<M: Machine>(self, m: &M) -> Memdesc {
        let kind = Memdesc::from_raw(m.read_phys(self.phys()) >> TYPE_SHIFT & 0xf).kind();
        kind.map(|kind| Memdesc::new(kind, self.phys()))
            .unwrap_or_else(|| {
                panic!(
                    "BUG: memdesc: no type in the descriptor at {:#x}",
                    self.address()
                )
            })
    }
}

macro_rules! descriptor {
    ($($(#[$doc:meta])* $name:ident),*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl Descriptor for $name {
            const KIND: Kind = Kind::$name;
            #[inline]
            fn at(address: u64) -> Self {
                Self(address)
            }
            #[inline]
            fn address(self) -> u64 {
                self.0
            }
        }
    )* };
}

descriptor! {
    /// A folio: memory that can be mapped, cached, reclaimed.
    #[doc(alias = "struct folio")]
    Folio,
    /// A block of a slab cache.
    #[doc(alias = "struct slab")]
    Slab,
    /// A page table.
    #[doc(alias = "struct ptdesc")]
    Ptdesc,
    /// A block that is nothing but allocated.
    Bare
}

/// A field of a folio that is a word of its own.
macro_rules! words {
    ($($(#[$doc:meta])* $get:ident, $set:ident, $field:ident;)*) => {
        impl Folio { $(
            $(#[$doc])*
            pub fn $get<M: Machine>(self, m: &M) -> u64 {
                m.read_phys(self.phys().offset(offset_of!(FolioRecord, $field) as u64))
            }
            #[doc = concat!("Replaces `folio->", stringify!($field), "`. The caller owns the folio.")]
            pub fn $set<M: Machine>(self, m: &M, value: u64) {
                m.write_phys(self.phys().offset(offset_of!(FolioRecord, $field) as u64), value);
            }
        )* }
    };
}

words! {
    /// `folio->mapping`.
    mapping, set_mapping, mapping;
    /// `folio->index`.
    index, set_index, index;
    /// `folio->private`.
    private, set_private, private;
}

/// Fills in a descriptor of `kind` for a block, frozen: count 0.
pub(crate) fn init<M: Machine>(
    m: &M,
    at: PhysAddr,
    kind: Kind,
    word: MemdescType,
    place: (Pfn, Order, u8),
    folded: bool,
) {
    let (pfn, order, node) = place;
    let flags = u64::from(word as u8) << TYPE_SHIFT | u64::from(node) << NODE_SHIFT;
    m.write_phys(at.offset(FLAGS), flags | if folded { FOLDED } else { 0 });
    m.write_phys(at.offset(PFN), pfn.as_u64());
    m.write_phys(at.offset(ORDER), u64::from(order.get()));
    let specific = kind.size() - size_of::<Common>() as u64;
    m.fill_words(at.offset(size_of::<Common>() as u64), 0, specific / 8);
}

/// Notes whether the memmap is folded. Under the map's lock.
pub(crate) fn set_folded<M: Machine>(m: &M, at: PhysAddr, folded: bool) {
    let flags = m.read_phys(at) & !FOLDED;
    m.write_phys(at, flags | if folded { FOLDED } else { 0 });
}
