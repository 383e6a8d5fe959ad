//! Address spaces, what is counted when they map folios, and what is refused.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ktest::{Outcome, Stop, check, check_eq, fail};
use lab::rmap::{
    AddressSpace, ENTIRELY_MAPPED, FolioFields, GUP_PIN_COUNTING_BIAS, Gfp, PageKind, Pages,
    Policy, USER_END, VmError, page_mapcount,
};
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, PUD_SIZE, PfnRange, VirtAddr, VirtRange};
use mm::machine::{FailPoint, Machine};
use mm::page::{self, BadPage, Page};

use suites::Env;
use suites::hugetlb::{grow_or_skip, with_hvo};

/// Where cases map things: 1 GiB, so that the largest entry fits, and room behind it.
pub(crate) const AT: VirtAddr = VirtAddr::new(PUD_SIZE);

/// A result that must be good for the case to go on.
pub(crate) fn good<T>(result: Result<T, VmError>) -> Result<T, Stop> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => fail!("{error}"),
    }
}

/// `pages` pages from `at` on.
pub(crate) const fn span(at: VirtAddr, pages: u64) -> VirtRange {
    at.range(pages * PAGE_SIZE)
}

/// Runs a case under `policy`; nothing may be left behind, and nothing may have been bad.
pub(crate) fn under<M: Machine>(
    env: &Env<'_, M>,
    policy: Policy,
    case: impl FnOnce(&Pages<'_, M>) -> Outcome,
) -> Outcome {
    let before = env.snapshot();
    let pages = Pages::new(env.m, env.mm, policy);
    case(&pages)?;
    check_eq!(pages.bad_pages(), 0, "bad pages under {policy}");
    env.same_as(&before)
}

/// The fields of a folio of `order` with these counts.
fn fields(order: Order, large: u32, entire: u32, mapped: u32, pins: u32) -> FolioFields {
    FolioFields {
        large_mapcount: large,
        entire_mapcount: entire,
        nr_pages_mapped: mapped,
        pincount: pins,
        nr_pages: 1 << order.get(),
    }
}

/// A folio mapped by pages, by pages again, and whole: each count is exact after each
/// step, and the references with them.
pub fn folios_are_counted<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::Today, |pages| {
        let (m, order) = (env.m, Order::PMD);
        let folio = good(pages.folio_alloc(order))?;
        let mut space = good(AddressSpace::new(pages))?;
        let now = || (FolioFields::of(m, folio), folio.ref_count(m));
        check_eq!(now(), (fields(order, 0, 0, 0, 0), 1), "new");

        good(space.map_folio_pages(AT, folio, 3, 4))?;
        check_eq!(now(), (fields(order, 4, 0, 4, 0), 5), "four pages");
        let again = AT.offset(PMD_SIZE);
        good(space.map_folio_pages(again, folio, 0, 512))?;
        check_eq!(now(), (fields(order, 516, 0, 512, 0), 517), "all pages");
        let counts: Vec<u32> = (0..8).map(|n| page_mapcount(m, folio.nth(n))).collect();
        check_eq!(counts, [1, 1, 1, 2, 2, 2, 2, 1], "map counts of pages");

        let whole = AT.offset(2 * PMD_SIZE);
        good(space.map_folio(whole, folio))?;
        let mapped = ENTIRELY_MAPPED + 512;
        check_eq!(now(), (fields(order, 517, 1, mapped, 0), 518), "whole");
        check_eq!(pages.folio_mapcount(folio.nth(77)), Some(517));
        check_eq!(
            space.pin_user_page(whole.offset(5 * PAGE_SIZE)),
            Ok(folio.nth(5))
        );
        check_eq!(now(), (fields(order, 517, 1, mapped, 1), 519), "pinned");
        check_eq!(pages.maybe_pinned(folio), Some(true));

        check_eq!(space.munmap(again.range(PMD_SIZE)), Ok(512));
        let mapped = ENTIRELY_MAPPED + 4;
        check_eq!(now(), (fields(order, 5, 1, mapped, 1), 7), "some pages");
        check_eq!(space.munmap(whole.range(PMD_SIZE)), Ok(1));
        check_eq!(now(), (fields(order, 4, 0, 4, 1), 6), "not whole");
        drop(space);
        check_eq!(now(), (fields(order, 0, 0, 0, 1), 2), "exit");
        check_eq!(pages.unpin(folio.nth(5)), Ok(false));
        check_eq!(pages.unpin(folio), Err(VmError::NotPinned(folio)));
        check_eq!(now(), (fields(order, 0, 0, 0, 0), 1), "unpinned");
        check_eq!(pages.put_page(folio), Ok(true));
        Ok(())
    })
}

