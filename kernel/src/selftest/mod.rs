//! The self-tests: those of `mm` on this machine, and the kernel's own.

mod acpi;
mod console;
mod firmware;
mod hardware;
mod machine;
mod selfcheck;
mod smp;

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
    /// The first lines that say why the run is no pass, as they were printed.
    pub(crate) failed: Vec<String>,
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
            let mut out = Recorder(Vec::new());
            let totals = ktest::run(&mut out, &CASES, selection, every_flush_is_paid);
            Some(Run {
                totals,
                failed: out.0,
            })
        }
    }
}

/// Most failures that are kept for the last page.
const KEPT: usize = 8;

/// Prints, and keeps what failed: on a screen it would be gone with the scrolling.
struct Recorder(Vec<String>);

impl Output for Recorder {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        KtapLines.line(line);
        if self.0.len() < KEPT {
            let line = line.to_string();
            let text = line.trim_start();
            if text.starts_with("not ok") || text.starts_with("# selftest=") {
                self.0.push(line);
            }
        }
    }
}

/// Behind every case: nobody dropped a flush that was owed (INV-3).
fn every_flush_is_paid() -> Outcome {
    ktest::check_eq!(mm::paging::unspent_flushes(), 0, "flushes owed");
    Ok(())
}

/// The suites of `mm`: each case here is a body of the crate `suites`.
macro_rules! on_metal {
    ($suite:ident: $($case:ident),* $(,)?) => {
        ktest::ktest! { suite = $suite;
            $( fn $case() {
                suites::requires::check(stringify!($suite), stringify!($case))?;
                let env = state::env();
                suites::tidy(&env, || suites::$suite::$case(&env))?;
            } )*
        }
    };
}

suites::for_each_suite!(on_metal);
