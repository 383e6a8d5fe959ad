//! Broken frames, above all those whose struct pages are folded (T11, T12), with both ways to
//! note them.

use alloc::vec;
use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::frames::Placement;
use mm::hugetlb::{FaultError, Hstate, MapFlags, ReadError, Slot};
use mm::hwpoison::{Handled, PoisonError, PoisonPolicy};
use mm::machine::{FailPoint, Level, Machine};
use mm::page::encoding::Sharing;
use mm::page::{self, Flags, HEAD_PAGES, Page, has_hwpoisoned};
use mm::paging::{self, Level as PageLevel, PteFlags};
use mm::vmemmap;

use crate::hugetlb::{grow_or_skip, with_hvo};
use crate::{Env, sweep, vmemmap_audit};

/// The case once with each policy, HVO on, pools empty; nothing is left behind.
pub(crate) fn each_policy<M: Machine>(
    env: &Env<'_, M>,
    mut case: impl FnMut(PoisonPolicy) -> Outcome,
) -> Outcome {
    let was = env.mm.hwpoison.policy();
    let broken = env.mm.hwpoison.pages();
    let before = env.snapshot();
    // Where the tails show the head's frame no page of them can be copied.
    let count = if page::SHARES_ACROSS_NODE { 2 } else { 1 };
    let outcome = [PoisonPolicy::List, PoisonPolicy::CopyOnWrite]
        .into_iter()
        .take(count)
        .try_for_each(|policy| {
            env.mm.hwpoison.set_policy(policy);
            with_hvo(env, true, || case(policy))
        });
    env.mm.hwpoison.set_policy(was);
    outcome?;
    check_eq!(env.mm.hwpoison.pages(), broken, "broken frames left");
    check_eq!(env.mm.hugetlb.raw_hwp_frames(env.m), 0, "frames of lists");
    env.same_as(&before)
}

/// Audits the machine, where there is memory for it: in the middle of a case that has taken all,
/// a large machine has none for the bitmap. The audit behind the last suite always is.
fn audited<M: Machine>(env: &Env<'_, M>, when: &str) -> Outcome {
    let report = match vmemmap_audit::run(env) {
        Err(Stop::Skipped(_)) => return Ok(()),
        report => report?,
    };
    check!(report.is_ok(), "{when}: {report}");
    Ok(())
}

fn is_broken<M: Machine>(env: &Env<'_, M>, pfn: Pfn) -> bool {
    let memmap = env.mm.vmemmap.memmap();
    let page = env.page(pfn);
    env.mm.hugetlb.is_raw_hwpoison(env.m, memmap, page)
}

/// Pages of the block of `order` at `first` that count as broken, by number.
fn broken_in<M: Machine>(env: &Env<'_, M>, first: Pfn, order: Order) -> Vec<u64> {
    (0..order.pages())
        .filter(|n| is_broken(env, first.offset(*n)))
        .collect()
}

/// A new folio, with a count of one, and its first frame.
fn take_new<M: Machine>(env: &Env<'_, M>, h: &Hstate) -> Result<(Page, Pfn), Stop> {
    grow_or_skip(env, h, 1)?;
    let Some(head) = env.mm.nodes.online().find_map(|node| h.take(env.m, node)) else {
        fail!("no folio in any pool");
    };
    Ok((head, env.mm.vmemmap.memmap().pfn(head)))
}

/// A new folio that is free.
fn new_free<M: Machine>(env: &Env<'_, M>, h: &Hstate) -> Result<(Page, Pfn), Stop> {
    let (head, first) = take_new(env, h)?;
    h.put(env.m, head);
    check!(
        vmemmap::is_optimized(env.m, head),
        "the folio is not folded"
    );
    Ok((head, first))
}

fn unpoison<M: Machine>(env: &Env<'_, M>, pfn: Pfn) -> Outcome {
    check_eq!(env.mm.unpoison_memory(env.m, pfn), Ok(()), "{pfn:?}");
    Ok(())
}