/// A folio of order 0 is counted in its one page, pins by the bias; two address spaces
/// map one folio, and the last to go frees it.
pub fn spaces_share_a_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::Today, |pages| {
        let m = env.m;
        let small = good(pages.folio_alloc(Order::PAGE))?;
        let large = good(pages.folio_alloc(Order::of(4)))?;
        let mut one = good(AddressSpace::new(pages))?;
        let mut two = good(AddressSpace::new(pages))?;
        for space in [&mut one, &mut two] {
            good(space.map_folio_pages(AT, small, 0, 1))?;
            good(space.map_folio_pages(AT.offset(PAGE_SIZE), large, 0, 16))?;
        }
        check_eq!((page_mapcount(m, small), small.ref_count(m)), (2, 3));
        check_eq!(
            (FolioFields::of(m, large), large.ref_count(m)),
            (fields(Order::of(4), 32, 0, 16, 0), 33)
        );
        check_eq!(one.get_user_page(AT), Ok(small));
        check_eq!(one.pin_user_page(AT), Ok(small));
        check_eq!(small.ref_count(m), 4 + GUP_PIN_COUNTING_BIAS);
        check_eq!(pages.unpin(small), Ok(false));
        check_eq!(pages.put_page(small), Ok(false));
        // The owner lets go first.
        check_eq!(pages.put_page(small), Ok(false));
        check_eq!(pages.put_page(large), Ok(false));
        drop(one);
        check_eq!((page_mapcount(m, small), small.ref_count(m)), (1, 1));
        drop(two);
        check_eq!(pages.kind(small), PageKind::Unreferenced);
        check_eq!(pages.kind(large), PageKind::Unreferenced);
        Ok(())
    })
}

/// Every CPU maps, pins and unmaps one folio in address spaces of its own, all at once:
/// nothing is lost of any count.
pub fn cpus_share_a_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::Today, |pages| {
        let (m, order) = (env.m, Order::PMD);
        let folio = good(pages.folio_alloc(order))?;
        // Relaxed: read when all CPUs are done.
        let failed = AtomicU64::new(0);
        m.run_on_each(&|_| {
            for _ in 0..20 {
                m.touch_watchdog();
                if share(pages, folio).is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let found = (FolioFields::of(m, folio), folio.ref_count(m));
        let mapcounts = (0..8).map(|n| page_mapcount(m, folio.nth(n)));
        check_eq!(mapcounts.sum::<u32>(), 0, "map counts of pages");
        check_eq!(found, (fields(order, 0, 0, 0, 0), 1), "after all");
        check_eq!(failed.load(Ordering::Relaxed), 0, "rounds that failed");
        check_eq!(pages.put_page(folio), Ok(true));
        Ok(())
    })
}

fn share<M: Machine>(pages: &Pages<'_, M>, folio: Page) -> Result<(), VmError> {
    let mut space = AddressSpace::new(pages)?;
    space.map_folio_pages(AT, folio, 0, 8)?;
    let whole = AT.offset(PMD_SIZE);
    space.map_folio(whole, folio)?;
    let page = space.pin_user_page(whole)?;
    space.munmap(AT.range(PMD_SIZE))?;
    pages.unpin(page)?;
    Ok(())
}

fn hugetlb_by_one_entry<M: Machine>(env: &Env<'_, M>, order: Order) -> Outcome {
    let h = env.hstate(order)?;
    with_hvo(env, true, || {
        grow_or_skip(env, h, 1)?;
        let pages = Pages::new(env.m, env.mm, Policy::NotAFolio(lab::rmap::Gup::Fail));
        let folio = good(pages.hugetlb_alloc(order))?;
        let (m, at) = (env.m, AT.offset(PUD_SIZE));
        let now = || (FolioFields::of(m, folio), folio.ref_count(m));
        let mut space = good(AddressSpace::new(&pages))?;
        good(space.map_folio(at, folio))?;
        // A hugetlb folio has no use for the count of pages.
        check_eq!(now(), (fields(order, 1, 1, 0, 0), 2), "mapped");
        let last = order.pages() - 1;
        let inside = at.offset(last * PAGE_SIZE);
        check_eq!(space.vm_normal_folio(inside), Some(folio));
        check_eq!(space.pin_user_page(inside), Ok(folio.nth(last)));
        check_eq!(now(), (fields(order, 1, 1, 0, 1), 3), "pinned");
        let by_pages = space.map_folio_pages(AT, folio, 0, 1);
        check_eq!(by_pages, Err(VmError::WrongKind(folio, PageKind::Hugetlb)));
        let inserted = space.vm_insert_pages(AT, &[folio.nth(1)]);
        check_eq!(
            inserted,
            Err(VmError::WrongKind(folio.nth(1), PageKind::Hugetlb))
        );
        check_eq!(space.tables(), 2 + u64::from(order == Order::PMD), "tables");
        drop(space);
        check_eq!(pages.unpin(folio.nth(last)), Ok(false));
        check_eq!(now(), (fields(order, 0, 0, 0, 0), 1), "unmapped");
        let backing = env.backing();
        if order == Order::PMD {
            // The last reference need not be that of one who knows of mappings.
            check!(page::folio_try_get(m, folio));
            check_eq!(pages.put_page(folio), Ok(false));
            env.mm.hugetlb.put(m, backing, h, folio);
        } else {
            check_eq!(pages.put_page(folio), Ok(true));
        }
        // In its pool it is as if it had never been mapped.
        let tail = folio.nth(1).record(m);
        check_eq!((tail[2], tail[3], tail[4]), (0, 0, 0), "fields in the pool");
        check_eq!(env.mm.hugetlb.shrink(m, backing, h, None, 1), 1);
        Ok(())
    })
}

/// A folded hugetlb folio of 2 MiB is mapped by one entry, pinned, and back in its pool.
pub fn hugetlb_folios_by_one_entry_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hugetlb_by_one_entry(env, Order::PMD)
}

