//! One compound page becomes many smaller ones, and many one.
//!
//! All of them are frozen. Readers on other CPUs may look on: a page is a tail whose
//! mask leads to a head, or a head itself, after every single store.

use super::check::{allocated_mark, mark_allocated};
use super::compound_info::CompoundInfo;
use super::flags::{Flags, PageType};
use super::geometry::HEAD_PAGES;
use super::struct_page::{Page, Record, clean_record};
use crate::addr::Order;
use crate::machine::Machine;

/// The struct page of a new head, made for a part of `order` of the block of `head`: with
/// its flags and type, on no list, an allocation of its own.
pub(crate) fn part_head_record<M: Machine>(m: &M, head: Page, order: Order) -> Record {
    let mut record = clean_record(head.node(m), Flags::empty());
    record[0] = head.flags(m).raw();
    record[4] = allocated_mark(order);
    record[6] = u64::from(head.page_type(m).raw());
    record
}

/// Makes the first frame of the memmap of the block at `head` that of a block of
/// `order`, smaller or larger than it was.
pub(crate) fn set_first_frame_order<M: Machine>(m: &M, head: Page, order: Order) {
    let tails = order.pages().min(HEAD_PAGES) - 1;
    head.nth(1).set_private(m, u64::from(order.get()));
    head.nth(1)
        .set_compound_infos(m, tails, head.tail_info(order));
    mark_allocated(m, head, order);
}

/// Makes parts of `to` of the unfolded compound page of order `from` at `head`.
pub(crate) fn split_compound<M: Machine>(m: &M, head: Page, from: Order, to: Order) {
    for n in 1..from.pages() / to.pages() {
        let part = head.nth(n * to.pages());
        part.nth(1).set_private(m, u64::from(to.get()));
        mark_allocated(m, part, to);
        part.set_page_type(m, head.page_type(m));
        part.set_flags(m, head.flags(m));
        // Last: until here it was a tail, and its own tails are none yet.
        part.set_compound_info(m, CompoundInfo::NONE);
        part.nth(1)
            .set_compound_infos(m, to.pages() - 1, part.tail_info(to));
    }
    set_order(m, head, to);
}

/// Makes one compound page of order `from` of unfolded ones of `to` at `head` and behind.
pub(crate) fn merge_compound<M: Machine>(m: &M, head: Page, from: Order, to: Order) {
    set_order(m, head, from);
    for n in 1..from.pages() / to.pages() {
        let part = head.nth(n * to.pages());
        part.nth(1)
            .set_compound_infos(m, to.pages() - 1, head.tail_info(from));
        // First: from here on it is a tail, whatever else it holds for a moment.
        part.set_compound_info(m, head.tail_info(from));
        part.nth(1).set_private(m, 0);
        part.set_flags(m, Flags::empty().with_node(head.node(m)));
        part.set_page_type(m, PageType::NONE);
        part.set_index(m, 0);
    }
}

/// The order of the block at `head`, in all struct pages that the smaller of its old and
/// its new block has.
fn set_order<M: Machine>(m: &M, head: Page, order: Order) {
    let old = super::folio_order(m, head);
    set_first_frame_order(m, head, order);
    let tails = old.pages().min(order.pages());
    head.nth(1)
        .set_compound_infos(m, tails - 1, head.tail_info(order));
}