/// Fails if any allocation hands out a frame of `block` that is broken: takes all memory.
fn nobody_gets<M: Machine>(env: &Env<'_, M>, pfn: Pfn) -> Outcome {
    let mut held = env.take_blocks();
    held.extend(core::iter::from_fn(|| {
        Some((env.block(Order::PAGE).ok()?, Order::PAGE))
    }));
    let got = held
        .iter()
        .any(|(block, order)| block.block(*order).contains(pfn));
    drop(held);
    check!(!got, "{pfn:?} was handed out");
    Ok(())
}

/// A free page leaves the buddy allocator, alone, and comes back when it is whole.
pub fn free_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let before = env.snapshot();
    let order = Order::of(5);
    let block = env.block(order)?;
    env.free(block, order);
    for (how, n) in [("hard", 0), ("soft", 13), ("hard", 31)] {
        let pfn = block.offset(n);
        let free = env.mm.nodes.total_free(env.m);
        let handled = if how == "hard" {
            env.mm.memory_failure(env.m, pfn)
        } else {
            env.mm.soft_offline_page(env.m, pfn)
        };
        check_eq!(handled, Ok(Handled::Recovered), "{how}, page {n}");
        check_eq!(env.mm.nodes.total_free(env.m), free - 1, "{how}, page {n}");
        check!(is_broken(env, pfn), "page {n}");
        audited(env, how)?;
        nobody_gets(env, pfn)?;
        let again = env.mm.memory_failure(env.m, pfn);
        check_eq!(again, Err(PoisonError::AlreadyPoisoned(pfn)));
        let again = env.mm.soft_offline_page(env.m, pfn);
        check_eq!(again, Ok(Handled::Already));
        unpoison(env, pfn)?;
        let again = env.mm.unpoison_memory(env.m, pfn);
        check_eq!(again, Err(PoisonError::NotPoisoned(pfn)));
        env.same_as(&before)?;
    }
    let used = env.block(Order::PAGE)?;
    for mended in [true, false] {
        let handled = env.mm.memory_failure(env.m, used);
        check_eq!(handled, Ok(Handled::Ignored), "a page of the kernel");
        let again = env.mm.memory_failure(env.m, used);
        check_eq!(again, Err(PoisonError::AlreadyPoisoned(used)));
        audited(env, "in use")?;
        if mended {
            unpoison(env, used)?;
        }
    }
    env.free(used, Order::PAGE);
    audited(env, "given back")?;
    nobody_gets(env, used)?;
    unpoison(env, used)?;
    let beyond = Pfn::new(1 << 38);
    let none = env.mm.memory_failure(env.m, beyond);
    check_eq!(none, Err(PoisonError::NoRam(beyond)));
    audited(env, "after")?;
    env.same_as(&before)
}

/// What is left of a dissolved folio: one frame is broken, the others are free, the struct
/// pages are all there.
fn dissolved<M: Machine>(
    env: &Env<'_, M>,
    h: &Hstate,
    first: Pfn,
    broken: &[u64],
    was: (u64, u64),
) -> Outcome {
    let order = h.order();
    check_eq!(h.total(env.m).nr, was.0 - 1, "pages in the pools");
    check_eq!(env.totals().folded, was.1 - 1, "folded blocks");
    for n in 0..order.pages() {
        let page = env.page(first.offset(n));
        let flags = page.flags(env.m);
        let bad = flags.contains(Flags::HWPOISON);
        check_eq!(bad, broken.contains(&n), "page {n}: {:x}", flags.bits());
        check!(!page.is_tail(env.m), "page {n} is a tail still");
    }
    audited(env, "dissolved")
}

/// T11: soft offlining one page of a free folded folio costs the pool exactly that folio, and
/// the machine exactly that frame.
fn soft_offline<M: Machine>(env: &Env<'_, M>, order: Order) -> Outcome {
    let h = env.hstate(order)?;
    each_policy(env, |_| {
        for n in [0, 1, HEAD_PAGES, order.pages() / 2 + 1, order.pages() - 1] {
            let before = env.snapshot();
            let (_, first) = new_free(env, h)?;
            let was = (h.total(env.m).nr, env.totals().folded);
            let pfn = first.offset(n);
            let handled = env.mm.soft_offline_page(env.m, pfn);
            check_eq!(handled, Ok(Handled::Recovered), "page {n}");
            dissolved(env, h, first, &[n], was)?;
            unpoison(env, pfn)?;
            env.same_as(&before)?;
        }
        Ok(())
    })
}

