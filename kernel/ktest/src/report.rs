//! Running cases and writing KTAP (kernel document `dev-tools/ktap`).

use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::case::{CASES, Case, Stop};
use crate::filter::Selection;
use crate::plan::{Plan, Suite};

/// Where lines go. A line arrives whole and without its end.
pub trait Output {
    /// Writes one line.
    fn line(&mut self, line: fmt::Arguments<'_>);
}

/// Results of a run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Cases that reached their end.
    pub pass: usize,
    /// Cases with a check that did not hold.
    pub fail: usize,
    /// Cases that could not run here.
    pub skip: usize,
    /// Patterns of the selection that no case matches.
    pub unmatched: usize,
}

impl Totals {
    /// Cases started.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.pass + self.fail + self.skip
    }

    /// Whether the run is good: nothing failed, and every pattern meant something.
    #[must_use]
    pub const fn is_pass(&self) -> bool {
        self.fail == 0 && self.unmatched == 0
    }

    fn add(&mut self, other: Self) {
        self.pass += other.pass;
        self.fail += other.fail;
        self.skip += other.skip;
        self.unmatched += other.unmatched;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "# Totals: pass:{} fail:{} skip:{} total:{}",
            self.pass,
            self.fail,
            self.skip,
            self.total()
        )
    }
}

/// The case that runs now.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The case.
    pub case: &'static Case,
    /// Its number in its suite, from 1.
    pub number: usize,
}

// Which case runs, for the panic handler. Written by the one CPU that runs cases;
// release and acquire because the handler may run on another one.
static RUNNING: AtomicPtr<Case> = AtomicPtr::new(core::ptr::null_mut());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The case that runs now, if any.
#[must_use]
pub fn running() -> Option<Running> {
    let at = RUNNING.load(Ordering::Acquire);
    let case = CASES
        .iter()
        .find(|case| core::ptr::eq(*case, at.cast_const()))?;
    Some(Running {
        case,
        number: NUMBER.load(Ordering::Relaxed),
    })
}

/// Writes a diagnostic line for the running case, indented as its result will be.
pub fn diagnostic(out: &mut dyn Output, text: fmt::Arguments<'_>) {
    out.line(format_args!("  # {text}"));
}

/// What a panic handler writes: the running case as an error, if one runs, and
/// that the run ends here. `reason` must be one line.
pub fn note_abort(out: &mut dyn Output, reason: fmt::Arguments<'_>) {
    if let Some(Running { case, number }) = running() {
        out.line(format_args!(
            "  not ok {number} {} # ERROR {reason}",
            case.name
        ));
    }
    out.line(format_args!("Bail out! {reason}"));
}

/// Writes the names of `cases` as `suite:case`, sorted; manual ones are marked.
pub fn list(out: &mut dyn Output, cases: &'static [Case]) {
    let Ok(plan) = plan_or_bail(out, cases, |_| true) else {
        return;
    };
    for suite in plan.suites() {
        for case in suite.cases() {
            let mark = if case.manual { " (manual)" } else { "" };
            out.line(format_args!("{}:{}{mark}", case.suite, case.name));
        }
    }
}

/// Runs those of `cases` that `selection` selects, and writes KTAP. A body runs
/// at most once; `after` runs behind each one, for checks that belong to all.
pub fn run(
    out: &mut dyn Output,
    cases: &'static [Case],
    selection: Selection<'_>,
    after: fn() -> crate::Outcome,
) -> Totals {
    let mut totals = Totals::default();
    for pattern in selection.unmatched(cases) {
        out.line(format_args!(
            "# selftest={pattern}: no case matches; `selftest=list` shows them"
        ));
        totals.unmatched += 1;
    }
    let Ok(plan) = plan_or_bail(out, cases, |case| selection.selects(case)) else {
        totals.fail += 1;
        return totals;
    };
    out.line(format_args!("KTAP version 1"));
    let suites = plan.suites().count();
    if suites == 0 {
        out.line(format_args!("1..0 # SKIP nothing selected"));
    } else {
        out.line(format_args!("1..{suites}"));
    }
    for (number, suite) in (1..).zip(plan.suites()) {
        totals.add(run_suite(out, number, suite, after));
    }
    out.line(format_args!("{totals}"));
    totals
}

fn run_suite(
    out: &mut dyn Output,
    number: usize,
    suite: Suite<'_, 'static>,
    after: fn() -> crate::Outcome,
) -> Totals {
    out.line(format_args!("  KTAP version 1"));
    out.line(format_args!("  # Subtest: {}", suite.name()));
    out.line(format_args!("  1..{}", suite.len()));
    let mut totals = Totals::default();
    for (number, case) in (1..).zip(suite.cases()) {
        run_case(out, number, case, after, &mut totals);
    }
    if suite.len() > 1 {
        out.line(format_args!("  {totals}"));
    }
    let (ok, skip) = match totals {
        Totals { fail: 1.., .. } => ("not ok", ""),
        Totals { pass: 0, .. } => ("ok", " # SKIP every case was skipped"),
        _ => ("ok", ""),
    };
    out.line(format_args!("{ok} {number} {}{skip}", suite.name()));
    totals
}

