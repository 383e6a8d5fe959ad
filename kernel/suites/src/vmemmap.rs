//! Geometry of the memmap.

use ktest::{Outcome, check, check_eq, skip};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::machine::Machine;
use mm::page::{Memmap, PageType, STRUCT_PAGE_SIZE, vmemmap_pages};
use mm::paging::{self, Level};
use mm::vmemmap::{HvoError, Vmemmap};

use crate::{Env, Random};

/// pfn_to_page(0) is aligned for the largest folio (INV-8).
pub fn base_is_aligned<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let memmap = env.mm.vmemmap.memmap();
    check!(
        memmap.base().is_aligned(256 << 20),
        "base {:?}",
        memmap.base()
    );
    check_eq!(memmap.max_aligned_order(), Some(Order::MAX));
    Ok(())
}

/// pfn to page to pfn, for first, last and random pages of every section with RAM.
pub fn round_trips<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let memmap = env.mm.vmemmap.memmap();
    let mut random = Random::new(3);
    for section in sections(env) {
        let last = Memmap::SECTION.pages() - 1;
        for n in [
            0,
            last,
            random.below(last),
            random.below(last),
            random.below(last),
        ] {
            let pfn = section.offset(n);
            let page = memmap.page(pfn);
            let address = memmap.base().as_u64() + pfn.as_u64() * STRUCT_PAGE_SIZE;
            check_eq!(page.address(), VirtAddr::new(address), "{pfn:?}");
            check_eq!(memmap.pfn(page), pfn);
            check_eq!(memmap.page_at(page.address()), Some(page));
            check!(env.frame_of(page).is_some(), "{pfn:?} has no struct page");
        }
    }
    Ok(())
}

/// Sections without RAM have no struct pages, and addresses that are no struct
/// page's are refused (T30).
pub fn holes_are_not_mapped<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let memmap = env.mm.vmemmap.memmap();
    let Some(last) = env.ram.last() else {
        skip!("no RAM")
    };
    let mut holes = 0;
    let mut section = Pfn::new(0);
    let end = last.range.end.offset(4 * Memmap::SECTION.pages());
    while section < end {
        let block = section.block(Memmap::SECTION);
        let has_ram = env
            .ram
            .iter()
            .any(|ram| !ram.range.intersect(block).is_empty());
        check_eq!(
            env.frame_of(memmap.page(section)).is_some(),
            has_ram,
            "section at {section:?}"
        );
        holes += u64::from(!has_ram);
        section = block.end;
    }
    check!(holes >= 4, "{holes} holes looked at");
    let page = memmap.page(env.ram[0].range.start).address();
    check_eq!(memmap.page_at(page.offset(8)), None);
    check_eq!(memmap.page_at(VirtAddr::new(0xffff_8880_0000_0000)), None);
    Ok(())
}

/// T17: a base that is a multiple of 2 MiB serves orders up to 15, one of
/// 128 MiB up to 21; above, folding is refused, and the first order that fails is
/// named. So is a head that is not at a multiple of its memmap (R7).
pub fn misaligned_base_is_found<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let base = Memmap::DEFAULT_BASE;
    for (shift, max) in [(2u64 << 20, 15), (16 << 20, 18), (128 << 20, 21)] {
        let memmap = Memmap::new(base.offset(shift));
        let vmemmap = alloc::boxed::Box::new(Vmemmap::new(memmap));
        check_eq!(
            memmap.max_aligned_order(),
            Some(Order::of(max)),
            "base off by {shift:#x}"
        );
        for order in 7..=22u8 {
            let expected = if order <= max {
                Ok(Order::of(order))
            } else {
                Err(HvoError::BaseMisaligned(Order::of(max)))
            };
            check_eq!(
                vmemmap.check_order(env.m, order),
                expected,
                "off by {shift:#x}"
            );
        }
    }
    Ok(())
}

/// T16: orders 6 and 23 are errors, as is every other outside 7 to 22.
pub fn order_bounds<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for order in 0..=u8::MAX {
        let expected = if (7..=22).contains(&order) {
            Ok(Order::of(order))
        } else {
            Err(HvoError::OrderOutOfBounds(order))
        };
        check_eq!(env.mm.vmemmap.check_order(env.m, order), expected);
    }
    check_eq!(vmemmap_pages(Order::of(7)), 2);
    check_eq!(vmemmap_pages(Order::of(6)), 1);
    Ok(())
}

/// Every section's struct pages lie under one 2 MiB leaf, in a block of memmap, or
/// under a table that the ledger counts: one of its own, or a shared one.
pub fn is_mapped_by_leaves<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (mut leaves, mut all) = (0, 0);
    for section in sections(env) {
        let page = env.page(section);
        let entry = paging::walk(env.m, env.m.root(), page.address());
        all += 1;
        if entry.level == Level::Pmd {
            leaves += 1;
            let last = env.page(entry.pte.pfn().offset(511));
            check_eq!(last.page_type(env.m), PageType::MEMMAP, "{section:?}");
        }
    }
    let totals = env.totals();
    check_eq!(all, totals.sections);
    let tables = totals.tables - totals.shared_tables;
    check_eq!(
        leaves + tables + totals.shared_slots,
        all,
        "leaves and tables"
    );
    Ok(())
}

fn sections<M: Machine>(env: &Env<'_, M>) -> alloc::collections::BTreeSet<Pfn> {
    env.ram
        .iter()
        .flat_map(|ram| {
            let first = ram.range.start.align_down(Memmap::SECTION);
            let count = ram.range.end.as_u64().saturating_sub(first.as_u64());
            (0..count.div_ceil(Memmap::SECTION.pages()))
                .map(move |n| first.offset(n * Memmap::SECTION.pages()))
        })
        .collect()
}
