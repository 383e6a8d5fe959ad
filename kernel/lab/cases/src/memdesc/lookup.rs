//! From pages to descriptors, and references.

use ktest::{Outcome, Stop, check, check_eq};
use lab::memdesc::{self, Descriptor as _, MemdescBug, MemdescError, StructPage};
use mm::addr::Order;
use mm::machine::Machine;

use super::{World, each_size};
use suites::Env;

/// The value, or a failure that names the error.
pub(super) fn ok<T>(result: Result<T, MemdescError>) -> Result<T, Stop> {
    result.map_err(|error| Stop::failed(file!(), line!(), format_args!("{error}")))
}

/// A folio, a slab, a page table and a bare block, and free pages: each lookup finds its
/// own and is quiet about the others.
pub fn types_are_told_apart<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = Order::of(3);
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let file = ok(map.alloc_file_folio(m, w.nodes, order))?;
        let slab = ok(map.alloc_slab(m, w.nodes, order))?;
        let ptdesc = ok(map.alloc_ptdesc(m, w.nodes, Order::PAGE))?;
        let bare = ok(map.alloc_bare(m, w.nodes, order))?;
        w.check()?;
        let of = |found: mm::addr::Pfn| {
            let page = map.page(found);
            let load = |at| m.load64(at);
            // The plain functions, as a benchmark uses them, agree with the map's.
            let folio = memdesc::page_folio(page, load);
            let slab = memdesc::page_slab(page, load);
            let ptdesc = memdesc::page_ptdesc(page, load);
            let same = folio == map.page_folio(m, page)
                && slab == map.page_slab(m, page)
                && ptdesc == map.page_ptdesc(m, page);
            (folio, slab, ptdesc, same)
        };
        for n in 0..order.pages() {
            check_eq!(of(folio.pfn(m).offset(n)), (Some(folio), None, None, true));
            check_eq!(of(file.pfn(m).offset(n)), (Some(file), None, None, true));
            check_eq!(of(slab.pfn(m).offset(n)), (None, Some(slab), None, true));
            check_eq!(of(bare.pfn(m).offset(n)), (None, None, None, true));
        }
        check_eq!(of(ptdesc.pfn(m)), (None, None, Some(ptdesc), true));
        let last = mm::addr::Pfn::new(map.range().end.as_u64() - 1);
        check_eq!(of(last), (None, None, None, true), "a free page");
        check_eq!((folio.order(m), slab.order(m)), (order, order));
        check_eq!(
            (folio.ref_count(m), slab.ref_count(m), bare.ref_count(m)),
            (1, 0, 1)
        );
        folio.set_index(m, 7);
        folio.set_mapping(m, 0x10);
        folio.set_private(m, 9);
        check_eq!(
            (folio.index(m), folio.mapping(m), folio.private(m)),
            (7, 0x10, 9)
        );
        check_eq!((file.index(m), file.mapping(m), file.private(m)), (0, 0, 0));
        map.free_slab(m, w.nodes, slab);
        map.free_ptdesc(m, w.nodes, ptdesc);
        check!(map.folio_put(m, w.nodes, folio));
        check!(map.folio_put(m, w.nodes, file));
        check_eq!(
            map.put_page(m, w.nodes, map.page(bare.pfn(m).offset(5))),
            Ok(true)
        );
        Ok(())
    }
    each_size!(env, Order::of(10), case)
}

