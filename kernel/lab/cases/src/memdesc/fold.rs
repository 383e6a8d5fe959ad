//! Folding in the memdesc world.

use ktest::{Outcome, check, check_eq};
use lab::memdesc::{Descriptor as _, MemdescError, PageFlags, StructPage};
use mm::addr::{Order, Pfn};
use mm::machine::{FailPoint, Fault, Machine, Probe};

use super::lookup::ok;
use super::{World, each_size};
use suites::Env;

/// Frames of struct pages that a block of `order` has unfolded.
fn frames_of<L: StructPage>(order: Order) -> u64 {
    order.pages() * L::SIZE / 4096
}

/// Folded, every page still finds its folio, one frame is left, and references come and
/// go; unfolded, all is as before. In the middle of a map, at its start and at its end.
pub fn round_trips<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let before = map.totals(m);
        for order in [L::MIN_ORDER, Order::of(11), Order::of(12)] {
            let folio = ok(map.alloc_file_folio(m, w.nodes, order))?;
            let other = ok(map.alloc_slab(m, w.nodes, order))?;
            map.folio_get(m, folio);
            let saved = frames_of::<L>(order) - 1;
            check_eq!(map.fold(m, w.nodes, folio), Ok(saved));
            check_eq!(map.fold(m, w.nodes, folio), Ok(0), "again");
            check_eq!(map.fold(m, w.nodes, other), Ok(saved), "a slab");
            let totals = map.totals(m);
            check_eq!((totals.saved, totals.folded), (2 * saved, 2));
            check_eq!(before.frames - totals.frames, 2 * saved);
            w.check()?;
            for pfn in folio.pfn(m).block(order).iter() {
                check_eq!(map.page_folio(m, map.page(pfn)), Some(folio));
            }
            let last = map.page(folio.pfn(m).offset(order.pages() - 1));
            check_eq!(map.folio_try_get(m, w.nodes, last), Some(folio));
            check_eq!(map.put_page(m, w.nodes, last), Ok(false));
            check_eq!(map.unfold(m, w.nodes, other), Ok(()));
            check_eq!(map.unfold(m, w.nodes, folio), Ok(()));
            check_eq!(map.unfold(m, w.nodes, folio), Ok(()), "again");
            w.check()?;
            check_eq!(map.totals(m).frames, before.frames);
            map.free_slab(m, w.nodes, other);
            check!(!map.folio_put(m, w.nodes, folio));
            check!(map.folio_put(m, w.nodes, folio));
            w.check()?;
        }
        let least = L::MIN_ORDER;
        let Some(order) = least.down() else {
            return Ok(());
        };
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let error = MemdescError::OrderTooSmall { order, least };
        check_eq!(map.fold(m, w.nodes, folio), Err(error));
        map.folio_put(m, w.nodes, folio);
        Ok(())
    }
    each_size!(env, Order::of(13), case)
}

/// The processor refuses to write any struct page of a folded folio, head included, and
/// lets itself be read.
pub fn shared_frame_is_read_only<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = L::MIN_ORDER;
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let page = |n| map.page(folio.pfn(m).offset(n)).memdesc_address();
        let pages = [0, 1, L::PER_FRAME, order.pages() - 1];
        for n in pages {
            check_eq!(m.probe(page(n), Probe::Store), Ok(()), "before");
        }
        check_eq!(map.fold(m, w.nodes, folio), Ok(1));
        for n in pages {
            let (at, code) = (page(n), Fault::WRITE_TO_READ_ONLY);
            check_eq!(m.probe(at, Probe::Load), Ok(()));
            for how in [Probe::Store, Probe::CmpxchgFailing, Probe::XaddZero] {
                check_eq!(m.probe(at, how), Err(Fault { at, code }));
            }
        }
        check_eq!(map.unfold(m, w.nodes, folio), Ok(()));
        for n in pages {
            check_eq!(m.probe(page(n), Probe::Store), Ok(()), "after");
        }
        map.folio_put(m, w.nodes, folio);
        Ok(())
    }
    each_size!(env, Order::of(11), case)
}

/// One broken page and one exclusive page take their frames out of the sharing, and
/// only those; folding again takes back what has become like the others.
pub fn flags_break_the_sharing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = Order::of(12);
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let all = frames_of::<L>(order) - 1;
        check_eq!(map.fold(m, w.nodes, folio), Ok(all));
        let frame = |n: u64| map.page(folio.pfn(m).offset(n * L::PER_FRAME + 3));
        let (broken, exclusive) = (frame(0), frame(2));
        check_eq!(map.set_anon_exclusive(m, w.nodes, exclusive, true), Ok(()));
        w.check()?;
        check_eq!(map.totals(m).saved, all - 1);
        check_eq!(map.set_hwpoison(m, w.nodes, broken), Ok(()));
        w.check()?;
        check_eq!((map.totals(m).saved, map.totals(m).unshared), (all - 2, 2));
        // In a frame that is its own already: no change.
        check_eq!(
            map.set_anon_exclusive(m, w.nodes, exclusive.nth(1), true),
            Ok(())
        );
        check_eq!(map.totals(m).unshared, 2);
        for pfn in folio.pfn(m).block(order).iter() {
            let page = map.page(pfn);
            let flags = map.page_flags(m, page);
            check_eq!(map.page_folio(m, page), Some(folio));
            check_eq!(flags.node(), map.node());
            check_eq!(flags.contains(PageFlags::HWPOISON), page == broken);
            let is = page == exclusive || page == exclusive.nth(1);
            check_eq!(flags.contains(PageFlags::ANON_EXCLUSIVE), is, "{page:?}");
        }
        for page in [exclusive, exclusive.nth(1)] {
            check_eq!(map.fold(m, w.nodes, folio), Ok(0));
            check_eq!(map.set_anon_exclusive(m, w.nodes, page, false), Ok(()));
        }
        check_eq!(map.fold(m, w.nodes, folio), Ok(1));
        w.check()?;
        // The broken page stays behind when the folio goes.
        check!(map.folio_put(m, w.nodes, folio));
        w.check()?;
        check_eq!(map.audit(m).withheld, 1);
        check_eq!(
            map.alloc_folio(m, w.nodes, order),
            Err(MemdescError::NoSpace(order))
        );
        check_eq!(map.page_folio(m, broken), None);
        let half = ok(map.alloc_folio(m, w.nodes, Order::of(11)))?;
        check_eq!(half.pfn(m), folio_start(map.pfn(broken)).offset(1 << 11));
        map.folio_put(m, w.nodes, half);
        Ok(())
    }
    each_size!(env, Order::of(12), case)
}

