//! What every case does for every layout.

use alloc::collections::BTreeSet;
use core::fmt;

use ktest::{Outcome, Stop, check, check_eq};
use mm::addr::{Order, Pfn, PfnRange};
use mm::layouts::{Flatmem, LayoutError, Map, Model, Sparsemem, Spec, Vmemmap};
use mm::machine::Machine;
use mm::page::encoding::*;

use crate::Env;

/// First frame described: a multiple of the largest folio, and of no frame that exists.
pub(super) const FIRST: Pfn = Pfn::new(1 << 28);

/// The block of `order` that the cases describe.
pub(super) const fn range(order: u8) -> PfnRange {
    FIRST.block(Order::of(order))
}

/// A body for one layout.
pub(super) trait Body {
    /// Called for every combination; those that do not work are refused by
    /// [`Map::try_new`].
    fn run<M: Machine, E: Encoding, S: PageShape, Mo: Model>(env: &Env<'_, M>) -> Outcome;
}

/// Runs `B` for every encoding, size and model, and checks after each that nothing is
/// left behind.
pub(super) fn each_layout<M: Machine, B: Body>(env: &Env<'_, M>) -> Outcome {
    macro_rules! encoding {
        ($encoding:ident) => { encoding!($encoding: Bytes64, Bytes56, Bytes32, Bytes8); };
        ($encoding:ident: $($shape:ident),*) => { $(
            one::<M, B, $encoding, $shape, Vmemmap>(env)?;
            one::<M, B, $encoding, $shape, Sparsemem>(env)?;
            one::<M, B, $encoding, $shape, Flatmem>(env)?;
        )* };
    }
    mm::for_each_encoding!(encoding);
    Ok(())
}

fn one<M: Machine, B: Body, E: Encoding, S: PageShape, Mo: Model>(env: &Env<'_, M>) -> Outcome {
    let before = env.snapshot();
    let run = B::run::<M, E, S, Mo>(env);
    let run = run.and_then(|()| env.same_as(&before));
    env.m.touch_watchdog();
    run.map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            let layout = (E::NAME, S::SIZE, Mo::MODEL.name());
            failure.message = ktest::Text::of(format_args!("{layout:?}: {}", failure.message));
            Stop::Failed(failure)
        }
        skipped @ Stop::Skipped(_) => skipped,
    })
}

/// A populated map, if the layout works.
pub(super) fn map<M: Machine, E: Encoding, S: PageShape, Mo: Model>(
    env: &Env<'_, M>,
    spec: Spec,
) -> Result<Option<Map<E, S, Mo>>, Stop> {
    let Ok(mut map) = Map::try_new(spec) else {
        return Ok(None);
    };
    ok(map.populate(env.m, &env.mm.nodes), "populate")?;
    Ok(Some(map))
}

/// A failure of the case, unless it is `Ok`.
pub(super) fn ok<T>(result: Result<T, LayoutError>, what: &str) -> Result<T, Stop> {
    result.or_else(|error| ktest::fail!("{what}: {error}"))
}

/// The map's audit, and that no frame is in it twice as writable memory.
pub(super) fn audit<M: Machine, E: Encoding, S: PageShape, Mo: Model>(
    env: &Env<'_, M>,
    map: &Map<E, S, Mo>,
    when: impl fmt::Display,
) -> Outcome {
    let mut frames = BTreeSet::new();
    let mut twice = None;
    let result = map.audit(env.m, &mut |leaf| {
        if leaf.writable {
            for n in 0..leaf.pages {
                let frame = leaf.frame.offset(n);
                if !frames.insert(frame.as_u64()) {
                    twice = Some(frame);
                }
            }
        }
    });
    if let Err(finding) = result {
        ktest::fail!("{when}: {finding}");
    }
    check_eq!(twice, None, "{when}: a frame mapped writable twice");
    Ok(())
}

/// Takes a map down; it had nothing left.
pub(super) fn release<M: Machine, E: Encoding, S: PageShape, Mo: Model>(
    env: &Env<'_, M>,
    map: Map<E, S, Mo>,
) -> Outcome {
    let ledger = map.release(env.m, &env.mm.nodes);
    check!(ledger.owned() == 0, "left in the ledger: {ledger:?}");
    Ok(())
}
