//! Several CPUs on one map.

use core::sync::atomic::{AtomicU64, Ordering};

use ktest::{Outcome, check, check_eq};
use lab::memdesc::{Descriptor as _, MemdescError, StructPage};
use mm::addr::Order;
use mm::machine::Machine;

use super::{World, each_size};
use suites::{Env, Random};

const ROUNDS: u64 = 40;

/// Every CPU allocates, folds and frees folios, and takes references on whatever page it
/// meets: a reference is always on the folio that the page belongs to, what was
/// allocated stays whole, and nothing is left.
pub fn cpus_share_a_map<M: Machine>(env: &Env<'_, M>) -> Outcome {
    fn case<M: Machine, L: StructPage>(w: &World<'_, M, L>) -> Outcome {
        let (wrong, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        w.m.run_on_each(&|cpu| {
            let mut random = Random::new(cpu as u64 + 1);
            for _ in 0..ROUNDS {
                w.m.touch_watchdog();
                let (bad, got) = round(w, &mut random);
                wrong.fetch_add(bad, Ordering::Relaxed);
                taken.fetch_add(got, Ordering::Relaxed);
            }
        });
        check_eq!(wrong.load(Ordering::Relaxed), 0, "{} bytes", L::SIZE);
        check!(
            taken.load(Ordering::Relaxed) > 0,
            "no reference was ever taken"
        );
        check_eq!(w.map.totals(w.m).descriptors, [0; 4]);
        w.check()
    }
    each_size!(env, Order::of(12), case)
}

/// How many things went wrong, and references were taken.
fn round<M: Machine, L: StructPage>(w: &World<'_, M, L>, random: &mut Random) -> (u64, u64) {
    let (m, map, mut wrong, mut taken) = (w.m, &w.map, 0, 0);
    let order = Order::of(match random.below(6) {
        0 => 0,
        1 => 1,
        2 => 7,
        3 => 9,
        _ => 10,
    });
    let held = match map.alloc_folio(m, w.nodes, order) {
        Ok(folio) => Some(folio),
        Err(MemdescError::NoSpace(_) | MemdescError::NoMemory) => None,
        Err(_) => return (1, 0),
    };
    if let Some(folio) = held.filter(|_| order >= L::MIN_ORDER) {
        wrong += u64::from(map.fold(m, w.nodes, folio).is_err());
    }
    for _ in 0..8 {
        let pfn = map.range().start.offset(random.below(map.range().pages()));
        let Some(folio) = map.folio_try_get(m, w.nodes, map.page(pfn)) else {
            continue;
        };
        taken += 1;
        let inside = folio.pfn(m).block(folio.order(m)).contains(pfn);
        let still = map.page_folio(m, map.page(pfn)) == Some(folio);
        wrong += u64::from(!inside || !still);
        map.folio_put(m, w.nodes, folio);
    }
    if let Some(folio) = held {
        let first = folio.pfn(m);
        let whole = map.all_hold(m, first, order, folio.memdesc(m));
        wrong += u64::from(!whole || folio.order(m) != order);
        map.folio_put(m, w.nodes, folio);
    }
    (wrong, taken)
}