/// The same for 1 GiB.
pub fn hugetlb_folios_by_one_entry_1g<M: Machine>(env: &Env<'_, M>) -> Outcome {
    hugetlb_by_one_entry(env, Order::PUD)
}

/// The fields lie in the frame of memmap that a fold leaves alone, and stay writable.
/// Pages of their own have no map counts then, so mapping by pages is refused.
pub fn folded_folios_keep_their_fields<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let pages = Pages::new(env.m, env.mm, Policy::Today);
    let (m, order) = (env.m, Order::PMD);
    let folio = good(pages.folio_alloc(order))?;
    folio.set_ref_count(m, 0);
    env.fold(folio, order)?;
    folio.set_ref_count(m, 1);
    check_eq!(
        FolioFields::of(m, folio),
        fields(order, 0, 0, 0, 0),
        "folded"
    );
    let mut space = good(AddressSpace::new(&pages))?;
    let by_pages = space.map_folio_pages(AT, folio, 100, 1);
    check_eq!(by_pages, Err(VmError::Folded(folio)));
    good(space.map_folio(AT, folio))?;
    check_eq!(
        FolioFields::of(m, folio),
        fields(order, 1, 1, ENTIRELY_MAPPED, 0)
    );
    check_eq!(
        space.pin_user_page(AT.offset(100 * PAGE_SIZE)),
        Ok(folio.nth(100))
    );
    check_eq!(pages.unpin(folio.nth(100)), Ok(false));
    drop(space);
    let freed = pages.put_page(folio);
    check!(
        matches!(freed, Err(VmError::Bad(BadPage { page, .. })) if page == folio),
        "freed while folded: {freed:?}"
    );
    env.unfold(folio, order)?;
    folio.set_ref_count(m, 1);
    check_eq!(pages.put_page(folio), Ok(true));
    Ok(())
}

/// Tables are made for a mapping and go with it, also if the mapping comes to nothing.
pub fn tables_come_and_go<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::Today, |pages| {
        let folio = good(pages.folio_alloc(Order::PMD))?;
        let mut space = good(AddressSpace::new(pages))?;
        check_eq!(space.tables(), 1);
        // Three tables below the top one, then one more, then two more.
        let far = AT.offset(4 * PUD_SIZE);
        for (at, tables) in [(AT, 4), (AT.offset(PMD_SIZE), 5), (far, 7)] {
            good(space.map_folio_pages(at, folio, 7, 1))?;
            check_eq!(space.tables(), tables, "tables with {at:?}");
        }
        check_eq!(space.leaves(AT.range(5 * PUD_SIZE)).count(), 3);
        // One call, three tables of the lowest level: each goes.
        check_eq!(space.munmap(AT.range(5 * PUD_SIZE)), Ok(3));
        check_eq!(space.tables(), 1, "tables with nothing mapped");
        good(space.map_folio(AT, folio))?;
        check_eq!(space.tables(), 3, "an entry of 2 MiB where pages were");
        check_eq!(
            space.map_folio_pages(AT, folio, 0, 1),
            Err(VmError::Occupied(AT))
        );
        check_eq!(space.munmap(AT.range(PMD_SIZE)), Ok(1));
        drop(space);
        check_eq!(pages.put_page(folio), Ok(true));
        Ok(())
    })
}

