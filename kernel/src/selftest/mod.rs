//! The self-tests: those of `mm` on this machine, and the kernel's own.

mod console;
mod firmware;
mod machine;
mod selfcheck;

use ktest::{CASES, Outcome, Selection, Totals};

use crate::console::KtapLines;
use crate::state;

/// Runs what is selected. The names only, if that is what is asked for.
pub(crate) fn run(selection: Selection<'_>) -> Option<Totals> {
    match selection {
        Selection::Off => None,
        Selection::List => {
            ktest::list(&mut KtapLines, &CASES);
            None
        }
        Selection::All | Selection::Matching(_) => Some(ktest::run(
            &mut KtapLines,
            &CASES,
            selection,
            every_flush_is_paid,
        )),
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
            $( fn $case() { suites::$suite::$case(&state::env())?; } )*
        }
    };
}

suites::for_each_suite!(on_metal);
