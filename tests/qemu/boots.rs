//! Boots machines, two at a time, and hands out the results case by case.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use boot::artifact::Firmware;
use boot::bochs;
use boot::cli::Emulator;
use boot::error::Error;
use boot::ktap::{Report, Status, parse};
use boot::qemu::{self, Ended, Options};
use boot::verdict;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::Bench;
use crate::machines::{Setup, machine};
use crate::slots::{AT_ONCE, Slot};

/// Lines of a log that a failure repeats.
const TAIL: usize = 30;

/// What came of one machine.
#[derive(Debug)]
struct Outcome {
    /// What its log says, whether the verdict is good or not.
    report: Report,
    serial: String,
    /// The verdict on the boot as a whole.
    verdict: Result<(), String>,
    /// For messages: where the log is, and its end.
    hint: String,
}

/// A machine whose result many tests wait for.
#[derive(Debug)]
struct Job {
    setup: Setup,
    outcome: OnceLock<Outcome>,
    done: (Mutex<bool>, Condvar),
}

/// All machines, and the cases that are to run on them.
#[derive(Debug)]
pub(crate) struct Boots {
    bench: Arc<Bench>,
    jobs: Vec<(Arc<Job>, Vec<String>)>,
}

impl Boots {
    /// `cases` are those that [`list`] gives.
    pub(crate) fn new(bench: Arc<Bench>, setups: Vec<Setup>, cases: &[String]) -> Self {
        let jobs = setups
            .into_iter()
            .map(|setup| {
                let cases = cases
                    .iter()
                    .filter(|case| setup.runs(case))
                    .cloned()
                    .collect();
                let job = Job {
                    setup,
                    outcome: OnceLock::new(),
                    done: (Mutex::new(false), Condvar::new()),
                };
                (Arc::new(job), cases)
            })
            .collect();
        Self { bench, jobs }
    }

    /// The tests. Machines of which `arguments` chooses a test start to boot.
    pub(crate) fn trials(self, arguments: &Arguments) -> Vec<Trial> {
        let mut trials = Vec::new();
        let mut wanted = VecDeque::new();
        for (job, cases) in self.jobs {
            let first = trials.len();
            let (boot, expected) = (Arc::clone(&job), cases.clone());
            trials.push(Trial::test(
                format!("{}::boot", job.setup.name),
                move || whole(&boot.setup, &expected, boot.wait()),
            ));
            for case in cases {
                let job = Arc::clone(&job);
                let name = format!("{}::{case}", job.setup.name);
                trials.push(Trial::ignorable_test(name, move || one(&case, job.wait())));
            }
            if trials[first..]
                .iter()
                .any(|trial| !arguments.is_filtered_out(trial))
            {
                wanted.push_back(job);
            }
        }
        if !arguments.list {
            let wanted = Arc::new(Mutex::new(wanted));
            for _ in 0..arguments.test_threads.unwrap_or(AT_ONCE).min(AT_ONCE) {
                let (wanted, bench) = (Arc::clone(&wanted), Arc::clone(&self.bench));
                std::thread::spawn(move || {
                    let next = || {
                        wanted
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .pop_front()
                    };
                    while let Some(job) = next() {
                        job.run(&bench);
                    }
                });
            }
        }
        trials
    }
}

impl Job {
    fn run(&self, bench: &Bench) {
        self.outcome.get_or_init(|| boot(&self.setup, bench));
        *self.done.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.done.1.notify_all();
    }

    /// The result. It comes: every boot has a limit.
    fn wait(&self) -> &Outcome {
        let (done, changed) = &self.done;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            done = changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        self.outcome.get().expect("set before done is")
    }
}

fn boot(setup: &Setup, bench: &Bench) -> Outcome {
    let result = bench.log(&setup.name).and_then(|log| {
        let machine = setup.machine(bench);
        let ended = match setup.emulator {
            Emulator::Qemu => end(&machine, setup.limit, &log)?,
            Emulator::Bochs => end_in_bochs(machine, &setup.name, setup.limit, bench, &log)?,
        };
        Ok((ended, log))
    });
    match result {
        Ok((ended, log)) => Outcome {
            report: parse(&ended.serial),
            verdict: verdict::tests(&ended)
                .map(|_| ())
                .map_err(|error| error.to_string()),
            hint: hint(&ended.serial, &log),
            serial: ended.serial,
        },
        Err(error) => Outcome {
            report: Report::default(),
            serial: String::new(),
            verdict: Err(error.to_string()),
            hint: String::new(),
        },
    }
}