/// smaps, `folio_referenced` and a walk over frame numbers meet every kind and take each
/// for what it is.
pub fn walkers_meet_every_kind<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(
        env,
        Policy::NotAFolio(lab::rmap::Gup::PlainReference),
        |pages| {
            let order = Order::of(3);
            let folio = good(pages.folio_alloc(order))?;
            let compound = good(pages.alloc_pages(order, Gfp::COMP))?;
            let bare = good(pages.alloc_pages(Order::PAGE, Gfp::COMP))?;
            let slab = good(pages.slab_alloc(order))?;
            let mut space = good(AddressSpace::new(pages))?;
            let mut all: Vec<Page> = (0..8).map(|n| compound.nth(n)).collect();
            all.push(bare);
            good(space.map_folio_pages(AT, folio, 0, 8))?;
            good(space.vm_insert_pages(AT.offset(PMD_SIZE), &all))?;
            let twice = AT.offset(2 * PMD_SIZE);
            good(space.map_folio_pages(twice, folio, 0, 2))?;
            let memmap = pages.memmap();
            let special = AT.offset(3 * PMD_SIZE);
            good(space.remap_pfn_range(special, memmap.pfn(slab), 8))?;

            let smaps = space.smaps(AT.range(PUD_SIZE));
            let of = |kind| smaps.kinds.of(kind);
            check_eq!(
                (
                    of(PageKind::Folio),
                    of(PageKind::Compound),
                    of(PageKind::Bare)
                ),
                (10, 8, 1)
            );
            check_eq!(smaps.kinds.total(), 19, "resident");
            check_eq!((smaps.private, smaps.shared), (6, 4), "private, shared");
            check_eq!(
                (smaps.uncounted, smaps.special),
                (9, 8),
                "uncounted, special"
            );

            // All used once; then only what is used again; what is no folio, never.
            let whole = AT.range(PUD_SIZE);
            check_eq!(space.folio_referenced(folio.nth(5), whole), 10);
            check_eq!(space.folio_referenced(folio, whole), 0, "used, twice");
            check_eq!(space.folio_referenced(compound, whole), 0, "no folio");
            let young = space
                .leaves(whole)
                .filter(|leaf| leaf.pte.flags().contains(mm::paging::PteFlags::ACCESSED));
            check_eq!(young.count(), 17, "still young");

            let count = |page: Page, order: Order| {
                let first = memmap.pfn(page);
                pages.count_kinds(PfnRange::new(first, first.offset(order.pages())))
            };
            check_eq!(count(folio, order).of(PageKind::Folio), 8);
            check_eq!(count(compound, order).of(PageKind::Compound), 8);
            check_eq!(count(slab, order).of(PageKind::Slab), 8);
            check_eq!(count(bare, Order::PAGE).of(PageKind::Bare), 1);
            let root = memmap.page(space.root());
            check_eq!(count(root, Order::PAGE).of(PageKind::Table), 1);
            let live = memmap.page(env.m.root());
            check_eq!(pages.kind(live), PageKind::Reserved);
            let held = env.frame_of(live);
            check!(
                held.is_some_and(|frame| {
                    let kind = pages.kind(memmap.page(frame));
                    matches!(kind, PageKind::Memmap | PageKind::Reserved)
                }),
                "a frame of memmap"
            );
            let inserted = space.vm_insert_pages(AT.offset(PUD_SIZE), &[slab]);
            check_eq!(inserted, Err(VmError::WrongKind(slab, PageKind::Slab)));
            let inserted = space.vm_insert_pages(AT.offset(PUD_SIZE), &[root]);
            check_eq!(inserted, Err(VmError::WrongKind(root, PageKind::Table)));
            drop(space);
            for page in [folio, compound, bare, slab] {
                check_eq!(pages.put_page(page), Ok(true));
            }
            check_eq!(count(slab, order).of(PageKind::Unreferenced), 8);
            Ok(())
        },
    )
}