/// T11 for 2 MiB.
pub fn soft_offline_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    soft_offline(env, Order::PMD)
}

/// T11 for 1 GiB.
pub fn soft_offline_1g<M: Machine>(env: &Env<'_, M>) -> Outcome {
    soft_offline(env, Order::PUD)
}

/// T11: with the switch off nothing happens.
pub fn soft_offline_switched_off<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |_| {
        let (_, first) = new_free(env, h)?;
        let (before, was) = (env.snapshot(), h.total(env.m));
        env.mm.hwpoison.enable_soft_offline(false);
        let refused = env.mm.soft_offline_page(env.m, first.offset(77));
        env.mm.hwpoison.enable_soft_offline(true);
        check_eq!(refused, Err(PoisonError::Disabled));
        check_eq!(h.total(env.m), was);
        check_eq!(broken_in(env, first, Order::PMD), []);
        env.same_as(&before)?;
        remove(env, h)
    })
}

fn remove<M: Machine>(env: &Env<'_, M>, h: &Hstate) -> Outcome {
    let removed = env.mm.hugetlb.shrink(env.m, env.backing(), h, None, 1);
    check_eq!(removed, 1, "folios removed");
    Ok(())
}

/// T11: no memory for the struct pages, whichever request fails: nothing happens.
pub fn soft_offline_without_memory<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |_| {
        let (_, first) = new_free(env, h)?;
        let pfn = first.offset(300);
        let held = env.take_all_but(16)?;
        let (before, was) = (env.snapshot(), h.total(env.m));
        let mut refused = 0;
        let last = loop {
            env.m.fail_nth(FailPoint::PageAlloc, Some(1 + refused));
            let result = env.mm.soft_offline_page(env.m, pfn);
            env.m.fail_nth(FailPoint::PageAlloc, None);
            if result.is_ok() || refused > 20 {
                break result;
            }
            check_eq!(result, Err(PoisonError::NoMemory(pfn)), "k = {refused}");
            check_eq!(h.total(env.m), was, "k = {refused}");
            check_eq!(broken_in(env, first, Order::PMD), [], "k = {refused}");
            env.same_as(&before)?;
            audited(env, "refused")?;
            refused += 1;
        };
        drop(held);
        check_eq!(last, Ok(Handled::Recovered));
        // A block is asked for, then seven frames.
        check_eq!(refused, 7, "refusals");
        audited(env, "done")?;
        unpoison(env, pfn)
    })
}

/// A surplus folio that waits for memory to go waits still after a soft offline for which
/// there was none either.
pub fn soft_offline_of_a_stuck_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |_| {
        let before = env.snapshot();
        let (_, first) = new_free(env, h)?;
        let hugetlb = &env.mm.hugetlb;
        let held = env.take_all_but(16)?;
        // A block is asked for, then frames.
        env.m.fail_nth(FailPoint::PageAlloc, Some(1));
        let removed = hugetlb.shrink(env.m, env.backing(), h, None, 1);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        let stuck = (h.stuck(env.m), h.total(env.m));
        env.m.fail_nth(FailPoint::PageAlloc, Some(1));
        let refused = env.mm.soft_offline_page(env.m, first.offset(300));
        env.m.fail_nth(FailPoint::PageAlloc, None);
        let after = (h.stuck(env.m), h.total(env.m));
        drop(held);
        check_eq!(
            (removed, stuck.0),
            (0, 1),
            "folios removed, and waiting for memory"
        );
        check_eq!(refused, Err(PoisonError::NoMemory(first.offset(300))));
        check_eq!(after, stuck);
        let gone = hugetlb.retry_surplus(env.m, env.backing(), h);
        check_eq!(gone, 1, "folios that went when there was memory");
        env.same_as(&before)
    })
}

