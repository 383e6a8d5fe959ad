//! Bad ends: what goes wrong in the kernel must be seen outside. The suite
//! `selfcheck` goes wrong on purpose, and runs only when it is named.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::cli::Emulator;
use boot::error::Error;
use boot::ktap;
use boot::qemu::{End, Ended};
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, end_in_bochs, hint};
use crate::machines::machine;

/// A boot with `selftest=`, and what must come of it.
struct Ending {
    selftest: &'static str,
    /// Where it runs. Bochs's CPUs take nothing between INIT and a start-up interrupt; QEMU's
    /// take an NMI.
    emulator: Emulator,
    firmware: Firmware,
    limit: Duration,
    /// QEMU's status; `None` if it has to be ended by force.
    status: Option<i32>,
    verdict: fn(&Error) -> bool,
    /// Parts of lines that must be in the log.
    says: &'static [&'static str],
}

const LIMIT: Duration = Duration::from_secs(300);

/// What needs several processors.
const SEVERAL: [&str; 4] = [
    "selfcheck:parked",
    "selfcheck:stuck",
    "selfcheck:stuck_in_a_job",
    "selfcheck:panics_elsewhere",
];

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let panics = |selftest, firmware, says| Ending {
        selftest,
        emulator: Emulator::Qemu,
        firmware,
        limit: LIMIT,
        status: Some(verdict::FAIL),
        verdict: |error| matches!(error, Error::Panicked { reason } if !reason.is_empty()),
        says,
    };
    let endings = [
        Ending {
            selftest: "selfcheck:fails,buddy:splits_and_merges",
            emulator: Emulator::Qemu,
            firmware: Firmware::Bios,
            limit: LIMIT,
            status: Some(verdict::FAIL),
            verdict: |error| matches!(error, Error::TestsFailed { failed: 1, total: 2, names } if names == &["selfcheck:fails"]),
            says: &[
                "left is 2, right is 3",
                "not ok 1 fails",
                "not ok 2 selfcheck",
            ],
        },
        Ending {
            selftest: "no_such_suite:*",
            emulator: Emulator::Qemu,
            firmware: Firmware::Bios,
            limit: LIMIT,
            status: Some(verdict::FAIL),
            verdict: |error| matches!(error, Error::IncompletePlan { .. }),
            says: &["no_such_suite"],
        },
        Ending {
            selftest: "selfcheck:hang",
            emulator: Emulator::Qemu,
            firmware: Firmware::Bios,
            limit: Duration::from_secs(30),
            status: None,
            verdict: |error| matches!(error, Error::TimedOut { .. }),
            says: &["# Subtest: selfcheck"],
        },
        panics(
            "selfcheck:panics",
            Firmware::Uefi,
            &["not ok 1 panics # ERROR", "on purpose", "Bail out!"],
        ),
        panics(
            "selfcheck:page_fault",
            Firmware::Bios,
            &["Bail out!", "CR2", "0000000000001000"],
        ),
        panics(
            "selfcheck:write_to_code",
            Firmware::Bios,
            &["Bail out!", "CR2"],
        ),
        panics(
            "selfcheck:double_fault",
            Firmware::Bios,
            &["Bail out!", "ouble fault"],
        ),
        panics(
            "selfcheck:stack_overflow",
            Firmware::Uefi,
            &["Bail out!", "overflow of the boot stack"],
        ),
        panics(
            "selfcheck:stuck",
            Firmware::Bios,
            &[
                "soft lockup - CPU#1 stuck for 4s: does not take a call\n",
                "CPU: 1 stopped at 0xffffffff",
                "CPU: 3 stopped at 0xffffffff",
                "Bail out!",
            ],
        ),
        Ending {
            emulator: Emulator::Bochs,
            ..panics(
                "selfcheck:parked",
                Firmware::Bios,
                &[
                    "soft lockup - CPU#1 stuck for 4s: does not take a call, and takes no NMI",
                    "CPU: 1 does not stop",
                    "CPU: 2 stopped at 0xffffffff",
                    "Bail out!",
                ],
            )
        },
        panics(
            "selfcheck:stuck_in_a_job",
            Firmware::Uefi,
            &[
                "soft lockup - CPU#1 stuck for 4s in its part of a job\n",
                "CPU: 2 stopped at 0xffffffff",
                "Bail out!",
            ],
        ),
        panics(
            "selfcheck:panics_elsewhere",
            Firmware::Bios,
            &["on purpose, on CPU", "CPU: 0 stopped at", "Bail out!"],
        ),
    ];
    let mut trials: Vec<Trial> = endings
        .into_iter()
        .map(|ending| {
            let bench = Arc::clone(bench);
            let name = format!("ending::{}", ending.selftest);
            Trial::test(name.clone(), move || check(&ending, &name, &bench))
        })
        .collect();
    let bench = Arc::clone(bench);
    trials.push(Trial::test(
        "ending::every_cut_of_a_log_is_noticed",
        move || cuts(&bench),
    ));
    trials
}