/// `compound_head` leads to the first page of a bare block, and is refused, with a
/// sentence that says so, for what has a better descriptor.
pub fn compound_head_is_for_bare_pages<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let bare = ok(map.alloc_bare(m, w.nodes, Order::of(2)))?;
        let folio = ok(map.alloc_folio(m, w.nodes, Order::of(2)))?;
        let slab = ok(map.alloc_slab(m, w.nodes, Order::PAGE))?;
        let head = map.page(bare.pfn(m));
        for n in 0..4 {
            check_eq!(map.try_compound_head(m, head.nth(n)), Ok(head));
            check_eq!(map.compound_head(m, head.nth(n)), head);
        }
        let free = map.page(mm::addr::Pfn::new(map.range().end.as_u64() - 1));
        check_eq!(map.try_compound_head(m, free), Ok(free));
        for page in [
            map.page(folio.pfn(m)),
            map.page(folio.pfn(m)).nth(3),
            map.page(slab.pfn(m)),
        ] {
            let word = map.page_memdesc(m, page);
            let page_at = page.address();
            let bug = MemdescBug::CompoundHead {
                page: page_at,
                word,
            };
            check_eq!(map.try_compound_head(m, page), Err(bug));
        }
        map.free_slab(m, w.nodes, slab);
        map.folio_put(m, w.nodes, folio);
        check_eq!(map.put_page(m, w.nodes, head), Ok(true));
        Ok(())
    }
    each_size!(env, Order::of(10), case)
}

/// A reference put or taken by any page of a folio is the folio's; the last one frees
/// it. Slabs and free pages have none.
pub fn put_redirects_to_the_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let folio = ok(map.alloc_folio(m, w.nodes, Order::of(4)))?;
        let slab = ok(map.alloc_slab(m, w.nodes, Order::of(1)))?;
        let page = map.page(folio.pfn(m));
        check_eq!(map.get_page(m, page.nth(15)), Ok(()));
        map.folio_get(m, folio);
        check_eq!(map.folio_try_get(m, w.nodes, page.nth(7)), Some(folio));
        check_eq!(folio.ref_count(m), 4);
        check_eq!(map.put_page(m, w.nodes, page.nth(9)), Ok(false));
        check_eq!(map.put_page(m, w.nodes, page), Ok(false));
        check_eq!(map.put_page(m, w.nodes, page.nth(1)), Ok(false));
        check_eq!(map.put_page(m, w.nodes, page.nth(15)), Ok(true));
        check_eq!(map.page_folio(m, page), None);
        check_eq!(map.folio_try_get(m, w.nodes, page), None);
        for page in [page, map.page(slab.pfn(m))] {
            let word = map.page_memdesc(m, page);
            let bug = MemdescBug::NoCount {
                page: page.address(),
                word,
            };
            check_eq!(map.put_page(m, w.nodes, page), Err(bug));
            check_eq!(map.get_page(m, page), Err(bug));
        }
        map.free_slab(m, w.nodes, slab);
        Ok(())
    }
    each_size!(env, Order::of(10), case)
}

/// A descriptor seen in a page that has been freed since, and serves another folio by
/// now, gives no reference, and that folio's count is what it was (MD-4).
pub fn reused_descriptor_is_refused<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let first = ok(map.alloc_folio(m, w.nodes, Order::PAGE))?;
        let page = map.page(first.pfn(m));
        let seen = map.page_memdesc(m, page);
        let bare = {
            // The page goes to somebody else, the descriptor to another page.
            map.folio_put(m, w.nodes, first);
            ok(map.alloc_bare(m, w.nodes, Order::PAGE))?
        };
        let second = ok(map.alloc_folio(m, w.nodes, Order::PAGE))?;
        check_eq!(
            (second, bare.pfn(m)),
            (first, map.pfn(page)),
            "the descriptor is used again"
        );
        check_eq!(map.folio_try_get_seen(m, w.nodes, page, seen), None);
        check_eq!(second.ref_count(m), 1);
        let own = map.page(second.pfn(m));
        check_eq!(map.folio_try_get_seen(m, w.nodes, own, seen), Some(second));
        check_eq!(map.put_page(m, w.nodes, own), Ok(false));
        check_eq!(map.put_page(m, w.nodes, own), Ok(true));
        check_eq!(map.put_page(m, w.nodes, page), Ok(true));
        Ok(())
    }
    each_size!(env, Order::of(9), case)
}