/// A broken page of a free folded folio: the folio is dissolved, the page stays out.
fn free_folio<M: Machine>(env: &Env<'_, M>, order: Order) -> Outcome {
    let h = env.hstate(order)?;
    each_policy(env, |policy| {
        for n in [0, 2, HEAD_PAGES, order.pages() / 2 + 1] {
            let before = env.snapshot();
            let (_, first) = new_free(env, h)?;
            let was = (h.total(env.m).nr, env.totals().folded);
            let handled = env.mm.memory_failure(env.m, first.offset(n));
            check_eq!(handled, Ok(Handled::Recovered), "{policy:?}, page {n}");
            dissolved(env, h, first, &[n], was)?;
            unpoison(env, first.offset(n))?;
            env.same_as(&before)?;
        }
        Ok(())
    })
}

/// For 2 MiB.
pub fn free_folio_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    free_folio(env, Order::PMD)
}

/// For 1 GiB.
pub fn free_folio_1g<M: Machine>(env: &Env<'_, M>) -> Outcome {
    free_folio(env, Order::PUD)
}

/// Pages of every kind of a folio in use break, one after the other: the head, tails in its
/// frame, folded tails, two of one frame. After each one the folio knows which, exactly; it is
/// folded still; and when it is put, exactly these stay out.
pub fn every_kind_of_tail<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        for mend_first in [false, true] {
            let before = env.snapshot();
            let (head, first) = take_new(env, h)?;
            let folded = env.snapshot();
            let was = (h.total(env.m).nr, env.totals().folded);
            let mut broken = Vec::new();
            for n in [0, 1, 63, 64, 65, 257, 511] {
                let pfn = first.offset(n);
                let handled = env.mm.memory_failure(env.m, pfn);
                check_eq!(handled, Ok(Handled::Delayed), "{policy:?}, page {n}");
                broken.push(n);
                check_eq!(broken_in(env, first, Order::PMD), broken, "{policy:?}");
                check!(vmemmap::is_optimized(env.m, head), "{policy:?}: unfolded");
                env.check_tails(head, Order::PMD)?;
                audited(env, "one more broken")?;
            }
            let unshared = match policy {
                PoisonPolicy::List => 0,
                PoisonPolicy::CopyOnWrite => 3,
            };
            check_eq!(env.totals().unshared, unshared, "{policy:?}");
            if mend_first {
                while let Some(n) = broken.pop() {
                    unpoison(env, first.offset(n))?;
                    check_eq!(broken_in(env, first, Order::PMD), broken, "{policy:?}");
                    audited(env, "one mended")?;
                }
                check!(!has_hwpoisoned(env.m, head), "{policy:?}: the mark stays");
                env.same_as(&folded)?;
                h.put(env.m, head);
                remove(env, h)?;
            } else {
                env.mm.hugetlb.put(env.m, env.backing(), h, head);
                dissolved(env, h, first, &broken, was)?;
                for n in broken {
                    nobody_gets(env, first.offset(n))?;
                    unpoison(env, first.offset(n))?;
                }
            }
            env.same_as(&before)?;
        }
        Ok(())
    })
}

