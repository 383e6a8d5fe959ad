//! Demote and promote (T27), and what a 1 GiB folio leaves behind (T8). Runs early: it
//! needs whole gibibytes.

use ktest::{Outcome, Stop, check, check_eq, skip};
use mm::addr::{NodeId, Order};
use mm::hugetlb::{Hstate, MapFlags, Slot};
use mm::machine::{FailPoint, Machine};
use mm::page::{self, Page};
use mm::vmemmap;

use crate::Env;
use crate::hugetlb::{grow_or_skip, switched, with_hvo};

const PARTS: u64 = Order::PUD.pages() / Order::PMD.pages();

/// Both sizes, of which one 1 GiB folio is free and nothing else; HVO is as `on` says.
struct Sizes<'e, 'a, M: Machine> {
    env: &'e Env<'a, M>,
    large: &'a Hstate,
    small: &'a Hstate,
    node: NodeId,
}

impl<'e, 'a, M: Machine> Sizes<'e, 'a, M> {
    /// Runs `case` with one new 1 GiB folio; leaves no trace.
    fn with_one(env: &'e Env<'a, M>, on: bool, case: impl FnOnce(&Self) -> Outcome) -> Outcome {
        let (large, small) = (env.hstate(Order::PUD)?, env.hstate(Order::PMD)?);
        with_hvo(env, on, || {
            let before = env.snapshot();
            grow_or_skip(env, large, 1)?;
            let head = large.take_near(env.m, &env.mm.nodes);
            let Some(head) = head else {
                skip!("the new folio is not free")
            };
            let node = head.node(env.m);
            large.put(env.m, head);
            let sizes = Self {
                env,
                large,
                small,
                node,
            };
            let outcome = case(&sizes);
            sizes.promote(1);
            let removed = env
                .mm
                .hugetlb
                .shrink(env.m, env.backing(), large, Some(node), 1);
            outcome?;
            check!(removed <= 1, "{removed} of one");
            check_eq!(sizes.free(), (0, 0), "all folios go");
            env.same_as(&before)
        })
    }

    fn demote(&self, count: u64) -> u64 {
        let Env { m, mm, .. } = *self.env;
        mm.hugetlb
            .demote(m, mm.backing(), self.large, Some(self.node), count)
    }

    fn promote(&self, count: u64) -> u64 {
        let Env { m, mm, .. } = *self.env;
        mm.hugetlb
            .promote(m, mm.backing(), self.large, Some(self.node), count)
    }

    /// Free folios of both sizes on the node.
    fn free(&self) -> (u64, u64) {
        let free = |h: &Hstate| h.counts(self.env.m, self.node).free;
        (free(self.large), free(self.small))
    }

    /// The head of the 1 GiB folio, which stays in its pool.
    fn head(&self) -> Result<Page, Stop> {
        let Some(head) = self.large.take(self.env.m, self.node) else {
            ktest::fail!("the 1 GiB folio is gone")
        };
        self.large.put(self.env.m, head);
        Ok(head)
    }
}

/// Every page of the gibibyte at `head` belongs to a folio of `order`.
fn consists_of<M: Machine>(env: &Env<'_, M>, head: Page, order: Order, folded: bool) -> Outcome {
    for n in 0..Order::PUD.pages() / order.pages() {
        let part = head.nth(n * order.pages());
        check!(part.is_head(env.m), "part {n} of order {order} has no head");
        check_eq!(page::folio_order(env.m, part), order, "part {n}");
        check_eq!(
            vmemmap::is_optimized(env.m, part),
            folded,
            "part {n} folded"
        );
        env.check_tails(part, order)?;
    }
    Ok(())
}

/// T27: one folio of 1 GiB becomes 512 of 2 MiB that are as good as any, and comes back.
/// 511 frames are spent meanwhile; then the ledger is as before. One flush each way.
pub fn round_trip<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for on in [true, false] {
        Sizes::with_one(env, on, |sizes| {
            let head = sizes.head()?;
            let (before, start) = (env.snapshot(), env.totals());
            check_eq!(
                env.mm.hugetlb.demote_target(sizes.large).map(Hstate::order),
                Some(Order::PMD)
            );
            check_eq!(sizes.demote(5), 1, "there is one");
            let (after, free) = (env.totals(), sizes.free());
            let whole = consists_of(env, head, Order::PMD, on);
            let one = sizes.small.take(env.m, sizes.node);
            let promoted = one.is_some() && sizes.promote(1) == 0;
            if let Some(one) = one {
                sizes.small.put(env.m, one);
            }
            check_eq!(sizes.promote(5), 1, "all are free again");
            whole?;
            check_eq!(free, (0, PARTS), "folios");
            check!(promoted, "a block with one part in use was promoted");
            if on {
                let heads = after.pages + after.boot_pages - start.pages - start.boot_pages;
                check_eq!(heads, PARTS - 1, "frames for heads");
                check_eq!(start.saved - after.saved, PARTS - 1, "saved less");
                check_eq!(after.flushes - start.flushes, 1, "flushes of a demotion");
            }
            check_eq!(sizes.free(), (1, 0), "folios again");
            consists_of(env, head, Order::PUD, on)?;
            env.same_as(&before)
        })?;
    }
    Ok(())
}

