//! Churn: every CPU does everything at once, in an order of its own, on all nodes.
//!
//! What a soak is made of: pools of both sizes grow and shrink, singly and in
//! batches; folios are taken, looked at and put back; blocks of other orders are folded
//! and unfolded; memory is allocated, written, read back and freed; HVO is switched on and
//! off; operations are made to fail; and in between each CPU reads struct pages that
//! are no business of its own, as compaction would. Anything that is not as it must be
//! stops all CPUs and is told.
//!
//! Between two [`Churn::round`]s all CPUs stand still with what they hold, so that the
//! audit can run. [`Churn::finish`] gives everything back and compares.

mod held;
mod reader;
mod step;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ktest::{Outcome, Stop, check_eq};
use mm::addr::Order;
use mm::hugetlb::Counts;
use mm::machine::{FailPoint, Machine};
use mm::page::Page;
use spin::Mutex;

use crate::env::Snapshot;
use crate::{Env, Random};

use held::Held;

/// What one CPU has of its own.
#[derive(Debug)]
struct Cpu {
    random: Random,
    held: Held,
    /// Relaxed: a statistic.
    operations: u64,
}

/// All CPUs at work on one memory manager.
#[derive(Debug)]
pub struct Churn<'a, M: Machine> {
    env: &'a Env<'a, M>,
    /// Each locked by its CPU for the length of a round, so never waited for.
    cpus: Vec<Mutex<Cpu>>,
    /// Steps done by all. Relaxed: a statistic.
    operations: AtomicU64,
    /// All CPUs leave the round. Relaxed: the end of the round is what orders.
    stop: AtomicBool,
    /// What went wrong first.
    failed: Mutex<Option<Stop>>,
    /// Folios that were in the pools before.
    aside: Vec<(Order, Page)>,
    before: Before,
}

/// What must be the same when all is over.
#[derive(Debug)]
struct Before {
    snapshot: Snapshot,
    pools: Vec<Counts>,
    optimizes: bool,
}

/// Stops the round when its CPU leaves it, however it does.
struct StopAll<'a>(&'a AtomicBool);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a, M: Machine> Churn<'a, M> {
    /// Prepares for it: folios that are in the pools are taken, to be read and left
    /// alone. What each CPU does follows from `seed`; when it does it, does not.
    #[must_use]
    pub fn new(env: &'a Env<'a, M>, seed: u64) -> Self {
        let mut churn = Self {
            env,
            cpus: Vec::new(),
            operations: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            failed: Mutex::new(None),
            aside: Vec::new(),
            before: Before {
                snapshot: env.snapshot(),
                pools: pools(env),
                optimizes: env.mm.hugetlb.optimizes(),
            },
        };
        for h in env.mm.hugetlb.hstates() {
            for node in env.mm.nodes.online() {
                let taken = core::iter::from_fn(|| h.take(env.m, node));
                churn.aside.extend(taken.map(|head| (h.order(), head)));
            }
        }
        // Seeds far apart (Weyl sequence), and none of them 0.
        let mut state = seed;
        for _ in 0..env.m.cpus() {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            churn.cpus.push(Mutex::new(Cpu {
                random: Random::new(state | 1),
                held: Held::default(),
                operations: 0,
            }));
        }
        churn
    }

    /// Steps that all CPUs have done so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Steps that each CPU has done so far. Between rounds.
    pub fn operations_by_cpu(&self) -> impl Iterator<Item = u64> + '_ {
        self.cpus.iter().map(|cpu| cpu.lock().operations)
    }

    /// All CPUs churn. The first one asks `go` after each of its steps; at a no they
    /// all stop, holding what they hold.
    ///
    /// # Errors
    /// What was not as it must be.
    pub fn round(&self, go: &(dyn Fn() -> bool + Sync)) -> Outcome {
        self.stop.store(false, Ordering::Relaxed);
        self.env.m.run_on_each(&|cpu| {
            let _stop = StopAll(&self.stop);
            let Some(mut this) = self.cpus[cpu].try_lock() else {
                return self.fail(Stop::failed(
                    file!(),
                    line!(),
                    format_args!("CPU {cpu} runs twice"),
                ));
            };
            while !self.stop.load(Ordering::Relaxed) {
                self.env.m.touch_watchdog();
                if let Err(stop) = self.step(&mut this) {
                    return self.fail(stop);
                }
                this.operations += 1;
                self.operations.fetch_add(1, Ordering::Relaxed);
                if cpu == 0 && !go() {
                    break;
                }
            }
        });
        for point in [
            FailPoint::PageAlloc,
            FailPoint::VmemmapPte,
            FailPoint::VmemmapPmd,
        ] {
            self.env.m.fail_nth(point, None);
        }
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    fn fail(&self, stop: Stop) {
        self.failed.lock().get_or_insert(stop);
    }

    /// Gives everything back; then pools, free memory and the ledger are what they
    /// were.
    ///
    /// # Errors
    /// What is not.
    pub fn finish(self) -> Outcome {
        let env = self.env;
        // Memory first: unfolding needs it.
        for cpu in &self.cpus {
            let held = &mut cpu.lock().held;
            held.release_memory(env)?;
            held.release_folios(env)?;
        }
        for h in env.mm.hugetlb.hstates() {
            let free = h.total(env.m).free;
            let removed = env.mm.hugetlb.shrink(env.m, env.backing(), h, None, free);
            check_eq!(removed, free, "free folios of {} given back", h.name());
        }
        for cpu in &self.cpus {
            cpu.lock().held.release_folded(env)?;
        }
        for (order, head) in self.aside.into_iter().rev() {
            env.hstate(order)?.put(env.m, head);
        }
        env.mm.hugetlb.set_optimize(self.before.optimizes);
        check_eq!(pools(env), self.before.pools, "pools");
        env.same_as(&self.before.snapshot)
    }
}

/// The numbers of every pool.
fn pools<M: Machine>(env: &Env<'_, M>) -> Vec<Counts> {
    let nodes = env.mm.nodes.online();
    env.mm
        .hugetlb
        .hstates()
        .flat_map(|h| nodes.clone().map(|node| h.counts(env.m, node)))
        .collect()
}