/// T12: a folio of 2 MiB whose page at half and one more is broken can be read up to exactly
/// there and again behind it, in chunks of half a page to four pages.
pub fn read_around_a_broken_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    let (memmap, hugetlb) = (env.mm.vmemmap.memmap(), &env.mm.hugetlb);
    each_policy(env, |policy| {
        let (head, first) = take_new(env, h)?;
        let word = |at: u64| at ^ 0xb0de_0000;
        for at in (0..Order::PMD.bytes()).step_by(8) {
            env.m.write_phys(first.phys().offset(at), word(at));
        }
        let bad = Order::PMD.pages() / 2 + 1;
        let pfn = first.offset(bad);
        let handled = env.mm.memory_failure(env.m, pfn);
        check_eq!(handled, Ok(Handled::Delayed));
        for chunk in [PAGE_SIZE / 2, PAGE_SIZE, 2 * PAGE_SIZE, 4 * PAGE_SIZE] {
            let mut words = vec![0; usize::try_from(chunk / 8).unwrap_or(0)];
            // How far one gets from `start` on, and what stops it.
            let mut read_on = |start: u64| -> Result<(u64, Result<usize, ReadError>), Stop> {
                let mut at = start;
                loop {
                    match hugetlb.read(env.m, memmap, head, at, &mut words) {
                        Ok(read) if read > 0 => {
                            let got = words[..read].iter().zip((at..).step_by(8));
                            let wrong = got.into_iter().find(|(got, at)| **got != word(*at));
                            check_eq!(wrong, None, "{policy:?}, chunk {chunk}");
                            at += read as u64 * 8;
                        }
                        stopped => return Ok((at, stopped)),
                    }
                }
            };
            let (to, stopped) = read_on(0)?;
            check_eq!(to, bad * PAGE_SIZE, "{policy:?}, chunk {chunk}");
            check_eq!(stopped, Err(ReadError::Broken(pfn)));
            let (to, stopped) = read_on((bad + 1) * PAGE_SIZE)?;
            check_eq!(to, Order::PMD.bytes(), "{policy:?}, chunk {chunk}");
            check_eq!(stopped, Ok(0), "the end");
        }
        unpoison(env, pfn)?;
        h.put(env.m, head);
        remove(env, h)
    })
}

/// A mapping that has a folio of which a page breaks gets an error from then on, and the others
/// get other folios; unmapped, it is gone from the pool.
pub fn mappings_get_no_broken_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |_| {
        let was = h.total(env.m).nr;
        let added = grow_or_skip(env, h, 2)?;
        check_eq!(added, 2);
        let (mut slots, mut others) = ([Slot::Empty; 1], [Slot::Empty; 1]);
        let map = |slots| {
            let hugetlb = &env.mm.hugetlb;
            hugetlb.map(env.m, env.backing(), h, MapFlags::SHARED, slots)
        };
        let (Ok(mut mapping), Ok(mut other)) = (map(&mut slots), map(&mut others)) else {
            fail!("no folio for a mapping");
        };
        let Ok(head) = mapping.touch(0) else {
            fail!("no folio for a promised place");
        };
        let pfn = env.mm.vmemmap.memmap().pfn(head).offset(100);
        let handled = env.mm.memory_failure(env.m, pfn);
        let touched = (mapping.touch(0), mapping.write(0));
        let elsewhere = other.touch(0);
        drop(mapping);
        drop(other);
        check_eq!(handled, Ok(Handled::Delayed));
        let broken = Err(FaultError::HwPoison(head));
        check_eq!(touched, (broken, broken));
        check!(elsewhere.is_ok_and(|other| other != head), "{elsewhere:?}");
        check_eq!(h.total(env.m).nr, was + 1, "folios when all is unmapped");
        audited(env, "unmapped")?;
        unpoison(env, pfn)?;
        remove(env, h)
    })
}

/// A free folio with a broken page and no memory for its struct pages: nobody is given it, it
/// is neither demoted nor promised, and it goes when there is memory.
pub fn stuck_folio_goes_to_nobody<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        let before = env.snapshot();
        let (head, first) = new_free(env, h)?;
        let was = h.total(env.m);
        let pfn = first.offset(200);
        let held = env.take_all_but(16)?;
        // One frame for the node or the copy, then a block, then frames.
        env.m.fail_nth(FailPoint::PageAlloc, Some(2));
        let handled = env.mm.memory_failure(env.m, pfn);
        env.m.fail_nth(FailPoint::PageAlloc, None);
        let total = h.total(env.m);
        let taken = env.mm.nodes.online().find_map(|node| h.take(env.m, node));
        let mut slots = [Slot::Empty; 1];
        let hugetlb = &env.mm.hugetlb;
        let promised = hugetlb
            .map(env.m, env.backing(), h, MapFlags::SHARED, &mut slots)
            .is_ok();
        let audit = audited(env, "stuck");
        let known = broken_in(env, first, Order::PMD);
        drop(held);
        check_eq!(handled, Ok(Handled::Delayed), "{policy:?}");
        audit?;
        check_eq!((total.nr, total.free), (was.nr, was.free));
        check_eq!(total.surplus, was.surplus + 1);
        check_eq!(taken, None, "{policy:?}: somebody got {head:?}");
        check!(!promised, "{policy:?}: a broken folio was promised");
        check_eq!(known, [200]);
        let gone = hugetlb.retry_surplus(env.m, env.backing(), h);
        check_eq!(gone, 1, "{policy:?}");
        audited(env, "gone")?;
        unpoison(env, pfn)?;
        env.same_as(&before)
    })
}

