//! Translations that are stale, shown to be so, then cured; and what that costs.
//!
//! A missing flush shows only if a CPU has kept what should have been flushed. So each
//! case first proves that it would notice: it leaves the flush out, sees the old value,
//! and skips, with that reason, on a machine that keeps nothing.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{Order, PAGE_SIZE, PUD_SIZE, Pfn, VirtAddr};
use mm::machine::{Fault, Machine, Probe, TlbCounts};
use mm::page::{Page, PageList};
use mm::paging::{self, Flush, Level, Pte, PteFlags};
use mm::vmemmap::Fill;

use super::{Party, several};
use crate::Env;

/// How often something that a CPU may forget by its own choice is tried.
const TRIES: usize = 8;

/// Pages of scratch address space, one for each CPU, over two frames that hold
/// [`OLD`] and [`NEW`].
struct Pages<'a, 'b, M: Machine> {
    env: &'a Env<'b, M>,
    old: Pfn,
    new: Pfn,
    count: u64,
}

const OLD: u64 = 0x01d;
const NEW: u64 = 0x2e3;

impl<'a, 'b, M: Machine> Pages<'a, 'b, M> {
    /// Runs `case` with `count` pages mapped to the old frame.
    fn with(env: &'a Env<'b, M>, count: usize, case: impl FnOnce(&Self) -> Outcome) -> Outcome {
        let pages = Self {
            env,
            old: env.block(Order::PAGE)?,
            new: env.block(Order::PAGE)?,
            count: count as u64,
        };
        env.m.write_phys(pages.old.phys(), OLD);
        env.m.write_phys(pages.new.phys(), NEW);
        let outcome = pages.map().and_then(|()| case(&pages));
        for n in 0..pages.count {
            if let Ok((_, flush)) = paging::unmap(env.m, env.m.root(), pages.at(n), Level::Pte) {
                flush.flush(env.m);
            }
        }
        env.free(pages.old, Order::PAGE);
        env.free(pages.new, Order::PAGE);
        outcome
    }

    fn map(&self) -> Outcome {
        let (m, flags) = (self.env.m, PteFlags::KERNEL);
        let mut table = || crate::paging::table(self.env);
        for n in 0..self.count {
            let mapped = paging::map(
                m,
                m.root(),
                self.at(n),
                self.old,
                Level::Pte,
                flags,
                &mut table,
            );
            check_eq!(mapped, Ok(()));
        }
        Ok(())
    }

    fn at(&self, n: u64) -> VirtAddr {
        self.env.scratch.offset(3 * PUD_SIZE + n * PAGE_SIZE)
    }

    /// Stores the entry of page `n`; what that owes.
    fn remap(&self, n: u64, frame: Pfn, flags: PteFlags) -> Flush {
        let (m, at) = (self.env.m, self.at(n));
        let entry = paging::walk(m, m.root(), at);
        m.write_phys(entry.at, Pte::new(frame, flags).raw());
        Flush::new(at.range(PAGE_SIZE))
    }

    /// What every CPU gets from `look`.
    fn on_each<R: Into<u64>>(&self, look: impl Fn(VirtAddr) -> R + Sync) -> Vec<u64> {
        let m = self.env.m;
        let seen: Vec<AtomicU64> = (0..m.cpus()).map(|_| AtomicU64::new(u64::MAX)).collect();
        m.run_on_each(&|cpu| seen[cpu].store(look(self.at(0)).into(), Ordering::Release));
        seen.into_iter().map(AtomicU64::into_inner).collect()
    }

    /// Looks at page 0 on every CPU, changes its entry from `before` to `after`, looks
    /// again, flushes, and looks once more. Everybody must see `fresh[0]` at first and
    /// `fresh[1]` at last, and every other CPU once, in between, what was at first.
    fn stale_then_cured<R: Into<u64>>(
        &self,
        before: (Pfn, PteFlags),
        after: (Pfn, PteFlags),
        fresh: [u64; 2],
        look: impl Fn(VirtAddr) -> R + Sync,
    ) -> Outcome {
        let m = self.env.m;
        let mut kept: Vec<bool> = (0..m.cpus()).map(|cpu| cpu == m.this_cpu()).collect();
        for _ in 0..TRIES {
            self.remap(0, before.0, before.1).flush(m);
            let primed = self.on_each(&look);
            let owed = self.remap(0, after.0, after.1);
            let between = self.on_each(&look);
            owed.flush(m);
            let cured = self.on_each(&look);
            check!(
                primed.iter().all(|seen| *seen == fresh[0]),
                "after the first flush, CPU by CPU: {primed:x?}, not {:#x}",
                fresh[0]
            );
            check!(
                cured.iter().all(|seen| *seen == fresh[1]),
                "after the second flush, CPU by CPU: {cured:x?}, not {:#x}",
                fresh[1]
            );
            for (kept, seen) in kept.iter_mut().zip(between) {
                check!(fresh.contains(&seen), "{seen:#x} is neither old nor new");
                *kept |= seen == fresh[0];
            }
            if kept.iter().all(|kept| *kept) {
                return Ok(());
            }
        }
        let forgetful = kept.iter().position(|kept| !kept).unwrap_or(0);
        skip!("CPU {forgetful} kept no translation without a flush: a missing one would not show")
    }
}

