//! Page checks: what the struct page of a frame must look like when the frame
//! changes hands.
//!
//! The cheap ones always run. The thorough ones look at every struct page of a
//! block and run in builds with debug assertions, where they would have caught
//! the restored pages with stale fields that two distribution kernels leaked.

use core::fmt;

use super::compound_info::CompoundInfo;
use super::flags::{Flags, PageType};
use super::struct_page::Page;
use crate::addr::Order;
use crate::machine::Machine;

/// Whether every struct page of a block is checked at each allocation and free.
#[doc(alias = "CONFIG_DEBUG_VM")]
#[doc(alias = "check_pages_enabled")]
pub const PAGE_CHECKS: bool = cfg!(debug_assertions);

/// In `index` of the first page of an allocated block, with the order added.
/// Nothing else keeps values this large there.
const ALLOCATED: u64 = 0xa110_c000_0000_0000;

/// Notes in `page` that a block of `order` starting there is allocated.
pub(crate) fn mark_allocated<M: Machine>(m: &M, page: Page, order: Order) {
    page.set_index(m, allocated_mark(order));
}

/// `index` of the first page of an allocated block of `order`.
pub(crate) const fn allocated_mark(order: Order) -> u64 {
    ALLOCATED | order.get() as u64
}

/// Returns the order of the allocated block that starts at `page`, if one does.
pub fn allocated_order<M: Machine>(m: &M, page: Page) -> Option<Order> {
    let index = page.index(m);
    let order = u8::try_from(index & !ALLOCATED).ok()?;
    (index & ALLOCATED == ALLOCATED)
        .then_some(Order::new(order))
        .flatten()
}

/// What is wrong with a struct page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "bad_page")]
pub struct BadPage {
    /// The page.
    pub page: Page,
    /// The field, and what it should have been.
    pub what: &'static str,
    /// What the field held.
    pub found: u64,
}

impl fmt::Display for BadPage {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, what, found } = self;
        write!(f, "Bad page state: {page:?}: {what}, found {found:#x}")
    }
}

/// Checks that nothing uses `page`: every field as in a clean record. `index` is
/// not looked at, since the first page of an allocated block keeps a mark there.
///
/// # Errors
/// The first field that is wrong.
#[doc(alias = "page_expected_state")]
pub fn check_unused<M: Machine>(m: &M, page: Page) -> Result<(), BadPage> {
    let bad = |what, found| Err(BadPage { page, what, found });
    let flags = page.flags(m);
    if flags.bits() != Flags::empty().bits() {
        return bad("a flag is set", flags.raw());
    }
    let info = page.compound_info(m);
    if info != CompoundInfo::NONE {
        return bad("compound_info or a list link is set", info.raw());
    }
    if page.lru_prev(m) != 0 {
        return bad("a list link is set", page.lru_prev(m));
    }
    if page.mapping(m) != 0 {
        return bad("corrupted mapping", page.mapping(m));
    }
    if page.private(m) != 0 {
        return bad("private is set", page.private(m));
    }
    if page.page_type(m) != PageType::NONE {
        return bad(
            "nonzero mapcount or page type",
            u64::from(page.page_type(m).raw()),
        );
    }
    if page.ref_count(m) != 0 {
        return bad("nonzero _refcount", u64::from(page.ref_count(m)));
    }
    Ok(())
}

/// [`check_unused`] for every page of the block of `order` at `first`; `index`
/// must be clear as well in all but the first. Does nothing without
/// [`PAGE_CHECKS`].
///
/// # Panics
/// If a page is in a bad state: whoever held the block corrupted or still uses it.
#[doc(alias = "check_new_pages")]
#[doc(alias = "free_page_is_bad")]
pub(crate) fn assert_unused<M: Machine>(m: &M, first: Page, order: Order) {
    if !PAGE_CHECKS {
        return;
    }
    for n in 0..order.pages() {
        let page = first.nth(n);
        if let Err(bad) = check_unused(m, page) {
            panic!("BUG: {bad} ({n} into a block of order {order})");
        }
        let index = page.index(m);
        assert!(
            n == 0 || index == 0,
            "BUG: Bad page state: {page:?}: index is set, found {index:#x} ({n} into a block of order {order})"
        );
    }
}
