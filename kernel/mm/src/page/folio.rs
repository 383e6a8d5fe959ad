//! Folios: size and reference count of what a head page stands for.
//!
//! The rule for counts, which is the reason why no RCU is needed:
//! **load first; never issue a locked instruction on a count of zero.** A tail's
//! count is always zero, and on x86 even a failing `lock cmpxchg` faults on the
//! read-only page that a folded tail lies in.

use super::flags::Flags;
use super::struct_page::Page;
use crate::addr::Order;
use crate::machine::Machine;

/// The order of the folio whose head is `head`: 0 for a page that is no head.
/// The number lies in the first tail's `private`.
pub fn folio_order<M: Machine>(m: &M, head: Page) -> Order {
    if head.is_head(m) {
        let raw = head.nth(1).private(m);
        u8::try_from(raw)
            .ok()
            .and_then(Order::new)
            .unwrap_or_else(|| {
                panic!("Bad page state: {head:?} claims to be a folio of order {raw}")
            })
    } else {
        Order::PAGE
    }
}

/// [`folio_order`] for a reader who holds no reference: the block may change hands between
/// the two loads, so the number may be no order at all. `None` then.
pub fn folio_order_seen<M: Machine>(m: &M, head: Page) -> Option<Order> {
    if !head.is_head(m) {
        return Some(Order::PAGE);
    }
    u8::try_from(head.nth(1).private(m))
        .ok()
        .and_then(Order::new)
}

/// Base pages of the folio whose head is `head`.
pub fn folio_nr_pages<M: Machine>(m: &M, head: Page) -> u64 {
    folio_order(m, head).pages()
}

/// The folio's reference count.
pub fn folio_ref_count<M: Machine>(m: &M, head: Page) -> u32 {
    head.ref_count(m)
}

/// Takes a reference on `page` itself unless its count is zero, as a pfn walker
/// does with whatever page it meets: for a tail, free or frozen page it is
/// `false`, and nothing but a load has touched the page.
///
/// The page may be freed and folded between the load and the exchange. The
/// exchange then faults, which is read as a count of zero: it is one.
#[doc(alias = "get_page_unless_zero")]
#[doc(alias = "folio_get_nontail_page")]
pub fn folio_try_get<M: Machine>(m: &M, page: Page) -> bool {
    folio_try_get_seen(m, page, page.ref_count(m))
}

/// [`folio_try_get`] by a caller that has seen a count of `count`, however long
/// ago. For tests of that race.
pub fn folio_try_get_seen<M: Machine>(m: &M, page: Page, count: u32) -> bool {
    let mut count = count;
    while count != 0 {
        match page.ref_count_cas(m, count, count + 1) {
            Ok(_) => return true,
            Err(found) => count = found,
        }
    }
    false
}

/// Returns whether a frame of the folio with head `head` is broken.
#[doc(alias = "folio_test_hwpoison")]
#[doc(alias = "folio_contain_hwpoisoned_page")]
pub fn has_hwpoisoned<M: Machine>(m: &M, head: Page) -> bool {
    head.flags(m).contains(Flags::HAS_HWPOISONED)
}

/// Returns whether the struct page of any frame of the folio with head `head` says that the frame is
/// broken.
pub(crate) fn any_page_hwpoisoned<M: Machine>(m: &M, head: Page) -> bool {
    (0..folio_nr_pages(m, head)).any(|n| head.nth(n).flags(m).contains(Flags::HWPOISON))
}

/// Drops a reference on the folio with head `head`; whether it was the last.
///
/// # Panics
/// If there was none.
#[doc(alias = "put_page_testzero")]
pub fn folio_put<M: Machine>(m: &M, head: Page) -> bool {
    let before = head.ref_count(m);
    assert!(
        before > 0,
        "Bad page state: put of {head:?}, whose count is 0"
    );
    head.ref_count_add(m, u32::MAX) == 1
}