/// A page is mapped elsewhere and no CPU is told: it still reads the old frame. Flushed,
/// it reads the new one.
pub fn stale_then_cured<M: Machine>(env: &Env<'_, M>) -> Outcome {
    several(env)?;
    Pages::with(env, 1, |pages| {
        pages.stale_then_cured(
            (pages.old, PteFlags::KERNEL),
            (pages.new, PteFlags::KERNEL),
            [OLD, NEW],
            |at| env.m.load64(at),
        )
    })
}

/// A page is made read-only and no CPU is told: it can still write. Flushed, it faults.
pub fn permission_stale_then_cured<M: Machine>(env: &Env<'_, M>) -> Outcome {
    several(env)?;
    Pages::with(env, 1, |pages| {
        pages.stale_then_cured(
            (pages.old, PteFlags::KERNEL),
            (pages.old, PteFlags::KERNEL_RO),
            [0, Fault::WRITE_TO_READ_ONLY],
            |at| {
                env.m
                    .probe(at, Probe::Store)
                    .map_or_else(|fault| fault.code, |()| 0)
            },
        )
    })
}

/// Whether on this CPU page `n`, mapped with `flags`, still leads to the old frame when
/// its entry has changed and `drop` was called.
fn survives<M: Machine>(
    pages: &Pages<'_, '_, M>,
    n: u64,
    flags: PteFlags,
    drop: impl Fn(VirtAddr),
) -> Result<bool, Stop> {
    let (m, at) = (pages.env.m, pages.at(n));
    let own = "one CPU uses the page, and flushes it itself";
    pages.remap(n, pages.old, flags).ignore(own);
    m.flush_page_local(at);
    check_eq!(m.load64(at), OLD, "old frame, flushed");
    pages.remap(n, pages.new, flags).ignore(own);
    drop(at);
    let seen = m.load64(at);
    m.flush_page_local(at);
    check_eq!(m.load64(at), NEW, "new frame, flushed");
    match seen {
        OLD => Ok(true),
        NEW => Ok(false),
        other => fail!("read {other:#x}, which is neither old nor new"),
    }
}

/// On every CPU at once: whether a translation with `flags` was kept through `drop`. A
/// skip if it was not kept without it either.
fn kept_on_each<M: Machine>(
    env: &Env<'_, M>,
    flags: PteFlags,
    drop: impl Fn(VirtAddr) + Sync,
) -> Result<Vec<bool>, Stop> {
    let kept: Vec<AtomicBool> = (0..env.m.cpus()).map(|_| AtomicBool::new(false)).collect();
    Pages::with(env, env.m.cpus(), |pages| {
        Party::run(env.m, |_, cpu| {
            let page = cpu as u64;
            let keeps = (0..TRIES).try_fold(false, |kept, _| {
                Ok::<_, Stop>(kept | survives(pages, page, flags, |_| ())?)
            })?;
            if !keeps {
                skip!("CPU {cpu} keeps no translation that was not flushed");
            }
            for _ in 0..TRIES {
                if survives(pages, page, flags, &drop)? {
                    kept[cpu].store(true, Ordering::Release);
                }
            }
            Ok(())
        })
    })?;
    Ok(kept.into_iter().map(AtomicBool::into_inner).collect())
}

/// INVLPG and a full flush drop a global translation, on every CPU.
pub fn flushes_drop_global<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let m = env.m;
    let by_page = kept_on_each(env, PteFlags::KERNEL, |at| m.flush_page_local(at))?;
    let by_all = kept_on_each(env, PteFlags::KERNEL, |_| m.flush_all_local())?;
    check!(!by_page.contains(&true), "kept through INVLPG: {by_page:?}");
    check!(
        !by_all.contains(&true),
        "kept through a full flush: {by_all:?}"
    );
    Ok(())
}