/// A page of a free folio breaks that is promised: the folio stays for as long as the promise
/// does, and is gone from the pool then.
pub fn promised_folio_goes_with_the_promise<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        let before = env.snapshot();
        let (_, first) = new_free(env, h)?;
        let was = h.total(env.m);
        let hugetlb = &env.mm.hugetlb;
        let mut slots = vec![Slot::Empty; usize::try_from(was.free).unwrap_or(0)];
        let Ok(mapping) = hugetlb.map(env.m, env.backing(), h, MapFlags::SHARED, &mut slots) else {
            fail!("{} free folios cannot be promised", was.free);
        };
        let handled = env.mm.memory_failure(env.m, first.offset(200));
        let promised = h.total(env.m);
        drop(mapping);
        let after = h.total(env.m);
        check_eq!(handled, Ok(Handled::Delayed), "{policy:?}");
        check_eq!(promised, was, "{policy:?}: while it is promised");
        check_eq!(after.nr, was.nr - 1, "{policy:?}: unmapped");
        check_eq!(after.surplus, was.surplus, "{policy:?}: unmapped");
        audited(env, "gone")?;
        unpoison(env, first.offset(200))?;
        env.same_as(&before)
    })
}

/// Each allocation that handling a broken page of a folio in use needs fails once. With copy on
/// write the list steps in, and the other way round there is nothing else: then the folio is
/// unreliable, which `tests/testkit/tests/hwpoison.rs` looks at, as it never goes again.
pub fn fails_each_allocation<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        if policy == PoisonPolicy::List {
            return Ok(());
        }
        let before = env.snapshot();
        let (head, first) = take_new(env, h)?;
        for point in [FailPoint::PageAlloc, FailPoint::VmemmapPte] {
            let folded = env.snapshot();
            env.m.fail_nth(point, Some(0));
            let handled = env.mm.memory_failure(env.m, first.offset(444));
            env.m.fail_nth(point, None);
            check_eq!(handled, Ok(Handled::Delayed), "{point:?}");
            check_eq!(env.totals().unshared, 0, "{point:?}");
            check_eq!(env.mm.hugetlb.raw_hwp_frames(env.m), 1, "{point:?}");
            check_eq!(broken_in(env, first, Order::PMD), [444], "{point:?}");
            audited(env, "listed instead")?;
            // The next one is noted the way that was asked for, beside it.
            check_eq!(
                env.mm.memory_failure(env.m, first.offset(445)),
                Ok(Handled::Delayed)
            );
            check_eq!(env.totals().unshared, 1, "{point:?}");
            check_eq!(broken_in(env, first, Order::PMD), [444, 445], "{point:?}");
            audited(env, "both ways")?;
            unpoison(env, first.offset(444))?;
            unpoison(env, first.offset(445))?;
            env.same_as(&folded)?;
        }
        // Both ways in one folio, put while it is so.
        env.m.fail_nth(FailPoint::PageAlloc, Some(0));
        let handled = env.mm.memory_failure(env.m, first.offset(130));
        env.m.fail_nth(FailPoint::PageAlloc, None);
        check_eq!(handled, Ok(Handled::Delayed));
        let handled = env.mm.memory_failure(env.m, first.offset(131));
        check_eq!(handled, Ok(Handled::Delayed));
        let was = (h.total(env.m).nr, env.totals().folded);
        env.mm.hugetlb.put(env.m, env.backing(), h, head);
        dissolved(env, h, first, &[130, 131], was)?;
        unpoison(env, first.offset(130))?;
        unpoison(env, first.offset(131))?;
        env.same_as(&before)
    })
}