/// Runs a machine to its end, its serial output in the file `log`.
pub(crate) fn end(
    machine: &boot::machine::Machine,
    limit: Duration,
    log: &Path,
) -> Result<Ended, Error> {
    let _slot = Slot::take();
    qemu::run(
        &machine.arguments()?,
        &Options {
            limit: Some(limit),
            first_word: Some(qemu::FIRST_WORD_LIMIT),
            at_verdict: false,
            echo: false,
            log: Some(log),
        },
    )
}

/// Runs a machine in Bochs to its verdict, its command line in an image of its own, called `name`.
pub(crate) fn end_in_bochs(
    mut machine: boot::machine::Machine,
    name: &str,
    limit: Duration,
    bench: &Bench,
    log: &Path,
) -> Result<Ended, Error> {
    let _slot = Slot::take();
    let line = machine.command_line.take().unwrap_or_default();
    machine.disk = bochs::image(&bench.workspace, &bench.kernel, &line, name)?;
    bochs::run(
        &bench.workspace,
        &machine,
        name,
        &Options {
            limit: Some(limit),
            first_word: Some(qemu::FIRST_WORD_LIMIT),
            at_verdict: true,
            echo: false,
            log: Some(log),
        },
    )
}

/// The end of a log, and where all of it is.
pub(crate) fn hint(serial: &str, log: &Path) -> String {
    let lines: Vec<&str> = serial.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    format!(
        "the log is {}; its end:\n{}",
        log.display(),
        tail.join("\n")
    )
}

/// The test of one case.
fn one(name: &str, outcome: &Outcome) -> Result<Completion, Failed> {
    let case = outcome
        .report
        .cases
        .iter()
        .find(|case| case.full_name() == name);
    match case {
        None => Err(Failed::from(format!(
            "it did not run: {}\n{}",
            outcome
                .verdict
                .as_ref()
                .err()
                .map_or("the boot went well, without it", String::as_str),
            outcome.hint
        ))),
        Some(case) => match case.status {
            Status::Passed => Ok(Completion::Completed),
            Status::Skipped if case.reason.is_empty() => {
                Err(Failed::from("skipped without a reason"))
            }
            Status::Skipped => Ok(Completion::ignored_with(&case.reason)),
            Status::Failed => {
                let mut text = case.diagnostics.join("\n");
                if !case.reason.is_empty() {
                    text = format!("{text}\n{}", case.reason);
                }
                Err(Failed::from(format!("{text}\n{}", outcome.hint)))
            }
        },
    }
}

/// The test of a boot as a whole.
fn whole(setup: &Setup, expected: &[String], outcome: &Outcome) -> Result<(), Failed> {
    let fail = |text: String| Err(Failed::from(format!("{text}\n{}", outcome.hint)));
    if let Err(error) = &outcome.verdict {
        return fail(error.clone());
    }
    let ran: Vec<String> = outcome
        .report
        .cases
        .iter()
        .map(boot::ktap::Case::full_name)
        .collect();
    if ran != expected {
        return fail(format!(
            "`selftest=list` names {expected:?}, but {ran:?} ran"
        ));
    }
    for name in setup.must_run {
        let case = outcome
            .report
            .cases
            .iter()
            .find(|case| case.full_name() == *name);
        match case {
            Some(case) if case.status == Status::Passed => {}
            Some(case) => return fail(format!("{name} must run here: {}", case.reason)),
            None => return fail(format!("{name} must run here, and is not there")),
        }
    }
    for text in setup.must_say {
        if !outcome.serial.contains(text) {
            return fail(format!("`{text}` is not in the log"));
        }
    }
    Ok(())
}

/// Asks the kernel for its cases: all that run without being named.
pub(crate) fn list(bench: &Bench) -> Result<Vec<String>, Error> {
    let mut machine = machine(bench, bench.images.get(Firmware::Bios), Firmware::Bios);
    machine.command_line = Some("selftest=list init=poweroff".to_owned());
    let log = bench.log("list")?;
    let ended = end(&machine, Duration::from_secs(120), &log)?;
    verdict::finished(&ended)?;
    let cases: Vec<String> = ended
        .serial
        .lines()
        .filter_map(case_name)
        .map(str::to_owned)
        .collect();
    if cases.is_empty() {
        return Err(Error::IncompletePlan {
            problems: vec![format!(
                "`selftest=list` lists nothing; {}",
                hint(&ended.serial, &log)
            )],
        });
    }
    Ok(cases)
}

/// `line`, if it is `suite:case` and nothing else. Manual cases have a mark behind.
fn case_name(line: &str) -> Option<&str> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (suite, case) = line.split_once(':')?;
    (is_name(suite) && is_name(case)).then_some(line)
}
