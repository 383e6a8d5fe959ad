//! The counters of the pools: persistent, free, reserved and surplus folios, as Linux
//! keeps them. Each case names the test of Linux that it restates.

use alloc::vec;
use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, skip};
use mm::addr::{NodeId, Order};
use mm::frames::Placement;
use mm::hugetlb::{FaultError, Hstate, MapFlags, Mapping, NoMemory, Slot};
use mm::machine::Machine;

use crate::Env;
use crate::hugetlb::{on_empty_pools, with_hvo};

/// One size on one node. Counters are relative to what was there before, all of which
/// is set aside.
pub(crate) struct Pool<'e, 'a, M: Machine> {
    pub(crate) env: &'e Env<'a, M>,
    pub(crate) h: &'a Hstate,
    pub(crate) node: NodeId,
    base: u64,
}

/// nr, free, resv, surplus.
pub(crate) type Numbers = (u64, u64, u64, u64);

impl<'e, 'a, M: Machine> Pool<'e, 'a, M> {
    /// The pool of this CPU's node. Call with all folios set aside.
    pub(crate) fn local(env: &'e Env<'a, M>, h: &'a Hstate) -> Self {
        Self::on(env, h, env.m.this_node())
    }

    pub(crate) fn on(env: &'e Env<'a, M>, h: &'a Hstate, node: NodeId) -> Self {
        let base = h.counts(env.m, node).nr;
        Self { env, h, node, base }
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let counts = self.h.counts(self.env.m, self.node);
        let resv = self.h.resv(self.env.m);
        (counts.nr - self.base, counts.free, resv, counts.surplus)
    }

    /// The number reached.
    pub(crate) fn set_nr(&self, count: u64) -> u64 {
        let Env { m, mm, .. } = *self.env;
        let (backing, node) = (mm.backing(), Some(self.node));
        let count = self.base + count;
        mm.hugetlb.set_nr(m, backing, self.h, node, count) - self.base
    }

    /// A mapping that takes its folios from this node only.
    pub(crate) fn map<'s>(
        &self,
        flags: MapFlags,
        slots: &'s mut [Slot],
    ) -> Result<Mapping<'s, M>, NoMemory>
    where
        'a: 's,
    {
        let Env { m, mm, .. } = *self.env;
        let flags = flags.bound_to(Placement::Only(self.node));
        mm.hugetlb.map(m, mm.backing(), self.h, flags, slots)
    }

    /// Runs `case` with up to `most` surplus folios allowed, none persistent and none
    /// after.
    fn with_overcommit(&self, most: u64, case: impl FnOnce() -> Outcome) -> Outcome {
        let before = (self.h.overcommit(self.env.m), self.env.snapshot());
        self.h.set_overcommit(self.env.m, most);
        let outcome = case();
        self.set_nr(0);
        self.h.set_overcommit(self.env.m, before.0);
        outcome?;
        check_eq!(self.numbers(), (0, 0, 0, 0), "left in the pool");
        self.env.same_as(&before.1)
    }
}

/// 2 MiB folios on this node, `most` surplus ones allowed, HVO on and off.
fn with_pool<M: Machine>(
    env: &Env<'_, M>,
    most: u64,
    case: impl Fn(&Pool<'_, '_, M>) -> Outcome,
) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    for on in [true, false] {
        with_hvo(env, on, || {
            let pool = Pool::local(env, h);
            pool.with_overcommit(most, || case(&pool))
        })?;
    }
    Ok(())
}

/// What the counters should be, by the rules of libhugetlbfs' `counters`.
#[derive(Clone, Copy)]
struct Model {
    nr: u64,
    free: u64,
    resv: u64,
    surplus: u64,
}

impl Model {
    const fn numbers(&self) -> Numbers {
        (self.nr, self.free, self.resv, self.surplus)
    }

    fn set_nr(&mut self, count: u64) {
        while count > self.nr - self.surplus && self.surplus > 0 {
            self.surplus -= 1;
        }
        let missing = count.saturating_sub(self.nr - self.surplus);
        self.nr += missing;
        self.free += missing;
        let least = count.max(self.resv + self.nr - self.free);
        while self.nr - self.surplus > least {
            self.nr -= 1;
            self.free -= 1;
        }
        self.surplus += (self.nr - self.surplus).saturating_sub(count);
    }