/// What the two ways spend: frames, and flushes.
pub fn cost<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        let (head, first) = take_new(env, h)?;
        for (pages, spent, flushed) in [
            ([70_u64, 71, 72], (1, 1), (0, 1)),
            ([100, 200, 300], (1, 3), (0, 3)),
        ] {
            let (free, flushes) = (env.mm.nodes.total_free(env.m), env.totals().flushes);
            for n in pages {
                let handled = env.mm.memory_failure(env.m, first.offset(n));
                check_eq!(handled, Ok(Handled::Delayed));
            }
            let frames = free - env.mm.nodes.total_free(env.m);
            let flushes = env.totals().flushes - flushes;
            env.m.log(
                Level::Info,
                format_args!(
                    "hwpoison: pages {pages:?} of a folio, {policy:?}: {frames} frames, {flushes} flushes"
                ),
            );
            let expected = match policy {
                PoisonPolicy::List => (spent.0, flushed.0),
                PoisonPolicy::CopyOnWrite => (spent.1, flushed.1),
            };
            check_eq!((frames, flushes), expected, "{policy:?}, {pages:?}");
            for n in pages {
                unpoison(env, first.offset(n))?;
            }
        }
        h.put(env.m, head);
        remove(env, h)
    })
}

/// Runs `case`, which lets frames break that somebody has, has them given back and returns which
/// they are. Then exactly those must be out of the allocator until they are repaired.
///
/// # Errors
/// The case's own; a failure if a frame is forgotten, handed out, counted wrong or lost.
pub fn stays_out<M: Machine>(
    env: &Env<'_, M>,
    case: impl FnOnce() -> Result<Vec<Pfn>, Stop>,
) -> Outcome {
    let (before, broken) = (env.snapshot(), env.mm.hwpoison.pages());
    let frames = case()?;
    audited(env, "given back")?;
    for pfn in &frames {
        check!(is_broken(env, *pfn), "{pfn:?} is forgotten");
        nobody_gets(env, *pfn)?;
    }
    check_eq!(
        env.mm.hwpoison.pages(),
        broken + frames.len() as u64,
        "broken frames"
    );
    for pfn in frames {
        unpoison(env, pfn)?;
    }
    check_eq!(env.mm.hwpoison.pages(), broken, "broken frames left");
    env.same_as(&before)
}

/// Lets `pfn`, which somebody has, break.
///
/// # Errors
/// A failure if it is not marked, or not left to who has it.
pub fn breaks_in_use<M: Machine>(env: &Env<'_, M>, pfn: Pfn) -> Outcome {
    let free = env.mm.nodes.total_free(env.m);
    check_eq!(
        env.mm.memory_failure(env.m, pfn),
        Ok(Handled::Ignored),
        "{pfn:?}"
    );
    check!(is_broken(env, pfn), "{pfn:?} is not marked");
    check_eq!(env.mm.nodes.total_free(env.m), free, "free pages");
    Ok(())
}

/// Frames of a compound page that is no huge page: its head, tails near it, and the last.
pub fn compound_page<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let order = Order::PMD;
    stays_out(env, || {
        let head = env.compound(order)?;
        let first = env.mm.vmemmap.memmap().pfn(head);
        let frames: Vec<Pfn> = [0, 1, 63, 64, 300, 511]
            .into_iter()
            .map(|n| first.offset(n))
            .collect();
        for pfn in &frames {
            breaks_in_use(env, *pfn)?;
        }
        check!(has_hwpoisoned(env.m, head), "the head does not say so");
        audited(env, "in use")?;
        env.free_compound(head, order);
        Ok(frames)
    })
}

