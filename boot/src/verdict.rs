//! What the end of a guest means.

use std::process::ExitStatus;

use crate::error::Error;
use crate::ktap::{self, Report, Status};
use crate::machine::Machine;
use crate::qemu::{self, End, Ended, Options, is_given};

/// QEMU's status for a kernel whose self-tests passed: 0x10 written to `isa-debug-exit`.
pub const PASS: i32 = 33;

/// QEMU's status for a kernel with a failed self-test or a panic: 0x11 written there.
pub const FAIL: i32 = 35;

/// The verdict on a guest that was to run its self-tests and end. It is good only
/// if both ways of telling agree: the status, and a complete plan on serial of
/// which nothing failed.
///
/// # Errors
/// The first that applies of [`Error::Panicked`], [`Error::DoesNotBoot`],
/// [`Error::TimedOut`], [`Error::TooMuchOutput`], [`Error::Qemu`],
/// [`Error::TestsFailed`], [`Error::IncompletePlan`].
pub fn tests(ended: &Ended) -> Result<Report, Error> {
    let status = finished(ended)?;
    let mut report = without_failures(&ended.serial)?;
    if report.cases.is_empty() {
        report.problems.push("no case ran".to_owned());
    }
    if status.code() == Some(FAIL) {
        let problem = format!("status {FAIL} says failed, and no case did");
        report.problems.push(problem);
    }
    if report.problems.is_empty() {
        Ok(report)
    } else {
        Err(Error::IncompletePlan {
            problems: report.problems,
        })
    }
}

/// The verdict on a guest that was only to name its self-tests; how many it named.
///
/// # Errors
/// As [`tests`]; [`Error::IncompletePlan`] if it named none, or did not end well.
pub fn list(ended: &Ended) -> Result<usize, Error> {
    let status = finished(ended)?;
    let is_name = |line: &&str| {
        let part = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        };
        line.split_once(':')
            .is_some_and(|(suite, case)| part(suite) && part(case))
    };
    let names = ended
        .serial
        .lines()
        .map(str::trim_end)
        .filter(is_name)
        .count();
    if names == 0 || status.code() != Some(PASS) {
        return Err(Error::IncompletePlan {
            problems: vec![format!(
                "{names} names of self-tests, and the kernel ended with {status}"
            )],
        });
    }
    Ok(names)
}

/// The verdict on a guest to look at: it may end by itself, or stay (`init=shell`, `init=halt`)
/// and be ended; it need not run self-tests, but none may fail.
///
/// # Errors
/// As [`tests`].
pub fn run(ended: &Ended) -> Result<(), Error> {
    let stayed = is_given(&ended.serial) && matches!(ended.end, End::Verdict | End::Limit(_));
    if !stayed && finished(ended)?.code() == Some(FAIL) {
        return tests(ended).map(|_| ());
    }
    let report = without_failures(&ended.serial)?;
    if ended.serial.contains(FAILED) {
        return Err(Error::IncompletePlan {
            problems: vec![format!("the kernel says `{FAILED}`, and no case failed")],
        });
    }
    if report.cases.is_empty() || report.problems.is_empty() {
        Ok(())
    } else {
        Err(Error::IncompletePlan {
            problems: report.problems,
        })
    }
}

/// What a log says, if no case failed and nothing ended it early.
fn without_failures(serial: &str) -> Result<Report, Error> {
    let report = ktap::parse(serial);
    if let Some(reason) = report.bail_out {
        return Err(Error::Panicked { reason });
    }
    let failed = report
        .cases
        .iter()
        .filter(|case| case.status == Status::Failed);
    let names: Vec<String> = failed.map(ktap::Case::full_name).collect();
    if names.is_empty() {
        return Ok(report);
    }
    Err(Error::TestsFailed {
        failed: names.len(),
        total: report.cases.len(),
        names,
    })
}

