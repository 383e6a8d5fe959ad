//! The self-tests: those of `mm` on this machine, and the kernel's own.

mod acpi;
mod console;
mod firmware;
mod hardware;
mod machine;
mod selfcheck;
mod smp;

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use ktest::{CASES, Outcome, Output, Selection, Totals};

use crate::console::KtapLines;
use crate::state;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// The numbers.
    pub(crate) totals: Totals,
    /// Why the run is no pass: patterns that no case matches, and the failed cases, the first
    /// [`KEPT`] as `suite:case: what it said`, all others as `suite:case`.
    pub(crate) failed: Vec<String>,
    /// The skipped cases, as `suite:case`; a suite of which every case was skipped is `suite:*`.
    pub(crate) skipped: Vec<String>,
}

/// Runs what is selected. The names only, if that is what is asked for.
pub(crate) fn run(selection: Selection<'_>) -> Option<Run> {
    match selection {
        Selection::Off => None,
        Selection::List => {
            ktest::list(&mut KtapLines, &CASES);
            None
        }
        Selection::All | Selection::Matching(_) => {
            let mut out = Recorder::default();
            let totals = ktest::run(&mut out, &CASES, selection, every_flush_is_paid);
            let Recorder {
                failed, skipped, ..
            } = out;
            Some(Run {
                totals,
                failed,
                skipped,
            })
        }
    }
}

/// Failures whose words are kept for the last page.
const KEPT: usize = 8;

/// Prints, and keeps what failed or was skipped: on a screen it would be gone with the scrolling.
#[derive(Default)]
struct Recorder {
    failed: Vec<String>,
    skipped: Vec<String>,
    /// The suite whose lines come, and how many skipped cases there were before it.
    suite: String,
    skipped_before: usize,
    /// The last diagnostic line.
    said: String,
}

impl Output for Recorder {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        KtapLines.line(line);
        let line = line.to_string();
        let is_inner = line.starts_with(' ');
        let text = line.trim_start();
        if let Some(suite) = text.strip_prefix("# Subtest: ") {
            self.suite = suite.to_string();
            self.skipped_before = self.skipped.len();
        } else if let Some(said) = text.strip_prefix("# ") {
            if said.starts_with("selftest=") {
                self.failed.push(said.to_string());
            }
            self.said = said.to_string();
        } else if let Some((_, case)) = result(text, "not ok ") {
            if is_inner {
                let mut failed = format!("{}:{case}", self.suite);
                if self.failed.len() < KEPT {
                    failed = format!("{failed}: {}", self.said);
                }
                self.failed.push(failed);
            }
        } else if let Some((name, _)) =
            result(text, "ok ").and_then(|(_, name)| name.split_once(" # SKIP"))
        {
            if is_inner {
                self.skipped.push(format!("{}:{name}", self.suite));
            } else {
                self.skipped.truncate(self.skipped_before);
                self.skipped.push(format!("{name}:*"));
            }
        }
    }
}

/// Number and name of a result in KTAP.
fn result<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(kind)?.split_once(' ')
}

/// Behind every case: nobody dropped a flush that was owed (INV-3).
fn every_flush_is_paid() -> Outcome {
    ktest::check_eq!(mm::paging::unspent_flushes(), 0, "flushes owed");
    Ok(())
}

/// The suites of `mm`: each case here is a body of the crate `suites`.
macro_rules! on_metal {
    ($from:tt::$suite:ident: $($case:ident),* $(,)?) => {
        ktest::ktest! { suite = $suite;
            $( fn $case() {
                suites::requires::check(stringify!($suite), stringify!($case))?;
                let env = state::env();
                suites::tidy(&env, || $from::$suite::$case(&env))?;
            } )*
        }
    };
}

suites::for_each_suite!(on_metal);
#[cfg(feature = "lab")]
lab_cases::for_each_suite!(on_metal);
