//! Every case leaves the machine as it found it, however it ends: each is made to fail and to be
//! skipped at its checks, one run for each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ktest::{How, Outcome, checks_seen, trip_at};
use suites::Env;
use testkit::{EmulatedMachine, World};

/// The suites of which every case is clean. `TAILFOLD_TRIPS=word` tries all cases with that word in
/// their names instead.
const CLEAN: &[&str] = &[
    "boot_folios",
    "buddy",
    "compound_info",
    "gigantic_demote",
    "hugetlb_events",
    "hugetlb_pool",
    "hvo",
    "hvo_faults",
    "hvo_orders",
    "layout",
    "memory_map",
    "vmemmap",
    "vmemmap_audit",
];

type Body = fn(&Env<'_, EmulatedMachine>) -> Outcome;

fn world() -> World {
    World::builder()
        .ram(0, 1, 2048)
        .ram(1, 3072, 5120)
        .cpus(2)
        .boot()
}

/// The checks that a case is made to end at: its first ones, and some later, as long as it has any.
/// All of its checks would be all of its length, as often.
const POINTS: &[u64] = &[1, 3, 9, 17];

/// Runs `case` on `world`, made to end at check `at`; what it left behind, if anything.
fn left(world: &World, case: Body, at: u64, how: How) -> Result<(), String> {
    let run = || {
        let env = world.env();
        let before = env.snapshot();
        trip_at(at, how);
        let _ = suites::tidy(&env, || case(&env));
        trip_at(0, how);
        if let Err(stop) = env.same_as(&before) {
            return Err(format!("{stop:?}"));
        }
        world.check();
        Ok(())
    };
    let result = catch_unwind(AssertUnwindSafe(run));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

#[test]
fn cases_clean_up_however_they_end() {
    let mut cases: BTreeMap<String, Body> = BTreeMap::new();
    macro_rules! add {
        ($from:tt::$suite:ident: $($case:ident),* $(,)?) => { $(
            cases.insert(
                concat!(stringify!($suite), ":", stringify!($case)).to_owned(),
                $from::$suite::$case,
            );
        )* };
    }
    suites::for_each_suite!(add);
    lab_cases::for_each_suite!(add);
    let mut bad = Vec::new();
    let only = std::env::var("TAILFOLD_TRIPS").unwrap_or_default();
    let chosen = |name: &str| {
        let (suite, _) = name.split_once(':').unwrap_or((name, ""));
        if only.is_empty() {
            CLEAN.contains(&suite)
        } else {
            name.contains(&only)
        }
    };
    for (name, case) in cases.iter().filter(|(name, _)| chosen(name)) {
        let from = std::time::Instant::now();
        let mut w = world();
        for (n, at) in POINTS.iter().enumerate() {
            let how = [How::Fails, How::Skips][n % 2];
            if let Err(why) = left(&w, *case, *at, how) {
                bad.push(format!("{name} at check {at}, {how:?}: {why}"));
                w = world();
            }
            if checks_seen() < *at {
                break;
            }
        }
        eprintln!("{name}: {} checks, {:?}", checks_seen(), from.elapsed());
    }
    assert!(bad.is_empty(), "{}:\n{}", bad.len(), bad.join("\n"));
}