/// The verdict on a guest that was to end by itself, whatever it wrote: its status,
/// [`PASS`] or [`FAIL`].
///
/// # Errors
/// As [`tests`], without those that need a plan.
pub fn finished(ended: &Ended) -> Result<ExitStatus, Error> {
    let last = || {
        let mut lines = ended.serial.lines().rev();
        lines
            .find(|line| !line.trim().is_empty())
            .map(str::to_owned)
    };
    // A panic explains whatever came of it: a time-out, a reset.
    if let Some(reason) = ktap::bail_out(&ended.serial) {
        return Err(Error::Panicked { reason });
    }
    match ended.end {
        End::Silent(waited) => Err(Error::DoesNotBoot {
            waited,
            firmware: last(),
        }),
        End::Limit(limit) => Err(Error::TimedOut {
            limit,
            last: last().unwrap_or_default(),
        }),
        End::Verdict => Err(Error::IncompletePlan {
            problems: vec!["the kernel stayed after its verdict; init=poweroff ends it".to_owned()],
        }),
        End::TooMuchOutput(size) => Err(Error::TooMuchOutput(size)),
        End::Status(status) => match status.code() {
            Some(PASS | FAIL) => Ok(status),
            // -no-reboot turns a reset into a good end of QEMU.
            Some(0) => Err(Error::Qemu {
                status: "status 0 (the guest was reset or switched off: a triple fault?)"
                    .to_owned(),
                stderr: ended.stderr.clone(),
            }),
            _ => Err(Error::Qemu {
                status: status.to_string(),
                stderr: ended.stderr.clone(),
            }),
        },
    }
}

/// The verdict on a soak: both ways of telling agree that it ended as it began.
///
/// # Errors
/// As [`finished`]; [`Error::SoakFailed`] with the kernel's reason, or with what is
/// missing in its words.
pub fn soak(ended: &Ended) -> Result<(), Error> {
    let status = finished(ended)?;
    let mut lines = ended.serial.lines();
    if let Some(reason) = lines.find_map(|line| line.strip_prefix(SOAK_FAILED)) {
        return Err(Error::SoakFailed {
            reason: reason.to_owned(),
        });
    }
    let said = [SOAK_PASSED, PASSED].map(|text| ended.serial.contains(text));
    if status.code() == Some(PASS) && said == [true, true] {
        return Ok(());
    }
    Err(Error::SoakFailed {
        reason: format!(
            "the kernel ended with {status} and without `{SOAK_PASSED}` and `{PASSED}`"
        ),
    })
}

/// Begins the kernel's line that says what was wrong in a soak.
const SOAK_FAILED: &str = "soak: failed: ";

/// Begins its last line on a soak in which nothing was.
const SOAK_PASSED: &str = "soak: ended as it began";

/// The kernel's last line, if it found nothing wrong.
const PASSED: &str = "Tailfold: PASS";

/// The kernel's last line of boot, if it found something wrong.
const FAILED: &str = "Tailfold: FAIL";

/// Whether the verdict of [`is_given`] is that all is well.
#[must_use]
pub fn is_good(serial: &str) -> bool {
    let lines = serial.lines().map(str::trim_end);
    !serial.contains(FAILED)
        && lines
            .clone()
            .any(|line| line == "Tailfold: PASS" || line == "Tailfold: self-tests did not run")
        && ktap::bail_out(serial).is_none()
}

/// Runs a machine whose kernel measures, to its good end.
///
/// # Errors
/// As [`finished`]; [`Error::IncompletePlan`] if the kernel says that it failed.
pub fn measured(machine: &Machine, options: &Options<'_>) -> Result<Ended, Error> {
    let ended = qemu::run(&machine.arguments()?, options)?;
    passed(finished(&ended)?)?;
    Ok(ended)
}

/// Judges the `status` of a guest that writes no plan.
///
/// # Errors
/// [`Error::IncompletePlan`] if it is not [`PASS`].
pub fn passed(status: ExitStatus) -> Result<(), Error> {
    if status.code() == Some(PASS) {
        return Ok(());
    }
    Err(Error::IncompletePlan {
        problems: vec![format!("there is none, and the kernel ended with {status}")],
    })
}

#[cfg(test)]
mod tests_of_verdicts {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::{finished, list, run, soak, tests};
    use crate::qemu::{End, Ended};

    const GOOD: &str = "Tailfold 0.1.0\nKTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: a\n  1..1\n  ok 1 b\nok 1 a\n# Totals: pass:1 fail:0 skip:0 total:1\n";

    #[test]
    fn a_soak_passes_by_status_and_words() {
        const GOOD: &str =
            "Tailfold 0\nsoak: ended as it began, 3 audits found nothing\nTailfold: PASS\n";
        let verdict = |code, text: &str| soak(&ended(status(code), text)).map_err(|e| e.status());
        assert_eq!(verdict(33, GOOD), Ok(()));
        assert_eq!(verdict(35, GOOD), Err(3));
        assert_eq!(verdict(33, "Tailfold 0\nTailfold: PASS\n"), Err(3));
        assert_eq!(verdict(33, "soak: ended as it began\n"), Err(3));
        let both = format!("soak: failed: x\n{GOOD}");
        assert_eq!(verdict(33, &both), Err(3));
        assert_eq!(verdict(0, GOOD), Err(10));
        let failed = soak(&ended(status(35), "soak: failed: flushes owed\n"));
        assert!(failed.is_err_and(|error| error.to_string().contains("flushes owed")));
    }