/// A compound page is not folded while a frame of it is broken, and is when it is repaired; and of
/// one that is folded no frame can be marked.
pub fn compound_page_is_not_folded<M: Machine>(env: &Env<'_, M>) -> Outcome {
    if page::HVO.is_err() {
        skip!("these struct pages are not folded");
    }
    let (order, before) = (Order::PMD, env.snapshot());
    let head = env.compound(order)?;
    let first = env.mm.vmemmap.memmap().pfn(head);
    let fold = || {
        let (vmemmap, nodes) = (&env.mm.vmemmap, &env.mm.nodes);
        vmemmap.optimize_folio(env.m, nodes, head, order)
    };
    for n in [0, 63, 400] {
        breaks_in_use(env, first.offset(n))?;
        check_eq!(fold(), Err(vmemmap::HvoError::Poisoned(head)), "page {n}");
        unpoison(env, first.offset(n))?;
        check!(!has_hwpoisoned(env.m, head), "the mark stays");
    }
    env.fold(head, order)?;
    for n in [0, 63, 400] {
        let pfn = first.offset(n);
        let handled = env.mm.memory_failure(env.m, pfn);
        check_eq!(handled, Err(PoisonError::Busy(pfn)), "page {n}");
        check!(!has_hwpoisoned(env.m, head), "the head says what is not");
    }
    env.unfold(head, order)?;
    env.free_compound(head, order);
    env.same_as(&before)
}

/// A page table breaks, and is given back when nothing is mapped by it any more.
pub fn page_table<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let (m, root, at) = (env.m, env.m.root(), env.scratch);
    stays_out(env, || {
        let frame = env.block(Order::PAGE)?;
        let mut lowest = None;
        let mut alloc = || {
            lowest = env.alloc(Order::PAGE, Placement::local(m));
            lowest
        };
        let (level, flags) = (PageLevel::Pte, PteFlags::KERNEL);
        let mapped = paging::map(m, root, at, frame, level, flags, &mut alloc);
        check_eq!(mapped, Ok(()));
        let Some(table) = lowest else {
            fail!("the scratch window had tables")
        };
        breaks_in_use(env, table)?;
        m.store64(at, 1);
        check_eq!(m.read_phys(frame.phys()), 1, "through the broken table");
        sweep::clear_scratch(env);
        env.free(frame, Order::PAGE);
        Ok(vec![table])
    })
}

/// The frame that keeps the head of a folded page breaks, and is given back when that is unfolded;
/// then one of memmap that the next fold gives back.
pub fn memmap_frame<M: Machine>(env: &Env<'_, M>) -> Outcome {
    if page::HVO != Ok(Sharing::AcrossNode) {
        skip!("a fold keeps the head where it was");
    }
    let order = Order::PMD;
    stays_out(env, || {
        let head = env.compound(order)?;
        env.fold(head, order)?;
        let Some(kept) = env.frame_of(head) else {
            fail!("the head is not mapped")
        };
        breaks_in_use(env, kept)?;
        env.unfold(head, order)?;
        let Some(tails) = env.frame_of(head.nth(HEAD_PAGES)) else {
            fail!("the tails are not mapped")
        };
        breaks_in_use(env, tails)?;
        env.fold(head, order)?;
        env.unfold(head, order)?;
        env.free_compound(head, order);
        Ok(vec![kept, tails])
    })
}

/// The frame of a list of broken frames breaks itself, and is given back when the list is empty.
pub fn frame_of_a_list<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |policy| {
        if policy != PoisonPolicy::List {
            return Ok(());
        }
        stays_out(env, || {
            let (head, first) = take_new(env, h)?;
            let before = sweep::blocks_in_use(env).unwrap_or_default();
            let handled = env.mm.memory_failure(env.m, first.offset(70));
            check_eq!(handled, Ok(Handled::Delayed));
            let after = sweep::blocks_in_use(env).unwrap_or_default();
            let Some(list) = after.difference(&before).next().copied() else {
                skip!("too much is in use to see which frame is the list's");
            };
            breaks_in_use(env, list)?;
            unpoison(env, first.offset(70))?;
            h.put(env.m, head);
            env.mm.hugetlb.shrink(env.m, env.backing(), h, None, 1);
            Ok(vec![list])
        })
    })
}