/// A load of CR3 drops what is not global, on every CPU.
pub fn reload_drops_non_global<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let flags = PteFlags::KERNEL.difference(PteFlags::GLOBAL);
    let kept = kept_on_each(env, flags, |_| env.m.reload_root_local())?;
    check!(
        !kept.contains(&true),
        "kept through a load of CR3: {kept:?}"
    );
    Ok(())
}

/// A global translation survives a load of CR3, so that is no flush. Software
/// emulation drops it, which a processor may, too: nothing is shown there.
pub fn global_survives_reload<M: Machine>(env: &Env<'_, M>) -> Outcome {
    let kept = kept_on_each(env, PteFlags::KERNEL, |_| env.m.reload_root_local())?;
    if !kept.contains(&true) {
        skip!("here a load of CR3 drops global translations, too, as software emulation does");
    }
    Ok(())
}

/// What `work` adds to the counts of each CPU.
fn counted<M: Machine>(m: &M, work: impl FnOnce()) -> Vec<TlbCounts> {
    let now = || (0..m.cpus()).map(|cpu| m.tlb_counts(cpu));
    let before: Vec<TlbCounts> = now().collect();
    work();
    now()
        .zip(before)
        .map(|(after, before)| after.since(before))
        .collect()
}

/// Fails unless this CPU started `rounds` rounds and all others took part in each.
fn check_rounds<M: Machine>(m: &M, counts: &[TlbCounts], rounds: u64, what: &str) -> Outcome {
    let others = counts.len() as u64 - 1;
    for (cpu, found) in counts.iter().enumerate() {
        let started = cpu == m.this_cpu();
        let expected = TlbCounts {
            rounds: if started { rounds } else { 0 },
            sent: if started { rounds * others } else { 0 },
            received: if started { 0 } else { rounds },
            ..*found
        };
        check_eq!(*found, expected, "CPU {cpu}, {what}");
    }
    Ok(())
}

/// A batch costs as many rounds as one folio, one, and each other CPU is interrupted once
/// for it.
pub fn one_round_per_batch<M: Machine>(env: &Env<'_, M>) -> Outcome {
    several(env)?;
    let (m, order, nodes) = (env.m, Order::PMD, &env.mm.nodes);
    for folios in [1, 2, 16, 64] {
        let mut heads: Vec<Page> = Vec::new();
        heads.extend((0..folios).map_while(|_| env.compound(order).ok()));
        let mut list = PageList::new();
        heads.iter().for_each(|head| list.push(m, *head));
        let (mut folded, mut unfolded) = (0, 0);
        let fold = counted(m, || {
            folded = env.mm.vmemmap.optimize_folios(m, nodes, &list, order);
        });
        let unfold = counted(m, || {
            let restore = Fill::Tails;
            unfolded = env
                .mm
                .vmemmap
                .restore_folios(m, nodes, &list, order, restore);
        });
        while list.pop(m).is_some() {}
        let got = heads.len() as u64;
        heads
            .iter()
            .for_each(|head| env.free_compound(*head, order));
        if got < folios {
            check!(folios > 2, "no two free blocks of order {order}");
            break;
        }
        check_eq!((folded, unfolded), (folios, folios), "folded, unfolded");
        check_rounds(m, &fold, 1, "fold")?;
        check_rounds(m, &unfold, 1, "unfold")?;
    }
    Ok(())
}

/// Up to the ceiling a range is flushed page by page, above it all at once; on every
/// CPU, in one round.
pub fn ranges_by_page_or_all<M: Machine>(env: &Env<'_, M>) -> Outcome {
    several(env)?;
    let (m, ceiling) = (env.m, paging::full_flush_ceiling());
    for pages in [
        1,
        2,
        ceiling.clamp(1, 1 << 12),
        ceiling.min(1 << 20) + 1,
        1 << 20,
    ] {
        let range = env.scratch.range(pages * PAGE_SIZE);
        let counts = counted(m, || Flush::new(range).flush(m));
        check_rounds(m, &counts, 1, "flush of a range")?;
        for (cpu, found) in counts.iter().enumerate() {
            let expected = if pages > ceiling { (0, 1) } else { (pages, 0) };
            check_eq!(
                (found.pages, found.all),
                expected,
                "CPU {cpu}, {pages} pages"
            );
        }
    }
    Ok(())
}
