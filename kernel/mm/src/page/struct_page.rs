//! Where the fields of a struct page are, and how to reach them.

use core::fmt;
use core::mem::offset_of;

use super::compound_info::CompoundInfo;
use super::encoding::{Chosen, Encoding, Sharing};
use super::flags::{Flags, PageType};
use super::geometry::{STRUCT_PAGE_SIZE, Shape};
use crate::addr::{NodeId, Order, VirtAddr};
use crate::machine::{Fault, Machine};

/// The layout, for the compiler to check. Never instantiated.
#[repr(C)]
struct StructPage {
    flags: u64,
    compound_info: u64,
    lru_prev: u64,
    mapping: u64,
    index: u64,
    private: u64,
    mapcount: u32,
    refcount: u32,
    #[cfg(page_size = "64")]
    unused: u64,
}

const FLAGS: u64 = 0;
const COMPOUND_INFO: u64 = 8;
const LRU_PREV: u64 = 16;
const MAPPING: u64 = 24;
const INDEX: u64 = 32;
const PRIVATE: u64 = 40;
const MAPCOUNT: u64 = 48;
const REFCOUNT: u64 = 52;

const _: () = {
    assert!(size_of::<StructPage>() as u64 == STRUCT_PAGE_SIZE);
    assert!(offset_of!(StructPage, flags) as u64 == FLAGS);
    assert!(offset_of!(StructPage, compound_info) as u64 == COMPOUND_INFO);
    assert!(offset_of!(StructPage, lru_prev) as u64 == LRU_PREV);
    assert!(offset_of!(StructPage, mapping) as u64 == MAPPING);
    assert!(offset_of!(StructPage, index) as u64 == INDEX);
    assert!(offset_of!(StructPage, private) as u64 == PRIVATE);
    assert!(offset_of!(StructPage, mapcount) as u64 == MAPCOUNT);
    assert!(offset_of!(StructPage, refcount) as u64 == REFCOUNT);
};

/// The words of a struct page.
pub type Record = [u64; (STRUCT_PAGE_SIZE / 8) as usize];

/// Where in a [`Record`] a field is.
const fn word(offset: u64) -> usize {
    (offset / 8) as usize
}

/// The struct page that nothing uses, on `node`, with `flags`
/// besides: count 0, map count -1.
#[must_use]
pub const fn clean_record(node: NodeId, flags: Flags) -> Record {
    let mut record = [0; word(STRUCT_PAGE_SIZE)];
    record[word(FLAGS)] = flags.with_node(node).raw();
    record[word(MAPCOUNT)] = PageType::NONE.raw() as u64;
    record
}

/// The struct page of a tail on `node` whose word is `info`: what a shared tail page
/// holds over and over (INV-2).
#[must_use]
#[doc(alias = "init_compound_tail")]
pub const fn tail_record(node: NodeId, info: CompoundInfo) -> Record {
    let mut record = clean_record(node, Flags::empty());
    record[word(COMPOUND_INFO)] = info.raw();
    record
}

/// Address of a struct page in the vmemmap.
///
/// A type of its own, because the mask in `compound_info` means something for
/// this address only, not for an alias in the direct map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
#[doc(alias = "struct page *")]
pub struct Page(VirtAddr);

impl Page {
    /// Returns the word of each tail of the compound page of `order` of which this is the head.
    #[inline]
    #[must_use]
    #[doc(alias = "set_compound_head")]
    pub fn tail_info(self, order: Order) -> CompoundInfo {
        CompoundInfo::of(self.address(), order)
    }

    /// From the address of a struct page in the vmemmap, as
    /// [`Memmap::page`] computes it or a link in a struct page holds it.
    #[inline]
    pub(crate) const fn at(address: VirtAddr) -> Self {
        Self(address)
    }

    /// The address in the vmemmap.
    #[inline]
    #[must_use]
    pub const fn address(self) -> VirtAddr {
        self.0
    }

    /// The struct page `pages` further on.
    #[inline]
    #[must_use]
    #[doc(alias = "nth_page")]
    pub const fn nth(self, pages: u64) -> Self {
        Self(self.0.offset(pages * STRUCT_PAGE_SIZE))
    }

    /// `page->flags`.
    #[inline]
    pub fn flags<M: Machine>(self, m: &M) -> Flags {
        Flags::from_raw(m.load64(self.0.offset(FLAGS)))
    }

    /// Replaces `page->flags`. The caller owns the page.
    #[inline]
    pub fn set_flags<M: Machine>(self, m: &M, flags: Flags) {
        m.store64(self.0.offset(FLAGS), flags.raw());
    }