/// Each refusal names what was wrong, and changes nothing.
pub fn bad_requests_are_named<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::Today, |pages| {
        let m = env.m;
        let folio = good(pages.folio_alloc(Order::PMD))?;
        let small = good(pages.folio_alloc(Order::of(2)))?;
        // Nobody has a reference on the second page of a run.
        let run = good(pages.alloc_pages(Order::of(1), Gfp::empty()))?;
        let gone = run.nth(1);
        let mut space = good(AddressSpace::new(pages))?;
        good(space.map_folio(AT, folio))?;
        let before = (folio.ref_count(m), small.ref_count(m), space.tables());
        let odd = AT.offset(PAGE_SIZE / 2);
        let free = AT.offset(PUD_SIZE);
        let kernel = VirtAddr::new(0xffff_8880_0000_0000);
        let whole = |space: &mut AddressSpace<'_, M>, at, page| space.map_folio(at, page);
        let one = |space: &mut AddressSpace<'_, M>, at, page| space.map_folio_pages(at, page, 0, 1);
        let refused = [
            (
                whole(&mut space, free.offset(PAGE_SIZE), folio),
                VmError::Misaligned(free.offset(PAGE_SIZE), PMD_SIZE),
            ),
            (
                whole(&mut space, free, small),
                VmError::NoEntryOfSize(small, Order::of(2)),
            ),
            (
                whole(&mut space, free, folio.nth(1)),
                VmError::NotAHead(folio.nth(1)),
            ),
            (whole(&mut space, AT, folio), VmError::Occupied(AT)),
            (
                one(&mut space, odd, small),
                VmError::Misaligned(odd, PAGE_SIZE),
            ),
            (one(&mut space, kernel, small), VmError::NotUser(kernel)),
            (one(&mut space, USER_END, small), VmError::NotUser(USER_END)),
            (one(&mut space, AT, small), VmError::Occupied(AT)),
            (
                one(&mut space, free, gone),
                VmError::WrongKind(gone, PageKind::Unreferenced),
            ),
            (
                space.map_folio_pages(free, small, 3, 2),
                VmError::OutOfFolio(small, 3, 2),
            ),
            (
                space.map_folio_pages(free, small, u64::MAX, 2),
                VmError::OutOfFolio(small, u64::MAX, 2),
            ),
            (
                space.vm_insert_pages(free, &[small, gone]),
                VmError::NoReference(gone),
            ),
            (
                space.munmap(span(odd, 1)).map(|_| ()),
                VmError::Misaligned(odd, PAGE_SIZE),
            ),
            (
                space.munmap(span(AT, 1)).map(|_| ()),
                VmError::CutsEntry(AT),
            ),
            (
                space.munmap(span(AT.offset(PAGE_SIZE), 600)).map(|_| ()),
                VmError::CutsEntry(AT),
            ),
            (
                space.munmap(span(kernel, 1)).map(|_| ()),
                VmError::NotUser(kernel),
            ),
            (
                space.pin_user_page(free).map(|_| ()),
                VmError::NotMapped(free),
            ),
            (pages.unpin(small).map(|_| ()), VmError::NotPinned(small)),
            (pages.put_page(gone).map(|_| ()), VmError::NoReference(gone)),
            (pages.get_page(gone).map(|_| ()), VmError::NoReference(gone)),
            (pages.split_page(small), VmError::CompoundRefused(small)),
            (pages.split_page(gone), VmError::NoReference(gone)),
        ];
        for (n, (found, expected)) in refused.into_iter().enumerate() {
            check_eq!(found, Err(expected), "request {n}");
        }
        // The second page finds the place taken: the first is unmapped again.
        let before_whole = AT.offset(0u64.wrapping_sub(PAGE_SIZE));
        let half = space.map_folio_pages(before_whole, small, 0, 2);
        check_eq!(half, Err(VmError::Occupied(AT)));
        check_eq!(space.vm_normal_page(before_whole), None);
        // A count that is nearly full takes no more.
        small.set_ref_count(m, i32::MAX as u32);
        let full = one(&mut space, free, small);
        small.set_ref_count(m, 1);
        check_eq!(full, Err(VmError::TooManyReferences(small)));
        let after = (folio.ref_count(m), small.ref_count(m), space.tables());
        check_eq!(after, before, "counts and tables");
        drop(space);
        check_eq!(pages.put_page(folio), Ok(true));
        check_eq!(pages.put_page(small), Ok(true));
        check_eq!(pages.put_page(run), Ok(true));
        Ok(())
    })
}

