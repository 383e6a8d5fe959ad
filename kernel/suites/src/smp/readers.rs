//! Readers on all other CPUs while one CPU folds, unfolds, allocates and frees: what
//! R-1 promises, field by field, and R-2 (T3, T15).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;

use ktest::{Outcome, check};
use mm::addr::Order;
use mm::machine::Machine;

use super::arena::Arena;
use super::changes::Changes;
use super::{Party, several};
use crate::{Env, Random};

/// Changes by the one CPU, all CPUs together sharing the time there is.
const CHANGES: u64 = 1200;
/// Struct pages looked at between two tries to take references.
const LOOKS: u64 = 256;

/// Blocks of 512 KiB, 2 MiB and 8 MiB change hands under readers.
pub fn blocks_of_2m<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const ORDERS: &[Order] = &[Order::of(7), Order::PMD, Order::of(11)];
    under_readers(env, (Order::of(11), Order::of(13)), ORDERS, CHANGES)
}

/// Blocks of 2 MiB, 128 MiB and 1 GiB change hands under readers, in one block of 1 GiB.
pub fn blocks_of_1g<M: Machine>(env: &Env<'_, M>) -> Outcome {
    const ORDERS: &[Order] = &[Order::PMD, Order::of(15), Order::PUD];
    env.hstate(Order::PUD)?;
    under_readers(env, (Order::PUD, Order::PUD), ORDERS, CHANGES / 8)
}

fn under_readers<M: Machine>(
    env: &Env<'_, M>,
    sizes: (Order, Order),
    orders: &'static [Order],
    changes: u64,
) -> Outcome {
    let cpus = several(env)?;
    let before = env.snapshot();
    Arena::with(env, sizes, orders, |arena| {
        let done = AtomicBool::new(false);
        let got: Vec<AtomicU64> = (0..cpus).map(|_| AtomicU64::new(0)).collect();
        Party::run(env.m, |party, cpu| {
            if cpu > 0 {
                return read(arena, party, &done, &got[cpu], cpu as u64);
            }
            let mut work = Changes::new(arena);
            work.all_live()?;
            party.wait("a reference of every reader", || {
                got[1..].iter().all(|got| got.load(Ordering::Acquire) > 0)
            })?;
            for _ in 0..changes / cpus as u64 {
                work.any()?;
                env.m.touch_watchdog();
                if party.is_broken() {
                    break;
                }
            }
            // Release: what comes after has no readers.
            done.store(true, Ordering::Release);
            party.meet()?;
            work.end()
        })
    })?;
    env.same_as(&before)
}

/// Looks at every struct page, again and again, and takes references on some, until
/// `done`; at least once at all of them.
fn read<M: Machine>(
    arena: &Arena<'_, '_, M>,
    party: &Party<'_, M>,
    done: &AtomicBool,
    got: &AtomicU64,
    cpu: u64,
) -> Outcome {
    let mut random = Random::new(cpu);
    let mut looks = 0;
    while looks < arena.pages() || !done.load(Ordering::Acquire) {
        for _ in 0..LOOKS {
            arena.check((cpu * 1009 + looks) % arena.pages())?;
            looks += 1;
        }
        for raw in [false, true] {
            let n = random.below(arena.pages());
            // Raw, a tail would be refused nearly always: every other time a first page.
            let n = if raw { n / 512 * 512 } else { n };
            if arena.get_and_put(n, raw)? {
                got.fetch_add(1, Ordering::AcqRel);
            }
            arena.get_and_put(random.below(arena.pages()), true)?;
        }
        arena.env.m.touch_watchdog();
        if party.is_broken() {
            break;
        }
    }
    party.meet()?;
    check!(got.load(Ordering::Acquire) > 0, "no reference was got");
    Ok(())
}