    fn map(&mut self, places: u64) {
        let missing = (places + self.resv).saturating_sub(self.free);
        self.nr += missing;
        self.free += missing;
        self.surplus += missing;
        self.resv += places;
    }

    const fn touch(&mut self, places: u64) {
        self.free -= places;
        self.resv -= places;
    }

    fn unmap(&mut self, places: u64, touched: u64) {
        for _ in 0..touched {
            if self.surplus > 0 {
                self.nr -= 1;
                self.surplus -= 1;
            } else {
                self.free += 1;
            }
        }
        let unused = (places - touched).min(self.surplus);
        self.nr -= unused;
        self.free -= unused;
        self.surplus -= unused;
        self.resv -= places - touched;
    }
}

/// A mapping there is before a case begins: none, or 1 place, touched or not.
const SETUPS: [Option<(MapFlags, usize)>; 5] = [
    None,
    Some((MapFlags::SHARED, 0)),
    Some((MapFlags::PRIVATE, 0)),
    Some((MapFlags::SHARED, 1)),
    Some((MapFlags::PRIVATE, 1)),
];

/// T5: libhugetlbfs' `counters`, LTP's `hugemmap10`. Pools of 0 to 3 folios; beside a
/// mapping that is there already, mappings of 1 to 3 places come, are touched or not,
/// see the pool shrink and grow under them, and go. Every counter is compared with
/// the model at every step.
pub fn counters_follow_the_model<M: Machine>(env: &Env<'_, M>) -> Outcome {
    with_pool(env, 10, |pool| {
        for base in 0..4 {
            for setup in SETUPS {
                let mut model = Model {
                    nr: base,
                    free: base,
                    resv: 0,
                    surplus: 0,
                };
                pool.set_nr(base);
                check_eq!(pool.numbers(), model.numbers(), "pool of {base}");
                let mut slots = [Slot::Empty; 1];
                let kept = match setup {
                    Some((flags, touched)) => {
                        let mut kept = made(pool.map(flags, &mut slots))?;
                        model.map(1);
                        touch(&mut kept, touched)?;
                        model.touch(touched as u64);
                        Some((kept, touched as u64))
                    }
                    None => None,
                };
                check_eq!(pool.numbers(), model.numbers(), "pool of {base}, {setup:?}");
                let outcome = come_and_go(pool, &mut model, base);
                if let Some((kept, touched)) = kept {
                    drop(kept);
                    model.unmap(1, touched);
                }
                outcome?;
                check_eq!(
                    pool.numbers(),
                    model.numbers(),
                    "{base}, {setup:?} unmapped"
                );
            }
        }
        Ok(())
    })
}

fn come_and_go<M: Machine>(pool: &Pool<'_, '_, M>, model: &mut Model, base: u64) -> Outcome {
    for (places, touched, resizes) in [
        (1, 0, &[][..]),
        (1, 1, &[]),
        (3, 2, &[]),
        (2, 0, &[0, 3]),
        (2, 1, &[1, 0, 2]),
        (3, 3, &[5, 1, 0]),
    ] {
        for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
            let mut slots = vec![Slot::Empty; places];
            let mut mapping = made(pool.map(flags, &mut slots))?;
            model.map(places as u64);
            check_eq!(pool.numbers(), model.numbers(), "{places} mapped");
            touch(&mut mapping, touched)?;
            model.touch(touched as u64);
            check_eq!(
                pool.numbers(),
                model.numbers(),
                "{touched} of {places} touched"
            );
            for count in resizes {
                pool.set_nr(*count);
                model.set_nr(*count);
                check_eq!(
                    pool.numbers(),
                    model.numbers(),
                    "{places} mapped, nr {count}"
                );
            }
            drop(mapping);
            model.unmap(places as u64, touched as u64);
            check_eq!(pool.numbers(), model.numbers(), "{places} unmapped");
            pool.set_nr(base);
            model.set_nr(base);
            check_eq!(pool.numbers(), model.numbers(), "nr {base} again");
        }
    }
    Ok(())
}

