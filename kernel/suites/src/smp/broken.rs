//! Frames break and are repaired while other CPUs use the huge pages they are part of.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ktest::{Outcome, check, check_eq};
use mm::addr::{Order, Pfn};
use mm::hwpoison::PoisonError;
use mm::machine::Machine;

use super::several;
use crate::hugetlb::grow_or_skip;
use crate::hwpoison::each_policy;
use crate::{Env, Random};

/// Folios in the pool to begin with.
const FOLIOS: u64 = 4;

/// One CPU reports frames broken and takes it back; one makes the pool smaller and larger;
/// all others take folios and put them. Nothing is lost, nobody is surprised.
pub fn frames_break_under_users<M: Machine>(env: &Env<'_, M>) -> Outcome {
    several(env)?;
    let h = env.hstate(Order::PMD)?;
    each_policy(env, |_| {
        let (m, hugetlb) = (env.m, &env.mm.hugetlb);
        let before = h.total(m);
        let grown = grow_or_skip(env, h, FOLIOS)?;
        let taken = (0..grown).map_while(|_| h.take_near(m, &env.mm.nodes));
        let heads: Vec<_> = taken.collect();
        let memmap = env.mm.vmemmap.memmap();
        let blocks: Vec<Pfn> = heads.iter().map(|head| memmap.pfn(*head)).collect();
        for head in heads {
            hugetlb.put(m, env.backing(), h, head);
        }
        // Relaxed: read when all CPUs are done.
        let (handled, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        m.run_on_each(&|cpu| {
            let mut random = Random::new(cpu as u64 + 1);
            let number = |random: &mut Random, of: usize| {
                usize::try_from(random.below(of as u64)).unwrap_or(0)
            };
            for _ in 0..if cpu == 0 { 12 } else { 40 } {
                m.touch_watchdog();
                match cpu {
                    0 => {
                        let block = blocks[number(&mut random, blocks.len())];
                        let pfn = block.offset(random.below(Order::PMD.pages()));
                        match env.mm.memory_failure(m, pfn) {
                            Ok(_) => {
                                let repaired = env.mm.unpoison_memory(m, pfn);
                                handled.fetch_add(1, Ordering::Relaxed);
                                lost.fetch_add(u64::from(repaired.is_err()), Ordering::Relaxed);
                            }
                            // Part of no huge page just now, but of its memmap or tables.
                            Err(PoisonError::Busy(_)) => (),
                            Err(_) => {
                                lost.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    1 => {
                        hugetlb.shrink(m, env.backing(), h, None, 1);
                        hugetlb.grow(m, env.backing(), h, None, 1);
                    }
                    _ => {
                        if let Some(head) = h.take_near(m, &env.mm.nodes) {
                            hugetlb.put(m, env.backing(), h, head);
                        }
                    }
                }
            }
        });
        check_eq!(lost.load(Ordering::Relaxed), 0, "frames not repaired");
        check!(handled.load(Ordering::Relaxed) > 0, "no frame was broken");
        check_eq!(env.mm.hwpoison.pages(), 0, "frames still broken");
        let left = h.total(m);
        let taken = (before.nr - before.free, left.nr - left.free);
        check_eq!(taken.0, taken.1, "folios that somebody has");
        hugetlb.shrink(m, env.backing(), h, None, left.free);
        check_eq!(h.total(m), before, "pools");
        Ok(())
    })
}
