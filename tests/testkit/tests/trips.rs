//! Every case leaves the machine as it found it, however it ends: each is made to fail and to be
//! skipped at its checks, one run for each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ktest::{How, Outcome, checks_seen, trip_at};
use suites::Env;
use testkit::{EmulatedMachine, World};

type Body = fn(&Env<'_, EmulatedMachine>) -> Outcome;

/// A small machine of two nodes, or one with room for 1 GiB folios on each.
fn world(large: bool) -> World {
    let (first, second) = if large { (2048, 5120) } else { (512, 1536) };
    World::builder()
        .ram(0, 1, first)
        .ram(1, first + 512, second)
        .cpus(2)
        .boot()
}

/// What is in the names of cases that a small machine has no room for.
const LARGE: &[&str] = &[
    "gigantic",
    "1g",
    "layouts:",
    "order_1",
    "demote",
    "smp_readers",
];

/// The checks that a case is made to end at: its first ones, and some later, as long as it has any.
/// All of its checks would be all of its length, as often: with `TAILFOLD_TRIPS=word`, the cases
/// with that word in their names end at each of their first 40 checks, and at many of the others.
fn points(only: &str) -> Vec<u64> {
    if only.is_empty() {
        return vec![1, 3, 9, 17];
    }
    let later = std::iter::successors(Some(40), |at| Some(at + at / 3)).take(24);
    (1..40).chain(later).collect()
}

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
    let mut worlds = [world(false), world(true)];
    let mut tripped = 0;
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
        let large = LARGE.iter().any(|word| name.contains(word));
        let w = &mut worlds[usize::from(large)];
        let from = std::time::Instant::now();
        for (n, at) in points(&only).iter().enumerate() {
            let how = [How::Fails, How::Skips][n % 2];
            if let Err(why) = left(w, *case, *at, how) {
                bad.push(format!("{name} at check {at}, {how:?}: {why}"));
                *w = world(large);
            }
            if checks_seen() < *at {
                break;
            }
            tripped += 1;
        }
        eprintln!("{name}: {} checks, {:?}", checks_seen(), from.elapsed());
    }
    eprintln!("{tripped} cases ended early");
    assert!(!only.is_empty() || tripped > 500, "too few: {tripped}");
    assert!(bad.is_empty(), "{}:\n{}", bad.len(), bad.join("\n"));
}