pub(crate) fn made<T>(mapping: Result<T, NoMemory>) -> Result<T, Stop> {
    match mapping {
        Ok(mapping) => Ok(mapping),
        Err(NoMemory) => skip!("no room for the folios"),
    }
}

fn touch<M: Machine>(mapping: &mut Mapping<'_, M>, count: usize) -> Outcome {
    for n in 0..count {
        check!(mapping.touch(n).is_ok(), "touch of place {n}");
    }
    Ok(())
}

/// T6: LTP's `hugemmap05`. A pool of 2 and 2 more on demand: 3 are mapped, 1 of them
/// surplus; what is written is there.
pub fn overcommit_fills_up<M: Machine>(env: &Env<'_, M>) -> Outcome {
    with_pool(env, 2, |pool| {
        if pool.set_nr(2) < 2 {
            skip!("no room for two folios");
        }
        let mut slots = [Slot::Empty; 3];
        let mut mapping = made(pool.map(MapFlags::SHARED, &mut slots))?;
        check_eq!(pool.numbers(), (3, 3, 3, 1), "mapped");
        let memmap = env.mm.vmemmap.memmap();
        let mut words = Vec::new();
        for (place, n) in (0..3u64).enumerate() {
            let head = mapping.write(place);
            check!(head.is_ok(), "place {place}");
            for page in (0..512).step_by(73) {
                let Ok(head) = head else { continue };
                let at = memmap.pfn(head).offset(page).phys();
                env.m.write_phys(at, n << 32 | page);
                words.push((at, n << 32 | page));
            }
        }
        check_eq!(pool.numbers(), (3, 0, 0, 1), "touched");
        let wrong = words
            .iter()
            .find(|(at, word)| env.m.read_phys(*at) != *word);
        check_eq!(wrong, None, "word");
        drop(mapping);
        check_eq!(pool.numbers(), (2, 2, 0, 0), "unmapped");
        Ok(())
    })
}

/// T7: LTP's `hugemmap08`. Two mappings that together ask for one folio more than are
/// free: the second is refused without overcommit, and complete with it.
pub fn second_chunk_is_all_or_nothing<M: Machine>(env: &Env<'_, M>) -> Outcome {
    for overcommit in [0, 2] {
        with_pool(env, overcommit, |pool| {
            let free = pool.set_nr(5);
            if free < 5 {
                skip!("no room for five folios");
            }
            let mut slots = ([Slot::Empty; 3], [Slot::Empty; 3]);
            let mut first = made(pool.map(MapFlags::PRIVATE, &mut slots.0))?;
            touch(&mut first, 3)?;
            let second = pool.map(MapFlags::PRIVATE, &mut slots.1);
            match second {
                Err(NoMemory) => {
                    check_eq!(overcommit, 0, "refused with overcommit");
                    check_eq!(pool.numbers(), (5, 2, 0, 0), "refused");
                }
                Ok(mut second) => {
                    check_eq!(overcommit, 2, "mapped without overcommit");
                    check_eq!(pool.numbers(), (6, 3, 3, 1), "mapped");
                    touch(&mut second, 3)?;
                    check_eq!(pool.numbers(), (6, 0, 0, 1), "touched");
                }
            }
            drop(first);
            Ok(())
        })?;
    }
    Ok(())
}

/// A private mapping that must copy and has no folio to copy to: the write fails, every
/// count stays, and it succeeds once there is one.
pub fn copy_on_write_without_a_folio<M: Machine>(env: &Env<'_, M>) -> Outcome {
    with_pool(env, 0, |pool| {
        if pool.set_nr(1) < 1 {
            skip!("no room for a folio");
        }
        let mut slots = ([Slot::Empty; 1], [Slot::Empty; 1]);
        let mut parent = made(pool.map(MapFlags::PRIVATE, &mut slots.0))?;
        let head = parent.write(0);
        let mut child = parent.fork(&mut slots.1);
        let numbers = pool.numbers();
        let refused = child.write(0);
        check_eq!(refused, Err(FaultError::NoFolio), "written without a folio");
        check_eq!(child.touch(0), head, "read still");
        check_eq!((numbers, pool.numbers()), ((1, 0, 0, 0), (1, 0, 0, 0)));
        pool.set_nr(2);
        let memmap = env.mm.vmemmap.memmap();
        let word = |head| env.m.read_phys(memmap.pfn(head).offset(511).phys());
        let Ok(own) = head else {
            ktest::fail!("the parent's write: {head:?}")
        };
        env.m.write_phys(memmap.pfn(own).offset(511).phys(), 0x5eed);
        let Ok(copy) = child.write(0) else {
            ktest::fail!("no copy with a free folio")
        };
        check!(copy != own, "written in place");
        check_eq!(word(copy), 0x5eed, "what was copied");
        check_eq!(pool.numbers(), (2, 0, 0, 0));
        check_eq!(parent.write(0), Ok(own), "the only user needs no copy");
        check_eq!(child.touch(1), Err(FaultError::OutOfRange(1)));
        drop(parent);
        drop(child);
        check_eq!(pool.numbers(), (2, 2, 0, 0), "unmapped");
        Ok(())
    })
}

