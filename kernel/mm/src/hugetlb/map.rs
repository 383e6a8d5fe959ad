//! Mapping a folio by one leaf.

use super::Hstate;
use crate::addr::{Order, VirtAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{self, Memmap, Page, PageType};
use crate::paging::{self, Level, MapError, PteFlags};

/// Maps the folio at `at`, writable, by one 2 MiB or 1 GiB leaf, and takes a
/// reference on it.
///
/// # Errors
/// [`MapError`]; no reference is taken then.
///
/// # Panics
/// If the folio is frozen (nobody has it) or its order has no leaf size.
#[doc(alias = "hugetlb_fault")]
pub fn map_folio<M: Machine>(
    m: &M,
    frames: &impl FrameSource<M>,
    memmap: Memmap,
    at: VirtAddr,
    head: Page,
) -> Result<(), MapError> {
    let level = leaf_level(page::folio_order(m, head));
    let node = head.node(m);
    assert!(
        page::folio_try_get(m, head),
        "{head:?} is frozen and cannot be mapped"
    );
    let mut table = || {
        let table = frames.alloc(m, Order::PAGE, Placement::Prefer(node))?;
        memmap.page(table).set_page_type(m, PageType::TABLE);
        Some(table)
    };
    let pfn = memmap.pfn(head);
    let mapped = paging::map(m, m.root(), at, pfn, level, PteFlags::KERNEL, &mut table);
    if mapped.is_err() {
        page::folio_put(m, head);
    }
    mapped
}

/// Unmaps the folio of `h`'s size at `at`, flushes, and drops the mapping's
/// reference: if it was the last, the folio is back in its pool. Tables on the path
/// stay for the next mapping.
///
/// # Errors
/// [`MapError::NotMapped`] if no leaf of that size is there.
///
/// # Panics
/// If what was mapped there is no folio of that size.
pub fn unmap_folio<M: Machine>(
    m: &M,
    h: &Hstate,
    memmap: Memmap,
    at: VirtAddr,
) -> Result<(), MapError> {
    let (leaf, flush) = paging::unmap(m, m.root(), at, leaf_level(h.order()))?;
    flush.flush(m);
    h.put(m, memmap.page(leaf.pfn()));
    Ok(())
}

fn leaf_level(order: Order) -> Level {
    match order {
        Order::PMD => Level::Pmd,
        Order::PUD => Level::Pud,
        other => panic!("no leaf maps a folio of order {other}"),
    }
}