/// T26 and T27: what is folded stays so whatever the switch says, what is not follows it;
/// and the parts can be given back one by one.
pub fn switch_and_demote<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for (made, demoted, folded) in [
        (true, false, true),
        (false, true, true),
        (false, false, false),
        (true, true, true),
    ] {
        // Last of all: the parts' memmap goes into holes of the gibibyte.
        let give_back = made && demoted;
        Sizes::with_one(env, made, |sizes| {
            let head = sizes.head()?;
            switched(env, demoted, || {
                check_eq!(sizes.demote(1), 1, "{made}, then {demoted}");
                consists_of(env, head, Order::PMD, folded)
            })?;
            if !give_back {
                return Ok(());
            }
            let backing = env.backing();
            let shrink = |count| {
                env.mm
                    .hugetlb
                    .shrink(env.m, backing, sizes.small, Some(sizes.node), count)
            };
            check_eq!((shrink(3), shrink(PARTS)), (3, PARTS - 3), "given back");
            check_eq!(sizes.promote(1), 0, "nothing is left");
            Ok(())
        })?;
    }
    Ok(())
}

/// A folio that a mapping was promised is not demoted; neither are parts promoted.
pub fn promised_folios_stay<M: Machine>(env: &Env<'_, M>) -> Outcome {
    Sizes::with_one(env, true, |sizes| {
        let map = |h, slots| {
            env.mm
                .hugetlb
                .map(env.m, env.backing(), h, MapFlags::SHARED, slots)
        };
        let mut slots = [[Slot::Empty; 1]; 2];
        let [of_large, of_small] = &mut slots;
        let Ok(promised) = map(sizes.large, of_large) else {
            ktest::fail!("a promise of the one folio that is free")
        };
        check_eq!(sizes.demote(1), 0, "promised");
        drop(promised);
        check_eq!(sizes.demote(1), 1, "not promised");
        let Ok(promised) = map(sizes.small, of_small) else {
            ktest::fail!("a promise of one of 512")
        };
        check_eq!(
            (sizes.promote(1), sizes.free()),
            (0, (0, PARTS)),
            "promised"
        );
        drop(promised);
        check_eq!(
            (sizes.promote(1), sizes.free()),
            (1, (1, 0)),
            "not promised"
        );
        Ok(())
    })
}

/// An allocation or a store that fails, early, late or in between, leaves everything as it
/// was, on the way there and on the way back.
pub fn failures_change_nothing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    Sizes::with_one(env, true, |sizes| {
        let head = sizes.head()?;
        // The shared tail pages are made once and stay.
        check_eq!((sizes.demote(1), sizes.promote(1)), (1, 1));
        let failing = |point, nth, work: &dyn Fn() -> u64| {
            env.m.fail_nth(point, Some(nth));
            let done = work();
            env.m.fail_nth(point, None);
            done
        };
        let stores = [0, 1, 64, 510, 511, 512, 3000, 4094];
        let before = env.snapshot();
        // Seven tables, for the slots that shared one, and the parts' heads.
        for nth in [0, 6, 7, 200, 517] {
            let done = failing(FailPoint::PageAlloc, nth, &|| sizes.demote(1));
            check_eq!((done, sizes.free()), (0, (1, 0)), "allocation {nth} fails");
            env.same_as(&before)?;
        }
        for nth in stores {
            let done = failing(FailPoint::VmemmapPte, nth, &|| sizes.demote(1));
            check_eq!((done, sizes.free()), (0, (1, 0)), "store {nth} fails");
            env.same_as(&before)?;
        }
        for nth in [0, 6] {
            let done = failing(FailPoint::VmemmapPmd, nth, &|| sizes.demote(1));
            check_eq!((done, sizes.free()), (0, (1, 0)), "table {nth} fails");
            env.same_as(&before)?;
        }
        consists_of(env, head, Order::PUD, true)?;
        check_eq!(sizes.demote(1), 1, "then it works");
        let before = env.snapshot();
        for nth in stores {
            let done = failing(FailPoint::VmemmapPte, nth, &|| sizes.promote(1));
            check_eq!(
                (done, sizes.free()),
                (0, (0, PARTS)),
                "store {nth} back fails"
            );
            env.same_as(&before)?;
        }
        consists_of(env, head, Order::PMD, true)
    })
}

/// T8: LTP's `hugemmap32`. A gigantic pool that goes to 1 and back to 0 leaves pages
/// that nothing has ever used.
pub fn no_bad_page_is_left<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PUD)?;
    for on in [true, false] {
        with_hvo(env, on, || {
            let before = env.snapshot();
            let backing = env.backing();
            let nr = h.total(env.m).nr;
            let set = |count| env.mm.hugetlb.set_nr(env.m, backing, h, None, nr + count) - nr;
            if set(1) == 0 {
                skip!("no room for a folio of {}", h.name());
            }
            let Some(head) = h.take_near(env.m, &env.mm.nodes) else {
                ktest::fail!("the new folio is not free")
            };
            h.put(env.m, head);
            check_eq!(set(0), 0, "folios left");
            env.same_as(&before)?;
            for n in 0..Order::PUD.pages() {
                // What restored the memmap may have taken pages from here.
                let page = head.nth(n);
                let clean = !page.is_tail(env.m)
                    && !page.is_head(env.m)
                    && page.ref_count(env.m) == 0
                    && page.mapping(env.m) == 0
                    && page.node(env.m) == head.node(env.m);
                check!(clean, "page {n}: {:x?}", page.record(env.m));
            }
            Ok(())
        })?;
    }
    Ok(())
}