/// The way out that Linux lacks: folios that a failed restore left as surplus go by
/// themselves as soon as memory allows, whatever happens first: another folio is put,
/// or the same number is written again.
pub fn stuck_surplus_goes<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    with_hvo(env, true, || {
        let pool = Pool::local(env, h);
        pool.with_overcommit(0, || {
            for by_put in [true, false] {
                if pool.set_nr(3) < 3 {
                    skip!("no room for three folios");
                }
                let mut slots = [Slot::Empty; 1];
                let mut mapping = made(pool.map(MapFlags::SHARED, &mut slots))?;
                touch(&mut mapping, 1)?;
                // Not a frame is left to restore anything with.
                let mut held = env.take_blocks();
                let singles = core::iter::from_fn(|| env.block(Order::PAGE).ok());
                held.extend(singles.map(|frame| (frame, Order::PAGE)));
                pool.set_nr(0);
                let stuck = pool.numbers();
                drop(held);
                if by_put {
                    drop(mapping);
                } else {
                    pool.set_nr(0);
                    check_eq!(pool.numbers(), (1, 0, 0, 1), "0 written again");
                    drop(mapping);
                }
                check!(stuck.3 >= 2 && stuck.1 >= 1, "nothing was stuck: {stuck:?}");
                check_eq!(pool.numbers(), (0, 0, 0, 0), "by put: {by_put}");
            }
            Ok(())
        })
    })
}

/// T9: reservations, after LTP's `hugemmap12`, `16`, `27`, `28`, `30` and `38`: a
/// promise is kept against those who have none, discarding neither leaks nor brings
/// one back, and unmapping leaves nothing.
pub fn promises_are_kept<M: Machine>(env: &Env<'_, M>) -> Outcome {
    with_pool(env, 0, |pool| {
        if pool.set_nr(3) < 3 {
            skip!("no room for three folios");
        }
        let mut slots = ([Slot::Empty; 2], [Slot::Empty; 3]);
        let mut promised = made(pool.map(MapFlags::SHARED, &mut slots.0))?;
        let mut other = made(pool.map(MapFlags::SHARED.no_reserve(), &mut slots.1))?;
        check_eq!(pool.numbers(), (3, 3, 2, 0), "one is promised to nobody");
        check!(other.touch(0).is_ok(), "the one left over");
        check_eq!(
            other.touch(1),
            Err(FaultError::NoFolio),
            "promised to others"
        );
        check!(
            pool.h.take(env.m, pool.node).is_none(),
            "promised to others"
        );
        check_eq!(pool.numbers(), (3, 2, 2, 0));
        check!(pool.set_nr(0) == 0, "in use or promised: surplus");
        check_eq!(pool.numbers(), (3, 2, 2, 3), "shrunk under load");
        pool.set_nr(3);
        check!(promised.touch(0).is_ok() && promised.touch(0).is_ok());
        check_eq!(pool.numbers(), (3, 1, 1, 0), "touched twice");
        check_eq!(promised.discard(0), Ok(()));
        check_eq!(promised.discard(0), Ok(()));
        check_eq!(pool.numbers(), (3, 2, 1, 0), "discarded twice");
        check!(promised.touch(0).is_ok(), "nobody else was promised it");
        check_eq!(other.touch(1), Err(FaultError::NoFolio));
        check_eq!(promised.discard(1), Ok(()));
        check_eq!(pool.numbers(), (3, 1, 0, 0), "an untouched place discarded");
        check!(other.touch(1).is_ok());
        check_eq!(promised.touch(1), Err(FaultError::NoFolio), "given up");
        check_eq!((promised.reserved(), other.reserved()), (0, 0));
        drop(promised);
        drop(other);
        check_eq!(pool.numbers(), (3, 3, 0, 0), "unmapped");
        let mut many = [Slot::Empty; 4];
        check!(pool.map(MapFlags::SHARED, &mut many).is_err(), "4 of 3");
        check_eq!(pool.numbers(), (3, 3, 0, 0), "refused");
        Ok(())
    })
}