fn run(
    bench: &Bench,
    name: &str,
    selftest: &str,
    (emulator, firmware): (Emulator, Firmware),
    limit: Duration,
) -> Result<(Ended, String), Error> {
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    // The others have to be stopped.
    machine.smp = if SEVERAL.contains(&selftest) { 4 } else { 1 };
    machine.command_line = Some(format!(
        "selftest={selftest} init=poweroff watchdog_thresh=2"
    ));
    let log = bench.log(name)?;
    let ended = match emulator {
        Emulator::Qemu => end(&machine, limit, &log)?,
        Emulator::Bochs => end_in_bochs(machine, "ending", limit, bench, &log)?,
    };
    let hint = hint(&ended.serial, &log);
    Ok((ended, hint))
}

fn check(ending: &Ending, name: &str, bench: &Bench) -> Result<(), Failed> {
    let (ended, hint) = run(
        bench,
        name,
        ending.selftest,
        (ending.emulator, ending.firmware),
        ending.limit,
    )?;
    let status = match ended.end {
        End::Status(status) => status.code(),
        _ => None,
    };
    if status != ending.status {
        return Err(Failed::from(format!(
            "QEMU's status is {status:?} and not {:?}\n{hint}",
            ending.status
        )));
    }
    match verdict::tests(&ended) {
        Ok(_) => return Err(Failed::from(format!("the verdict is good\n{hint}"))),
        Err(error) if !(ending.verdict)(&error) => {
            return Err(Failed::from(format!("the verdict is: {error}\n{hint}")));
        }
        Err(_) => {}
    }
    for text in ending.says {
        if !ended.serial.contains(text) {
            return Err(Failed::from(format!("`{text}` is not in the log\n{hint}")));
        }
    }
    Ok(())
}

/// The kernel's own output, cut after any line, is no complete plan: an early end
/// with status 33 would not pass.
fn cuts(bench: &Bench) -> Result<(), Failed> {
    let name = "ending::cuts";
    let (ended, hint) = run(
        bench,
        name,
        "buddy:*,paging:*",
        (Emulator::Qemu, Firmware::Bios),
        LIMIT,
    )?;
    verdict::tests(&ended).map_err(|error| Failed::from(format!("{error}\n{hint}")))?;
    let lines: Vec<&str> = ended.serial.lines().collect();
    let last = lines
        .iter()
        .rposition(|line| line.starts_with("# Totals:"))
        .ok_or_else(|| Failed::from(format!("no totals\n{hint}")))?;
    for cut in 0..=last {
        let report = ktap::parse(&lines[..cut].join("\n"));
        if report.problems.is_empty() {
            return Err(Failed::from(format!("complete after {cut} lines\n{hint}")));
        }
    }
    Ok(())
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending")
            .field("selftest", &self.selftest)
            .finish_non_exhaustive()
    }
}