/// A count that is left when the last reference goes is found, by name, and the page is
/// not handed out again.
pub fn leaked_counts_are_bad_pages<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (m, order) = (env.m, Order::of(3));
    let before = env.snapshot();
    let pages = Pages::new(m, env.mm, Policy::Today);
    // Offset in the first tail, or in a page further on.
    let leaks = [
        (1, 16, "nonzero large_mapcount"),
        (1, 20, "nonzero nr_pages_mapped"),
        (1, 24, "nonzero entire_mapcount"),
        (1, 28, "nonzero pincount"),
        (1, 32, "nr_pages does not match the order"),
        (0, 48, "nonzero mapcount or page type"),
        (5, 48, "nonzero mapcount or page type"),
    ];
    for (n, (tail, offset, what)) in (1..).zip(leaks) {
        if tail > 1 && !page::PAGE_CHECKS {
            continue;
        }
        let folio = good(pages.folio_alloc(order))?;
        let at = folio.nth(tail).address().offset(offset);
        let was = m.fetch_add32(at, 1);
        let free = env.mm.nodes.total_free(m);
        let freed = pages.put_page(folio);
        let kept = env.mm.nodes.total_free(m) == free;
        let count = folio.ref_count(m);
        m.store32(at, was);
        folio.set_ref_count(m, 1);
        check_eq!(pages.put_page(folio), Ok(true), "mended");
        check!(
            matches!(freed, Err(VmError::Bad(bad)) if bad.what == what && bad.page == folio.nth(tail)),
            "{what} at page {tail}: {freed:?}"
        );
        check!(kept && count == 0, "a bad page was freed");
        check_eq!(pages.bad_pages(), n, "bad pages");
    }
    env.same_as(&before)
}

/// Every allocation that mapping needs, failing in turn: nothing is mapped, counted or
/// kept, and it works the next time.
pub fn fails_each_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    under(env, Policy::NotRmappable, |pages| {
        let m = env.m;
        let folio = good(pages.folio_alloc(Order::PMD))?;
        let block = good(pages.alloc_pages(Order::of(2), Gfp::COMP))?;
        let driver: Vec<Page> = (0..4).map(|n| block.nth(n)).collect();
        // Pages on both sides of the end of a lowest table: two of them.
        let edge = AT.offset(PMD_SIZE - 2 * PAGE_SIZE);
        let mut failures = 0;
        for nth in 0..10 {
            let before = (
                folio.ref_count(m),
                block.ref_count(m),
                FolioFields::of(m, folio),
                env.mm.nodes.total_free(m),
            );
            m.fail_nth(FailPoint::PageAlloc, Some(nth));
            let result = AddressSpace::new(pages).and_then(|mut space| {
                space.map_folio_pages(edge, folio, 0, 4)?;
                space.vm_insert_pages(edge.offset(PUD_SIZE), &driver)?;
                space.map_folio(AT.offset(2 * PUD_SIZE), folio)?;
                Ok(space.tables())
            });
            m.fail_nth(FailPoint::PageAlloc, None);
            let after = (
                folio.ref_count(m),
                block.ref_count(m),
                FolioFields::of(m, folio),
                env.mm.nodes.total_free(m),
            );
            check_eq!(after, before, "after allocation {nth} failed");
            match result {
                Err(VmError::NoMemory) => failures += 1,
                // The top table, one of 512 GiB, two and two lowest under one each, and
                // one for the entry of 2 MiB.
                Ok(tables) => check_eq!(tables, 9),
                Err(error) => fail!("allocation {nth}: {error}"),
            }
        }
        check_eq!(failures, 9, "each of the nine is needed");
        for order in [0, 3] {
            m.fail_nth(FailPoint::PageAlloc, Some(0));
            let failed = pages.folio_alloc(Order::of(order));
            m.fail_nth(FailPoint::PageAlloc, None);
            check_eq!(failed, Err(VmError::NoMemory));
        }
        check_eq!(pages.put_page(folio), Ok(true));
        check_eq!(pages.put_page(block), Ok(true));
        Ok(())
    })
}