fn run_case(
    out: &mut dyn Output,
    number: usize,
    case: &'static Case,
    after: fn() -> crate::Outcome,
    totals: &mut Totals,
) {
    NUMBER.store(number, Ordering::Relaxed);
    RUNNING.store(core::ptr::from_ref(case).cast_mut(), Ordering::Release);
    let mut outcome = (case.run)();
    if !matches!(outcome, Err(Stop::Failed(_)))
        && let Err(stop) = after()
    {
        outcome = Err(stop);
    }
    RUNNING.store(core::ptr::null_mut(), Ordering::Release);
    match outcome {
        Ok(()) => {
            totals.pass += 1;
            out.line(format_args!("  ok {number} {}", case.name));
        }
        Err(Stop::Skipped(reason)) => {
            totals.skip += 1;
            out.line(format_args!("  ok {number} {} # SKIP {reason}", case.name));
        }
        Err(Stop::Failed(failure)) => {
            totals.fail += 1;
            diagnostic(out, format_args!("{failure}"));
            out.line(format_args!("  not ok {number} {}", case.name));
        }
    }
}

fn plan_or_bail(
    out: &mut dyn Output,
    cases: &'static [Case],
    keep: impl Fn(&Case) -> bool,
) -> Result<Plan<'static>, ()> {
    Plan::new(cases, keep).map_err(|too_many| {
        out.line(format_args!(
            "Bail out! {} cases; the plan holds {} at most",
            too_many.0,
            crate::plan::MAX_CASES
        ));
    })
}

#[cfg(test)]
mod tests {
    use super::{Output, Totals, list, note_abort, run, running};
    use crate::case::{CASES, Case, Outcome};
    use crate::filter::Selection;

    #[derive(Default)]
    struct Log(String);

    impl Output for Log {
        fn line(&mut self, line: std::fmt::Arguments<'_>) {
            self.0 += &format!("{line}\n");
        }
    }

    crate::ktest! { suite = demo;
        fn passes() { crate::check_eq!(1 + 1, 2); }
        fn skips() { crate::skip!("no {} here", "moon"); }
    }
    crate::ktest! { suite = broken, manual = true;
        fn check_eq() { crate::check_eq!(2 * 2, 5); }
        fn check_with_text() {
            let level = 3;
            crate::check!(level > 4, "level is {level}");
        }
        fn helper_fails() { helper()?; }
        fn passes() {
            crate::check_eq!(running().map(|r| (r.case.name, r.number)), Some(("passes", 4)));
        }
        fn panics() { panic!("not run by any test here") }
    }
    crate::ktest! { suite = moon, manual = true;
        fn skips() { crate::skip!("none"); }
    }

    fn helper() -> Outcome {
        crate::fail!("from afar");
    }

    fn fine() -> Outcome {
        Ok(())
    }

    fn run_logged(selection: &str, after: fn() -> Outcome) -> (String, Totals) {
        // One run at a time: which case runs is a global.
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one = ONE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut log = Log::default();
        let totals = run(&mut log, &CASES, Selection::parse(selection), after);
        assert!(running().is_none());
        (log.0, totals)
    }

    #[test]
    fn good_run() {
        let (log, totals) = run_logged("on", fine);
        assert_eq!(
            log,
            "KTAP version 1\n\
             1..1\n\
             \x20 KTAP version 1\n\
             \x20 # Subtest: demo\n\
             \x20 1..2\n\
             \x20 ok 1 passes\n\
             \x20 ok 2 skips # SKIP no moon here\n\
             \x20 # Totals: pass:1 fail:0 skip:1 total:2\n\
             ok 1 demo\n\
             # Totals: pass:1 fail:0 skip:1 total:2\n"
        );
        assert!(totals.is_pass());
    }

    #[test]
    fn failures_are_seen() {
        let (log, totals) = run_logged("broken:helper_*,broken:passes,broken:check_*,moon", fine);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(
            totals,
            Totals {
                pass: 1,
                fail: 3,
                skip: 1,
                unmatched: 0
            },
            "{log}"
        );
        assert!(!totals.is_pass());
        assert!(
            lines[5].starts_with("  # 2 * 2 == 5: left is 4, right is 5 at "),
            "{log}"
        );
        assert_eq!(lines[6], "  not ok 1 check_eq");
        assert!(lines[7].starts_with("  # level is 3 at "), "{log}");
        assert!(lines[9].starts_with("  # from afar at "), "{log}");
        assert!(lines.contains(&"not ok 1 broken"));
        assert!(lines.contains(&"ok 2 moon # SKIP every case was skipped"));
    }

    #[test]
    fn a_check_behind_each_case_counts() {
        fn leaks() -> Outcome {
            crate::fail!("one frame lost");
        }
        let (log, totals) = run_logged("demo:passes", leaks);
        assert_eq!((totals.pass, totals.fail), (0, 1), "{log}");
        assert!(log.contains("  # one frame lost at "), "{log}");
    }

    #[test]
    fn a_pattern_without_a_match_is_no_pass() {
        let (log, totals) = run_logged("dmeo", fine);
        assert!(!totals.is_pass());
        assert!(log.starts_with("# selftest=dmeo: no case matches"), "{log}");
        assert!(log.contains("1..0 # SKIP nothing selected"), "{log}");
    }

    #[test]
    fn lists_all_names() {
        let mut log = Log::default();
        list(&mut log, &CASES);
        assert!(
            log.0.contains("broken:panics (manual)\n") && log.0.contains("demo:passes\n"),
            "{}",
            log.0
        );
    }

    #[test]
    fn abort_without_a_case_only_bails_out() {
        static NO_CASES: [Case; 0] = [];
        let mut log = Log::default();
        run(&mut log, &NO_CASES, Selection::All, fine);
        log.0.clear();
        note_abort(&mut log, format_args!("panicked at a.rs:1"));
        assert!(
            log.0.ends_with("Bail out! panicked at a.rs:1\n"),
            "{}",
            log.0
        );
    }
}