fn folio_start(pfn: Pfn) -> Pfn {
    pfn.align_down(Order::of(12))
}

/// A folded folio is freed, and allocated again whole, without a frame: its memmap stays
/// folded in between. To allocate less of it takes memory, and without that fails alone.
pub fn free_needs_no_memory<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = Order::of(11);
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        ok(map.fold(m, w.nodes, folio))?;
        let folded = map.totals(m);
        m.fail_nth(FailPoint::PageAlloc, Some(0));
        let freed = map.folio_put(m, w.nodes, folio);
        w.check()?;
        let whole = map.alloc_file_folio(m, w.nodes, order);
        let second = ok(whole)?;
        w.check()?;
        let now = map.totals(m);
        map.folio_put(m, w.nodes, second);
        let small = map.alloc_folio(m, w.nodes, Order::PAGE);
        m.fail_nth(FailPoint::PageAlloc, None);
        check!(freed);
        check_eq!((now.saved, now.folded), (folded.saved, folded.folded));
        check_eq!(now.flushes, folded.flushes);
        check_eq!(small, Err(MemdescError::NoMemory));
        w.check()?;
        let small = ok(map.alloc_folio(m, w.nodes, Order::PAGE))?;
        check_eq!((map.totals(m).saved, map.totals(m).folded), (0, 0));
        map.folio_put(m, w.nodes, small);
        Ok(())
    }
    each_size!(env, Order::of(11), case)
}

/// Each store of an entry fails once; the folio is as it was, whole or folded but for
/// one page.
pub fn fails_each_store<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = Order::of(11);
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let before = map.totals(m);
        let frames = frames_of::<L>(order);
        for nth in 0..frames {
            m.fail_nth(FailPoint::VmemmapPte, Some(nth));
            let result = map.fold(m, w.nodes, folio);
            m.fail_nth(FailPoint::VmemmapPte, None);
            check_eq!(result, Err(MemdescError::Injected), "store {nth}");
            w.check()?;
            let now = map.totals(m);
            check_eq!((now.frames, now.saved, now.folded), (before.frames, 0, 0));
            let last = map.page(folio.pfn(m).offset(order.pages() - 1));
            check_eq!(m.probe(last.memdesc_address(), Probe::Store), Ok(()));
        }
        check_eq!(map.fold(m, w.nodes, folio), Ok(frames - 1));
        map.folio_put(m, w.nodes, folio);
        Ok(())
    }
    each_size!(env, Order::of(11), case)
}

/// Every allocation fails once: of a map, a descriptor, an unfold, an unshared page.
/// What failed changed nothing.
pub fn fails_each_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (m, map) = (w.m, &w.map);
        let order = Order::of(11);
        let failing = |nth| m.fail_nth(FailPoint::PageAlloc, Some(nth));
        let fine = || m.fail_nth(FailPoint::PageAlloc, None);
        failing(0);
        let folio = map.alloc_folio(m, w.nodes, order);
        fine();
        check_eq!(folio, Err(MemdescError::NoMemory), "a descriptor");
        let folio = ok(map.alloc_folio(m, w.nodes, order))?;
        let frames = frames_of::<L>(order);
        ok(map.fold(m, w.nodes, folio))?;
        let before = map.totals(m);
        for nth in 0..frames - 1 {
            failing(nth);
            let result = map.unfold(m, w.nodes, folio);
            fine();
            check_eq!(result, Err(MemdescError::NoMemory), "frame {nth}");
            check_eq!(map.totals(m), before);
            w.check()?;
        }
        failing(0);
        let page = map.page(folio.pfn(m).offset(5));
        let exclusive = map.set_anon_exclusive(m, w.nodes, page, true);
        let poison = map.set_hwpoison(m, w.nodes, page);
        fine();
        check_eq!(exclusive, Err(MemdescError::NoMemory), "AnonExclusive");
        // Only the first allocation failed.
        check_eq!(poison, Ok(()));
        w.check()?;
        check_eq!(map.unfold(m, w.nodes, folio), Ok(()));
        map.folio_put(m, w.nodes, folio);
        Ok(())
    }
    each_size!(env, Order::of(11), case)
}
