//! What the last reference leads to, and what must hold then: it differs by kind.

use super::fields::set_types;
use super::fields::{self, FolioFields, nr_pages};
use super::kind::{PageKind, owned_kind};
use super::policy::Policy;
use mm::addr::Order;
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::{self, BadPage, Flags, PAGE_CHECKS, Page, PageType};
use mm::system::Mm;
use mm::vmemmap;

/// Takes back the allocation with first page `head`, whose count is 0.
///
/// # Errors
/// What is wrong with it; nothing was changed.
#[doc(alias = "free_pages_prepare")]
#[doc(alias = "free_tail_page_prepare")]
pub(super) fn free<M: Machine>(m: &M, mm: &Mm, policy: Policy, head: Page) -> Result<(), BadPage> {
    let (large, page_type) = (head.is_head(m), head.page_type(m));
    let order = if large {
        page::folio_order(m, head)
    } else {
        page::allocated_order(m, head).unwrap_or(Order::PAGE)
    };
    let kind = owned_kind(m, policy, head);
    if large {
        check_fields(m, policy, kind, head, order)?;
    }
    if page_type == PageType::HUGETLB {
        return free_huge(m, mm, head, order);
    }
    if vmemmap::is_optimized(m, head) {
        let (what, found) = ("freed while it is folded", head.flags(m).raw());
        return Err(BadPage {
            page: head,
            what,
            found,
        });
    }
    check_mapcounts(m, policy, kind, head, order)?;

    if policy == Policy::NotRmappable && kind != PageKind::Folio {
        set_types(m, head, order, PageType::NONE);
    }
    head.set_page_type(m, PageType::NONE);
    head.change_flag(m, Flags::RMAPPABLE, false);
    if large {
        // Also what an owner of a compound page that is no folio kept there.
        fields::clear(m, head);
        page::undo_compound_tails(m, head, order);
        page::undo_compound_head(m, head, order);
    }
    let memmap = mm.vmemmap.memmap();
    mm.nodes.free(m, memmap.pfn(head), order);
    Ok(())
}

/// Back to its pool, which clears the fields, whoever drops the last reference.
#[doc(alias = "free_huge_folio")]
fn free_huge<M: Machine>(m: &M, mm: &Mm, head: Page, order: Order) -> Result<(), BadPage> {
    let Some(h) = mm.hugetlb.hstate(order) else {
        let (what, found) = ("a hugetlb folio of no pool", u64::from(order.get()));
        return Err(BadPage {
            page: head,
            what,
            found,
        });
    };
    head.set_ref_count(m, 1);
    mm.hugetlb.put(m, mm.backing(), h, head);
    Ok(())
}

/// The fields of the first tail, as far as the kind has them.
fn check_fields<M: Machine>(
    m: &M,
    policy: Policy,
    kind: PageKind,
    head: Page,
    order: Order,
) -> Result<(), BadPage> {
    let found = FolioFields::of(m, head);
    let page = head.nth(1);
    let bad = |what, found: u32| {
        let found = u64::from(found);
        Err(BadPage { page, what, found })
    };
    let folio = matches!(kind, PageKind::Folio | PageKind::Hugetlb);
    if folio && found.large_mapcount != 0 {
        return bad("nonzero large_mapcount", found.large_mapcount);
    }
    if folio && found.entire_mapcount != 0 {
        return bad("nonzero entire_mapcount", found.entire_mapcount);
    }
    if folio && found.nr_pages_mapped != 0 {
        return bad("nonzero nr_pages_mapped", found.nr_pages_mapped);
    }
    if folio && found.nr_pages != nr_pages(order) {
        return bad("nr_pages does not match the order", found.nr_pages);
    }
    let pins = folio || (kind == PageKind::Compound && policy.compound_has_pincount());
    if pins && found.pincount != 0 {
        return bad("nonzero pincount", found.pincount);
    }
    Ok(())
}

/// Every page's own map count, or type: in checked builds of each page, else of the
/// first.
fn check_mapcounts<M: Machine>(
    m: &M,
    policy: Policy,
    kind: PageKind,
    head: Page,
    order: Order,
) -> Result<(), BadPage> {
    let looked_at = if PAGE_CHECKS { order.pages() } else { 1 };
    for n in 0..looked_at {
        let page = head.nth(n);
        let marked = policy == Policy::NotRmappable && kind != PageKind::Folio;
        let expected = match kind {
            PageKind::Slab if n == 0 => PageType::SLAB,
            _ if marked => PageType::NOT_RMAPPABLE,
            _ => PageType::NONE,
        };
        let found = page.page_type(m);
        if found != expected {
            let what = "nonzero mapcount or page type";
            let found = u64::from(found.raw());
            return Err(BadPage { page, what, found });
        }
    }
    Ok(())
}