/// T10: `hugetlb_surplus_mempolicy` of Linux's selftests. With one surplus folio
/// allowed: it is made on the node that is bound to, beside a persistent one on another
/// node, and a third is refused.
pub fn surplus_is_made_where_bound<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    let (one, two) = env.two_nodes()?;
    on_empty_pools(env, || {
        let pools = [Pool::on(env, h, one), Pool::on(env, h, two)];
        let numbers = || [pools[0].numbers(), pools[1].numbers()];
        pools[0].with_overcommit(1, || {
            for pool in &pools {
                let mut slots = [Slot::Empty; 1];
                let mapping = made(pool.map(MapFlags::SHARED, &mut slots))?;
                check_eq!(pool.numbers(), (1, 1, 1, 1), "bound");
                drop(mapping);
                check_eq!(pool.numbers(), (0, 0, 0, 0), "unmapped");
            }
            pools[0].set_nr(1);
            let mut slots = [[Slot::Empty; 1]; 3];
            let [bound, anywhere, third] = &mut slots;
            let bound = made(pools[1].map(MapFlags::SHARED, bound))?;
            check_eq!(
                numbers(),
                [(1, 1, 1, 0), (1, 1, 1, 1)],
                "static and surplus"
            );
            let backing = env.mm.backing();
            let map = |slots| {
                env.mm
                    .hugetlb
                    .map(env.m, backing, h, MapFlags::SHARED, slots)
            };
            let anywhere = made(map(anywhere))?;
            check_eq!(numbers(), [(1, 1, 2, 0), (1, 1, 2, 1)], "both promised");
            check!(map(third).is_err(), "a third");
            check_eq!(numbers(), [(1, 1, 2, 0), (1, 1, 2, 1)], "refused");
            drop(anywhere);
            drop(bound);
            check_eq!(numbers(), [(1, 1, 0, 0), (0, 0, 0, 0)], "unmapped");
            Ok(())
        })
    })
}

/// The numbers that Linux reaches on two nodes (docs/results.md): all nodes in turn, a
/// node's own target, and shrinking in turn until one node is empty.
pub fn targets_by_node<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let h = env.hstate(Order::PMD)?;
    let (one, two) = env.two_nodes()?;
    let with_memory = |n: &NodeId| env.mm.nodes.get(*n).present_pages() > 0;
    if env.mm.nodes.online().filter(with_memory).count() > 2 {
        skip!("the numbers are those of two nodes");
    }
    if h.total(env.m).nr > 0 {
        skip!("the numbers are those of empty pools");
    }
    with_hvo(env, true, || {
        let before = env.snapshot();
        let set = |node, count| {
            let reached = env.mm.hugetlb.set_nr(env.m, env.backing(), h, node, count);
            let nr = |node| h.counts(env.m, node).nr;
            (reached, nr(one), nr(two))
        };
        let seen = [
            set(None, 64),
            set(Some(two), 75),
            set(Some(one), 10),
            set(None, 25),
            set(None, 40),
            set(None, 0),
        ];
        // In turn from 10 and 75: one is empty after 10 each, two gives the rest.
        let expected = [
            (64, 32, 32),
            (75, 32, 75),
            (10, 10, 75),
            (25, 0, 25),
            (40, seen[4].1, 40 - seen[4].1),
            (0, 0, 0),
        ];
        check_eq!(seen, expected);
        check!(
            seen[4].1 == 7 || seen[4].1 == 8,
            "15 in turn: {:?}",
            seen[4]
        );
        env.same_as(&before)
    })
}