    /// Sets or clears `flag`, beside whoever changes others of `page->flags` the same way.
    #[doc(alias = "set_bit")]
    #[doc(alias = "clear_bit")]
    pub fn change_flag<M: Machine>(self, m: &M, flag: Flags, on: bool) {
        self.update_flags(m, |seen| {
            Some(if on {
                seen.with(flag)
            } else {
                seen.without(flag)
            })
        });
    }

    /// Replaces `page->flags` by what `change` makes of them, beside whoever changes others of them
    /// the same way. Returns false if it makes nothing of them: they are as they were then.
    pub fn update_flags<M: Machine>(self, m: &M, change: impl Fn(Flags) -> Option<Flags>) -> bool {
        let mut seen = self.flags(m);
        while let Some(new) = change(seen) {
            match m.compare_exchange64(self.0.offset(FLAGS), seen.raw(), new.raw()) {
                Ok(_) => return true,
                Err(other) => seen = Flags::from_raw(other),
            }
        }
        false
    }

    /// `page->compound_info`.
    #[inline]
    pub fn compound_info<M: Machine>(self, m: &M) -> CompoundInfo {
        CompoundInfo::from_raw(m.load64(self.0.offset(COMPOUND_INFO)))
    }

    /// Replaces `page->compound_info`. The caller owns the page.
    #[inline]
    pub fn set_compound_info<M: Machine>(self, m: &M, info: CompoundInfo) {
        m.store64(self.0.offset(COMPOUND_INFO), info.raw());
    }

    /// Sets `compound_info` of `count` struct pages from this one on.
    pub(super) fn set_compound_infos<M: Machine>(self, m: &M, count: u64, info: CompoundInfo) {
        m.store64_strided(
            self.0.offset(COMPOUND_INFO),
            STRUCT_PAGE_SIZE,
            count,
            info.raw(),
        );
    }

    /// `page->lru.next`: shares its bytes with `compound_info`; bit 0 stays clear.
    #[inline]
    pub(super) fn lru_next<M: Machine>(self, m: &M) -> u64 {
        m.load64(self.0.offset(COMPOUND_INFO))
    }

    #[inline]
    pub(super) fn set_lru_next<M: Machine>(self, m: &M, to: u64) {
        m.store64(self.0.offset(COMPOUND_INFO), to);
    }

    #[inline]
    pub(super) fn lru_prev<M: Machine>(self, m: &M) -> u64 {
        m.load64(self.0.offset(LRU_PREV))
    }

    #[inline]
    pub(super) fn set_lru_prev<M: Machine>(self, m: &M, to: u64) {
        m.store64(self.0.offset(LRU_PREV), to);
    }

    /// `page->mapping`.
    #[inline]
    pub fn mapping<M: Machine>(self, m: &M) -> u64 {
        m.load64(self.0.offset(MAPPING))
    }

    /// Replaces `page->mapping`. The caller owns the page.
    #[inline]
    pub fn set_mapping<M: Machine>(self, m: &M, mapping: u64) {
        m.store64(self.0.offset(MAPPING), mapping);
    }

    /// `page->index`.
    #[inline]
    pub fn index<M: Machine>(self, m: &M) -> u64 {
        m.load64(self.0.offset(INDEX))
    }

    /// Replaces `page->index`. The caller owns the page.
    #[inline]
    pub fn set_index<M: Machine>(self, m: &M, index: u64) {
        m.store64(self.0.offset(INDEX), index);
    }

    /// `page->private`.
    #[inline]
    pub fn private<M: Machine>(self, m: &M) -> u64 {
        m.load64(self.0.offset(PRIVATE))
    }

    /// Replaces `page->private`. The caller owns the page.
    #[inline]
    pub fn set_private<M: Machine>(self, m: &M, private: u64) {
        m.store64(self.0.offset(PRIVATE), private);
    }

    /// `page->page_type`, which shares its bytes with `_mapcount`.
    #[inline]
    pub fn page_type<M: Machine>(self, m: &M) -> PageType {
        PageType::from_raw(m.load32(self.0.offset(MAPCOUNT)))
    }

    /// Replaces `page->page_type`. The caller owns the page.
    #[inline]
    pub fn set_page_type<M: Machine>(self, m: &M, page_type: PageType) {
        m.store32(self.0.offset(MAPCOUNT), page_type.raw());
    }

    /// `page->_refcount` of this very page. Reading it is always allowed; for a
    /// tail it is 0.
    #[inline]
    #[doc(alias = "page_count")]
    pub fn ref_count<M: Machine>(self, m: &M) -> u32 {
        m.load32(self.0.offset(REFCOUNT))
    }

