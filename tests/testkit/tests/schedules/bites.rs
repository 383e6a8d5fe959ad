//! The schedules bite: with one promise broken, one of the first few hundred fails.

use testkit::Sabotage;
use testkit::schedule::{Found, search};

use crate::story::UnderReaders;

/// Schedules within which a broken promise must be found.
const BUDGET: u64 = 300;

fn must_find(order: u8, split: bool, sabotage: Sabotage) -> Found {
    let story = UnderReaders {
        order,
        split,
        multi_hit: None,
        sabotage,
    };
    finds(&story)
}

fn finds(story: &UnderReaders) -> Found {
    let UnderReaders {
        order,
        split,
        sabotage,
        ..
    } = *story;
    match search(story, BUDGET) {
        Ok(explored) => panic!("{sabotage:?}, order {order}: not noticed in {explored}"),
        Err(found) => {
            println!("{sabotage:?}, order {order}, split {split}: {found}");
            found
        }
    }
}

/// Each flush instruction of each CPU, left out alone: one a page of memmap to fold,
/// as many to unfold.
#[test]
fn a_flush_skipped_on_one_cpu_is_found() {
    for cpu in 0..3 {
        for nth in 1..=4 {
            must_find(7, true, Sabotage::DropFlush { cpu, nth });
        }
    }
}

#[test]
fn a_round_nobody_waits_for_is_found() {
    for (order, split) in [(7, false), (7, true), (9, false), (9, true)] {
        must_find(order, split, Sabotage::NoWait);
    }
}

#[test]
fn frames_freed_before_the_flush_are_found() {
    for (order, split) in [(7, false), (7, true), (9, false), (9, true)] {
        must_find(order, split, Sabotage::FlushAfterFree);
    }
}

/// Nothing is left of this one in the end: only a reader in between can see it.
#[test]
fn a_head_copied_after_the_remap_is_found() {
    for (order, split) in [(7, false), (7, true), (9, false), (9, true)] {
        let found = must_find(order, split, Sabotage::LateCopy);
        let reader = ["CPU 1", "CPU 2"].map(|cpu| found.text.starts_with(cpu));
        assert!(reader.contains(&true), "{found}");
    }
}

/// On a processor where two sizes of one address are a machine check, a flush left out is found as
/// on any other; and so is the kernel that does not know of it, by the first leaf it replaces.
#[test]
fn two_sizes_are_found() {
    let story = |sabotage, hidden| UnderReaders {
        order: 9,
        split: false,
        multi_hit: Some(hidden),
        sabotage,
    };
    finds(&story(Sabotage::DropFlush { cpu: 1, nth: 8 }, false));
    let found = finds(&story(Sabotage::None, true));
    assert!(found.text.contains("machine check"), "{found}");
}
