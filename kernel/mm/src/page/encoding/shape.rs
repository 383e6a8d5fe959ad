//! Sizes of struct page, and where the two words are that an encoding reads.

use core::fmt::Debug;

use crate::addr::{Order, PAGE_SIZE};

/// A size of struct page.
pub trait PageShape: Copy + Debug + Default + 'static {
    /// In bytes.
    #[doc(alias = "sizeof(struct page)")]
    const SIZE: u64;
    /// Byte offset of `page->flags`, if the struct page has flags besides the word.
    const FLAGS: Option<u64>;
    /// Byte offset of `compound_info`, or `memdesc`.
    const INFO: u64;
}

/// What follows from a [`PageShape`].
pub trait PageShapeInfo: PageShape {
    /// log2 of the size, if that is a whole number.
    const SHIFT: Option<u32> = if Self::SIZE.is_power_of_two() {
        Some(Self::SIZE.trailing_zeros())
    } else {
        None
    };
    /// Struct pages that lie wholly in one frame.
    const PER_FRAME: u64 = PAGE_SIZE / Self::SIZE;
    /// Bytes of memmap for a block of `order`.
    fn memmap_bytes(order: Order) -> u64 {
        order.pages() * Self::SIZE
    }
}

impl<S: PageShape> PageShapeInfo for S {}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $size:literal, flags: $flags:expr, info: $info:literal })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $name;
            impl PageShape for $name {
                const SIZE: u64 = $size;
                const FLAGS: Option<u64> = $flags;
                const INFO: u64 = $info;
            }
        )*
    };
}

shapes! {
    /// As Linux has it: flags, `compound_info`, and six words for whoever owns the page.
    Bytes64 { 64, flags: Some(0), info: 8 }
    /// Without the last word, which is what Linux has with neither memory cgroups nor
    /// anything else in it: no power of two, so a struct page may lie in two frames.
    Bytes56 { 56, flags: Some(0), info: 8 }
    /// Flags that every page needs, the word, one more for lists, and the counts.
    Bytes32 { 32, flags: Some(0), info: 8 }
    /// The word alone.
    Bytes8 { 8, flags: None, info: 0 }
}