    /// Replaces `page->_refcount`. Only for a page that nobody else can find.
    #[inline]
    #[doc(alias = "set_page_count")]
    pub fn set_ref_count<M: Machine>(self, m: &M, count: u32) {
        m.store32(self.0.offset(REFCOUNT), count);
    }

    /// Address of `_refcount`, for probes that must fault on a folded tail.
    #[inline]
    #[must_use]
    pub const fn ref_count_address(self) -> VirtAddr {
        self.0.offset(REFCOUNT)
    }

    /// Whether this is a tail of a compound page.
    #[inline]
    #[doc(alias = "PageTail")]
    pub fn is_tail<M: Machine>(self, m: &M) -> bool {
        Chosen::is_tail::<Shape>(&|at| m.load64(at), self.0)
    }

    /// Whether this is the head of a compound page.
    #[inline]
    #[doc(alias = "PageHead")]
    pub fn is_head<M: Machine>(self, m: &M) -> bool {
        // Where a folio's frames of memmap are its head's, over and over, so is the flag.
        let shown_again = matches!(Chosen::SHARING, Sharing::WithinFolio);
        self.flags(m).contains(Flags::HEAD) && !(shown_again && self.is_tail(m))
    }

    /// The head of the compound page that this page belongs to, or the page
    /// itself.
    #[inline]
    pub fn compound_head<M: Machine>(self, m: &M) -> Self {
        Self(Chosen::folio::<Shape>(&|at| m.load64(at), self.0))
    }

    /// The node whose RAM the page is. True for a folded tail too: a shared tail
    /// page belongs to one node.
    #[inline]
    #[doc(alias = "page_to_nid")]
    pub fn node<M: Machine>(self, m: &M) -> NodeId {
        self.flags(m).node()
    }

    /// All words, for checks.
    #[inline]
    pub fn record<M: Machine>(self, m: &M) -> Record {
        core::array::from_fn(|word| m.load64(self.0.offset(word as u64 * 8)))
    }

    /// Overwrites all words. Only for a page that nobody else can find.
    #[inline]
    pub fn set_record<M: Machine>(self, m: &M, record: &Record) {
        for (word, value) in (0u64..).zip(record) {
            m.store64(self.0.offset(word * 8), *value);
        }
    }

    /// `Err` is the count found; a page that cannot be written has none (0), because
    /// only the tails of a folded block cannot.
    ///
    /// # Panics
    /// If the exchange meets any other fault.
    #[inline]
    pub(super) fn ref_count_cas<M: Machine>(self, m: &M, old: u32, new: u32) -> Result<u32, u32> {
        let at = self.ref_count_address();
        m.try_compare_exchange32(at, old, new)
            .unwrap_or_else(|fault| Err(count_behind(at, fault)))
    }

    #[inline]
    pub(super) fn ref_count_add<M: Machine>(self, m: &M, delta: u32) -> u32 {
        m.fetch_add32(self.ref_count_address(), delta)
    }
}

/// The count at `at`, if an exchange there met `fault`.
///
/// # Panics
/// If that is no write to a present read-only page: a hole in the vmemmap, or an entry with a
/// reserved bit set, must not pass for a page without users.
fn count_behind(at: VirtAddr, fault: Fault) -> u32 {
    assert!(
        fault.at == at && fault.code == Fault::WRITE_TO_READ_ONLY,
        "BUG: the count of a struct page at {at:?} cannot be reached: fault {:#x} at {:?}",
        fault.code,
        fault.at
    );
    0
}

impl fmt::Debug for Page {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:#018x}", self.0.as_u64())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::count_behind;
    use crate::addr::VirtAddr;
    use crate::machine::Fault;

    const AT: VirtAddr = VirtAddr::new(0xffff_ea00_0000_0034);

    #[test]
    fn a_read_only_page_has_no_count() {
        let code = Fault::WRITE_TO_READ_ONLY;
        assert_eq!(count_behind(AT, Fault { at: AT, code }), 0);
    }

    /// Not present, a reserved bit, user mode, another address.
    #[test]
    fn any_other_fault_is_a_bug() {
        let elsewhere = VirtAddr::new(0xffff_ea00_0000_1034);
        for (at, code) in [
            (AT, 0b10),
            (AT, 0b1011),
            (AT, 0b111),
            (AT, 0),
            (elsewhere, 0b11),
        ] {
            let fault = Fault { at, code };
            let result = std::panic::catch_unwind(|| count_behind(AT, fault));
            assert!(result.is_err(), "{fault:?}");
        }
    }
}