    fn status(code: i32) -> End {
        End::Status(ExitStatus::from_raw(code << 8))
    }

    fn ended(end: End, serial: &str) -> Ended {
        Ended {
            end,
            serial: serial.to_owned(),
            stderr: "qemu: words".to_owned(),
            took: Duration::from_secs(1),
        }
    }

    fn verdict(end: End, serial: &str) -> u8 {
        tests(&ended(end, serial))
            .err()
            .map_or(0, |error| error.status())
    }

    #[test]
    fn both_ways_of_telling_must_agree() {
        assert_eq!(verdict(status(33), GOOD), 0);
        assert_eq!(verdict(status(35), GOOD), 5);
        assert_eq!(
            verdict(status(33), &GOOD.replace("  ok 1", "  not ok 1")),
            3
        );
        assert_eq!(verdict(status(35), &GOOD.replace("ok 1", "not ok 1")), 3);
    }

    #[test]
    fn a_list_has_names_and_ends_well() {
        const NAMES: &str = "Tailfold 0.1.0\n[    0.1] BIOS-e820: [mem]\nbuddy:a_b\nhvo:c2\n";
        let count = |end, serial| list(&ended(end, serial)).map_err(|error| error.status());
        assert_eq!(count(status(33), NAMES), Ok(2));
        assert_eq!(count(status(35), NAMES), Err(5));
        assert_eq!(
            count(status(33), "Tailfold 0.1.0\nTailfold: PASS\n"),
            Err(5)
        );
        assert_eq!(count(status(33), "buddy:a_b\nBail out! x\n"), Err(4));
    }

    #[test]
    fn an_early_end_is_not_a_pass() {
        let lines: Vec<&str> = GOOD.lines().collect();
        for n in 0..lines.len() {
            let cut = lines[..n].join("\n");
            assert_eq!(verdict(status(33), &cut), 5, "{cut}");
        }
    }

    #[test]
    fn a_plan_without_cases_is_not_a_pass() {
        let serial = "KTAP version 1\n1..0 # SKIP nothing selected\n# Totals: pass:0 fail:0 skip:0 total:0\n";
        assert_eq!(verdict(status(33), serial), 5);
    }

    #[test]
    fn a_panic_explains_the_rest() {
        let serial = "Tailfold\nKTAP version 1\n1..1\nBail out! page fault at 0x0\n";
        for end in [
            status(35),
            status(33),
            status(0),
            End::Limit(Duration::from_secs(9)),
        ] {
            assert_eq!(verdict(end, serial), 4);
        }
    }

    #[test]
    fn other_ends_have_their_own_status() {
        let second = Duration::from_secs(1);
        assert_eq!(verdict(End::Limit(second), GOOD), 6);
        assert_eq!(verdict(End::Silent(second), ""), 7);
        assert_eq!(verdict(status(0), GOOD), 10);
        assert_eq!(verdict(status(1), ""), 10);
        assert_eq!(verdict(End::Status(ExitStatus::from_raw(9)), ""), 10);
    }

    #[test]
    fn a_guest_to_look_at_may_stay() {
        let stays = |serial: &str| {
            run(&ended(End::Verdict, serial))
                .err()
                .map_or(0, |error| error.status())
        };
        let limit = End::Limit(Duration::from_secs(9));
        assert_eq!(stays(&format!("{GOOD}Tailfold: PASS\n")), 0);
        assert_eq!(stays("Tailfold: self-tests did not run\n"), 0);
        assert_eq!(stays("Tailfold: FAIL\n"), 5);
        let failed = GOOD.replace("ok 1", "not ok 1");
        assert_eq!(stays(&format!("{failed}Tailfold: FAIL\n")), 3);
        assert!(run(&ended(limit, "Tailfold: PASS\n")).is_ok());
        assert_eq!(run(&ended(limit, "busy\n")).unwrap_err().status(), 6);
        assert_eq!(run(&ended(status(0), GOOD)).unwrap_err().status(), 10);
        assert!(run(&ended(status(33), GOOD)).is_ok());
        assert_eq!(run(&ended(status(35), "")).unwrap_err().status(), 5);
        // To stay is no way to pass for what was to end.
        assert_eq!(verdict(End::Verdict, GOOD), 5);
    }

    #[test]
    fn qemus_own_words_are_passed_on() {
        let error = finished(&ended(status(1), "")).unwrap_err();
        assert!(error.to_string().contains("qemu: words"), "{error}");
    }
}
