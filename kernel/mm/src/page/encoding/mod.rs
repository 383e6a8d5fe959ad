//! Which folio am I in? The ways a struct page can answer, one file each.
//!
//! An [`Encoding`] is a rule for one word of the struct page, `compound_info`, and
//! nothing else: it knows no allocator and no page table, and reads through a function
//! that it is given. So the kernel, the emulated machine and a benchmark on a real
//! processor run the same lines, each with its own loads.
//!
//! All are compiled into every build. The kernel's own struct pages use [`Chosen`],
//! which `TAILFOLD_LAYOUT` picks at build time. To add one: write its file, add its line
//! to `encodings!` below; docs/layouts.md has the steps for the last one added.

mod shape;
mod support;

pub use shape::{Bytes8, Bytes32, Bytes56, Bytes64, PageShape, PageShapeInfo};
pub use support::{MemoryModel, Refusal, SECTION, Support, support};

use crate::addr::{Order, VirtAddr};

/// What a block of struct pages is, for the words of its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Address of the head's struct page.
    pub head: VirtAddr,
    /// The block has 2^order pages.
    pub order: Order,
    /// Address of the folio's descriptor, a multiple of 16, if it has one.
    pub descriptor: Option<VirtAddr>,
}

/// Which struct pages may lie in one frame, mapped many times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// None: there is no HVO.
    Nothing,
    /// Those of one folio; its head's frame serves for all.
    WithinFolio,
    /// Tails of all folios of one order on one node.
    AcrossNode,
}

/// A way to find the folio of a page.
///
/// `load` reads 8 bytes of a struct page, atomically, acquire.
pub trait Encoding: 'static {
    /// As `TAILFOLD_LAYOUT` and reports spell it.
    const NAME: &'static str;
    /// What can be shared.
    const SHARING: Sharing;
    /// The rule computes the head's address from the tail's own, which needs a struct
    /// page size that is a power of two, and memmaps aligned to that of a folio.
    const COMPUTES: bool;
    /// The folio's data are outside the memmap.
    const DESCRIPTOR: bool;

    /// The word of a tail of `block`.
    fn tail<S: PageShape>(block: &BlockInfo) -> u64;

    /// The word of the head of `block`.
    #[must_use]
    fn head<S: PageShape>(block: &BlockInfo) -> u64 {
        let _ = block;
        0
    }

    /// Whether the struct page at `page` is a tail.
    #[doc(alias = "PageTail")]
    fn is_tail<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> bool;

    /// Where the data of the folio of the struct page at `page` are: the head's struct
    /// page, or the descriptor. Of a page of no folio: the page itself, or null.
    #[doc(alias = "compound_head")]
    #[doc(alias = "page_folio")]
    fn folio<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> VirtAddr;
}

/// Declares the encodings: the word that names each, and its type. From it come the
/// module, [`Chosen`], and [`for_each_encoding!`](crate::for_each_encoding).
macro_rules! encodings {
    ($dollar:tt; $($module:ident, $name:literal => $type:ident;)*) => {
        $(
            mod $module;
            pub use $module::$type;
            /// The encoding of the kernel's own struct pages.
            #[cfg(encoding = $name)]
            pub type Chosen = $type;
            const _: () = assert!(same($type::NAME, $name), "the name here and in the file differ");
        )*

        #[cfg(not(any($(encoding = $name),*)))]
        compile_error!(concat!("TAILFOLD_LAYOUT names no encoding; there are" $(, " ", $name)*));

        /// Calls `$each!(Type)` with every encoding's type, from `mm::page::encoding`.
        #[macro_export]
        macro_rules! for_each_encoding {
            ($dollar each:ident) => { $($dollar each! { $type })* };
        }
    };
}

encodings! { $;
    pointer, "pointer" => Pointer;
    fake_head, "fake-head" => FakeHead;
    mask, "mask" => Mask;
    order, "order" => OrderInField;
    memdesc, "memdesc" => Memdesc;
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

/// Bit 0 of the word: a tail. Links of lists, which share the word, have it clear.
const TAIL: u64 = 1;

/// The struct page's word.
#[inline(always)]
fn word<S: PageShape>(load: &impl Fn(VirtAddr) -> u64, page: VirtAddr) -> u64 {
    load(page.offset(S::INFO))
}

#[cfg(test)]
mod tests;
