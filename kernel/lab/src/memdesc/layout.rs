//! The struct page in four sizes.
//!
//! ```text
//! byte   0        8          16                  24          28                 64
//! 64 B   +--------+----------+-------------------+-----------+-----+--- ... -----+
//!        | flags  | memdesc  | private/_mapcount | _refcount |     | vacated     |
//! 32 B   +--------+----------+-------------------+-----------+-----+
//!        | flags  | memdesc  | private/_mapcount | _refcount |     |
//! 16 B   +--------+----------+
//!        | flags  | memdesc  |
//!  8 B   +--------+
//!        |memdesc |
//!        +--------+
//! ```
//!
//! 64 bytes is the switch between today's layout and the next: the size stays, what
//! belongs to a folio has left. 32 bytes is what is planned first; its `private` and
//! `_refcount` are for pages without descriptor, of which there are none here, and stay
//! 0. 16 bytes is a design point of this project: what must be per page, and the word.
//! 8 bytes is the end state; see [`PageFlags`](super::PageFlags) for where the flags go.

use core::fmt::Debug;
use core::marker::PhantomData;
use core::mem::offset_of;

use super::page_flags::PageFlags;
use super::word::Memdesc;
use mm::addr::{NodeId, Order, PAGE_SIZE, VirtAddr};

/// A size of struct page, and where its fields are.
pub trait StructPage: Copy + Eq + Debug + Send + Sync + 'static {
    /// Bytes; a power of two, 8 to 64.
    const SIZE: u64;
    /// Offset of `memdesc`.
    const MEMDESC: u64;
    /// Offset of `flags`, if it has them.
    const FLAGS: Option<u64>;

    /// The smallest order whose memmap is two frames, so that folding frees one.
    #[doc(alias = "VMEMMAP_TAIL_MIN_ORDER")]
    const MIN_ORDER: Order = Order::clamped((2 * PAGE_SIZE / Self::SIZE).trailing_zeros());
    /// Struct pages in a frame.
    const PER_FRAME: u64 = PAGE_SIZE / Self::SIZE;
    /// The order of the block whose memmap is exactly one frame.
    const FRAME_ORDER: Order = Order::clamped(Self::PER_FRAME.trailing_zeros());

    /// 64 bytes of struct pages that all hold `word`, on `node`, no flag set.
    #[must_use]
    fn records(node: NodeId, word: Memdesc) -> [u64; 8] {
        let mut records = [0; 8];
        let bytes = |n: usize| n as u64 * 8 % Self::SIZE;
        for (n, at) in records.iter_mut().enumerate() {
            if bytes(n) == Self::MEMDESC {
                *at = word.raw();
            } else if Some(bytes(n)) == Self::FLAGS {
                *at = PageFlags::of_node(node).raw();
            }
        }
        records
    }
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:literal, flags: $flags:expr, $record:ident {
        $($field:ident: $kind:ty),*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {}

        /// The layout, for the compiler to check. Never instantiated.
        #[repr(C)]
        struct $record { $($field: $kind),* }

        impl StructPage for $name {
            const SIZE: u64 = $size;
            const MEMDESC: u64 = offset_of!($record, memdesc) as u64;
            const FLAGS: Option<u64> = $flags;
        }

        const _: () = {
            assert!(size_of::<$record>() == $size);
            assert!(PAGE_SIZE % $size == 0 && $size % 8 == 0);
            assert!($name::MEMDESC % 8 == 0);
        };
    };
}

layout! {
    /// 64 bytes: today's size, vacated.
    Page64, 64, flags: Some(offset_of!(Record64, flags) as u64), Record64 {
        flags: u64, memdesc: u64, private: u64, refcount: u32, unused: u32, vacated: [u64; 4]
    }
}
layout! {
    /// 32 bytes: the first plan.
    Page32, 32, flags: Some(offset_of!(Record32, flags) as u64), Record32 {
        flags: u64, memdesc: u64, private: u64, refcount: u32, unused: u32
    }
}
layout! {
    /// 16 bytes: flags and the word.
    Page16, 16, flags: Some(offset_of!(Record16, flags) as u64), Record16 { flags: u64, memdesc: u64 }
}
layout! {
    /// 8 bytes: the word.
    Page8, 8, flags: None, Record8 { memdesc: u64 }
}

const _: () = {
    assert!(Page64::MIN_ORDER.get() == 7 && Page32::MIN_ORDER.get() == 8);
    assert!(Page16::MIN_ORDER.get() == 9 && Page8::MIN_ORDER.get() == 10);
    assert!(Page64::FRAME_ORDER.get() == 6 && Page8::FRAME_ORDER.get() == 9);
};

/// Address of a struct page of layout `L`. Nothing but its address: fields are reached
/// through the machine (INV-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
#[doc(alias = "struct page *")]
pub struct Page<L: StructPage>(VirtAddr, PhantomData<L>);

impl<L: StructPage> Page<L> {
    /// The struct page at `address`, a multiple of its size.
    #[inline]
    #[must_use]
    pub const fn at(address: VirtAddr) -> Self {
        Self(address, PhantomData)
    }

    /// Its address in the vmemmap.
    #[inline]
    #[must_use]
    pub const fn address(self) -> VirtAddr {
        self.0
    }

    /// The struct page `pages` further on.
    #[inline]
    #[must_use]
    pub const fn nth(self, pages: u64) -> Self {
        Self::at(self.0.offset(pages * L::SIZE))
    }

    /// Where its `memdesc` is.
    #[inline]
    #[must_use]
    pub const fn memdesc_address(self) -> VirtAddr {
        self.0.offset(L::MEMDESC)
    }
}
