//! Compound pages: one head, and tails that know the way to it.

use super::compound_info::CompoundInfo;
use super::flags::Flags;
use super::geometry::HEAD_PAGES;
use super::struct_page::Page;
use crate::addr::Order;
use crate::machine::Machine;

/// Makes the block of `order` at `head` a compound page as far as the first
/// frame of its memmap goes: the head and up to 63 tails. A block that will be
/// folded needs no more, because the other tails are about to be replaced.
///
/// The caller owns the block, frozen (count 0); `order` is at least 1, and at most
/// [`Memmap::max_folio_order`](super::Memmap::max_folio_order).
#[doc(alias = "prep_compound_page")]
pub fn prep_compound_head<M: Machine>(m: &M, head: Page, order: Order) {
    debug_assert!(order > Order::PAGE);
    // By exchange, here and below: a frame of the block may be marked broken beside (HP-12).
    head.change_flag(m, Flags::HEAD, true);
    let tails = order.pages().min(HEAD_PAGES) - 1;
    head.nth(1)
        .set_compound_infos(m, tails, head.tail_info(order));
    head.nth(1).set_private(m, u64::from(order.get()));
}

/// Makes tails of the struct pages behind the first frame of the memmap: the
/// other half of [`prep_compound_head`], for a block that stays unfolded.
#[doc(alias = "prep_compound_tail")]
pub fn prep_compound_tails<M: Machine>(m: &M, head: Page, order: Order) {
    let tails = order.pages().saturating_sub(HEAD_PAGES);
    head.nth(HEAD_PAGES)
        .set_compound_infos(m, tails, head.tail_info(order));
}

/// Undoes [`prep_compound_head`]: the pages of the first frame of the memmap are
/// plain again, field by field. For a block whose other tails came back unused.
pub fn undo_compound_head<M: Machine>(m: &M, head: Page, order: Order) {
    debug_assert!(!head.flags(m).contains(Flags::VMEMMAP_OPTIMIZED));
    head.change_flag(m, Flags::HEAD.with(Flags::HAS_HWPOISONED), false);
    head.nth(1).set_private(m, 0);
    let tails = order.pages().min(HEAD_PAGES) - 1;
    head.nth(1).set_compound_infos(m, tails, CompoundInfo::NONE);
}

/// Clears what the owner of the compound page at `head` keeps in the first tail beside its
/// order: `lru.prev`, `mapping`, `index`.
pub(crate) fn clear_first_tail<M: Machine>(m: &M, head: Page) {
    let tail = head.nth(1);
    tail.set_lru_prev(m, 0);
    tail.set_mapping(m, 0);
    tail.set_index(m, 0);
}

/// Undoes [`prep_compound_tails`].
#[doc(alias = "destroy_compound_gigantic_folio")]
pub fn undo_compound_tails<M: Machine>(m: &M, head: Page, order: Order) {
    let tails = order.pages().saturating_sub(HEAD_PAGES);
    head.nth(HEAD_PAGES)
        .set_compound_infos(m, tails, CompoundInfo::NONE);
}

/// The head of the folio that `page` belongs to, or `None` if the page belongs
/// to none: a free page, page table, memmap frame or reserved page.
///
/// While a folio is demoted or promoted on another CPU, a page may lead to what is not
/// a head any more, or not yet as this CPU sees it; that in turn is a tail of the
/// larger folio. So the way is followed twice, and again if it has changed.
pub fn page_folio<M: Machine>(m: &M, page: Page) -> Option<Page> {
    let follow = || page.compound_head(m).compound_head(m);
    let mut head = follow();
    loop {
        if head.is_head(m) || head.ref_count(m) > 0 {
            return (!head.flags(m).contains(Flags::RESERVED)).then_some(head);
        }
        let again = follow();
        if again == head {
            return None;
        }
        head = again;
    }
}
