//! The suites about several CPUs notice what they are there for: on a machine that
//! breaks one promise each of these cases fails, by what it says itself. Freed frames are
//! not watched here, or the machine would be faster to notice.

use ktest::{Outcome, Stop};
use testkit::{EmulatedMachine, Sabotage, World};

type Case = fn(&suites::Env<'_, EmulatedMachine>) -> Outcome;

/// What `case` says on a machine with `sabotage`, which must be a failure.
fn failure(case: Case, sabotage: Sabotage) -> String {
    let world = World::builder()
        .ram(0, 1, 512)
        .ram(1, 512, 1024)
        .cpus(4)
        .blind()
        .boot();
    world.speculate(0.05, 1);
    world.m.sabotage(sabotage);
    match case(&world.env()) {
        Err(Stop::Failed(failure)) => {
            assert!(world.m.sabotaged() > 0, "nothing was sabotaged: {failure}");
            failure.to_string()
        }
        Err(Stop::Skipped(reason)) => panic!("skipped: {reason}"),
        Ok(()) => panic!("{sabotage:?} was not noticed"),
    }
}

#[track_caller]
fn notices(case: Case, sabotage: Sabotage, says: &str) {
    let said = failure(case, sabotage);
    assert!(said.contains(says), "expected \"{says}\" in: {said}");
}

#[test]
fn flushing_this_cpu_only_leaves_the_old_frame() {
    notices(
        suites::smp_tlb::stale_then_cured,
        Sabotage::LocalRoundsOnly,
        "after the second flush",
    );
}

#[test]
fn flushing_this_cpu_only_leaves_the_old_rights() {
    notices(
        suites::smp_tlb::permission_stale_then_cured,
        Sabotage::LocalRoundsOnly,
        "after the second flush",
    );
}

#[test]
fn a_deaf_cpu_is_named() {
    let deaf = Sabotage::DropFlush { cpu: 2, nth: 2 };
    let said = failure(suites::smp_tlb::stale_then_cured, deaf);
    assert!(said.contains("[2e3, 2e3, 1d, 2e3]"), "{said}");
}

#[test]
fn rounds_that_stay_here_are_not_counted_as_rounds() {
    for case in [
        suites::smp_tlb::one_round_per_batch as Case,
        suites::smp_tlb::ranges_by_page_or_all,
    ] {
        notices(case, Sabotage::LocalRoundsOnly, "CPU 0, ");
    }
}

#[test]
fn a_round_left_out_is_missed() {
    notices(
        suites::smp_tlb::one_round_per_batch,
        Sabotage::DropRound { nth: 3 },
        "CPU 0, fold",
    );
}

#[test]
fn writable_tails_are_noticed() {
    for case in [
        suites::smp_faults::tail_writes_fault as Case,
        suites::smp_faults::unconditional_add_faults,
    ] {
        notices(case, Sabotage::WritableEntries, "order 7");
    }
}

#[test]
fn flushing_this_cpu_only_shows_poison() {
    notices(
        suites::smp_churn::nobody_sees_freed_frames,
        Sabotage::LocalRoundsOnly,
        "shows a freed frame",
    );
    notices(
        suites::smp_readers::blocks_of_2m,
        Sabotage::LocalRoundsOnly,
        "5d5d5d5d5d5d5d5c",
    );
}

#[test]
fn freeing_before_the_flush_shows_poison() {
    // Nothing marks frames as freed here, so what is put off is never made up for.
    notices(
        suites::smp_churn::nobody_sees_freed_frames,
        Sabotage::FlushAfterFree,
        "shows a freed frame",
    );
}

#[test]
fn a_head_that_was_not_copied_is_noticed() {
    let case = || {
        failure(
            suites::smp_readers::blocks_of_2m,
            Sabotage::SkipCopy { nth: 2 },
        )
    };
    // Either a reader names the page, or what it reads in it is not even a mask.
    match std::panic::catch_unwind(case) {
        Ok(said) => assert!(said.contains("page "), "{said}"),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let said = said.unwrap_or_default();
            assert!(said.contains("the word of a tail is no mask"), "{said}");
        }
    }
}
