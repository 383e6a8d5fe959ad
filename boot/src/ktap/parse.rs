//! Lines to cases.

use super::line::{Line, TestResult, Totals};
use super::{Case, Report, Status};

/// The reason behind the first `Bail out!` in `log`.
#[must_use]
pub fn bail_out(log: &str) -> Option<String> {
    log.lines().find_map(|line| match Line::parse(line) {
        Some((_, Line::BailOut(reason))) => Some(reason.to_owned()),
        _ => None,
    })
}

/// Reads a log. Everything that is not KTAP is passed over; whatever is missing
/// or contradictory becomes one of [`Report::problems`].
#[must_use]
pub fn parse(log: &str) -> Report {
    let mut parser = Parser::default();
    for line in log.lines() {
        if let Some((level, line)) = Line::parse(line) {
            parser.line(level, line);
        }
    }
    parser.finish()
}

/// A suite whose end has not come, or the whole run.
#[derive(Default)]
struct Level {
    name: String,
    plan: Option<usize>,
    results: usize,
    failed: bool,
    diagnostics: Vec<String>,
}

#[derive(Default)]
struct Parser {
    report: Report,
    /// The open levels, the whole run first.
    open: Vec<Level>,
    /// What the last line of totals of the whole run said.
    totals: Option<Totals>,
    versions: usize,
}

impl Parser {
    fn line(&mut self, level: usize, line: Line<'_>) {
        match line {
            Line::BailOut(reason) => {
                self.report
                    .bail_out
                    .get_or_insert_with(|| reason.to_owned());
            }
            Line::Version => self.open(level),
            Line::Subtest(name) => match self.at(level) {
                Some(open) if open.name.is_empty() && level > 0 => name.clone_into(&mut open.name),
                _ => self.problem(format!("`# Subtest: {name}` belongs to nothing")),
            },
            Line::Plan(plan) => match self.at(level) {
                Some(open) if open.plan.is_none() => open.plan = Some(plan),
                _ => self.problem(format!("the plan `1..{plan}` belongs to nothing")),
            },
            Line::Result(result) => self.result(level, result),
            Line::Totals(totals) if level == 0 && self.open.len() == 1 => {
                self.totals = Some(totals);
            }
            Line::Totals(_) => {}
            Line::Diagnostic(text) => {
                if let Some(open) = self.at(level) {
                    open.diagnostics.push(text.to_owned());
                }
            }
        }
    }

    fn problem(&mut self, problem: String) {
        self.report.problems.push(problem);
    }

    /// The innermost open level, if it is `level`.
    fn at(&mut self, level: usize) -> Option<&mut Level> {
        if self.open.len() == level + 1 {
            self.open.last_mut()
        } else {
            None
        }
    }

    fn open(&mut self, level: usize) {
        self.versions += usize::from(level == 0);
        if level == self.open.len() {
            self.open.push(Level::default());
        } else {
            self.problem(format!(
                "`KTAP version 1` at level {level} belongs to nothing"
            ));
        }
    }

    fn result(&mut self, level: usize, result: TestResult<'_>) {
        // A result one level up ends the suite that is open below it.
        let suite = if self.open.len() == level + 2 {
            self.open.pop()
        } else {
            None
        };
        let name = result.name;
        let Some(open) = self.at(level) else {
            self.problem(format!("the result of `{name}` belongs to nothing"));
            return;
        };
        open.results += 1;
        open.failed |= !result.ok;
        let expected = open.results;
        let diagnostics = std::mem::take(&mut open.diagnostics);
        if result.number != expected {
            self.problem(format!(
                "`{name}` is number {} where {expected} was due",
                result.number
            ));
        }
        match suite {
            Some(suite) => self.close(&suite, result),
            None => self.case(result, diagnostics),
        }
    }

    fn case(&mut self, result: TestResult<'_>, diagnostics: Vec<String>) {
        let suites: Vec<&str> = self.open[1..]
            .iter()
            .map(|open| open.name.as_str())
            .collect();
        let case = Case {
            suite: suites.join(":"),
            name: result.name.to_owned(),
            status: match (result.ok, result.directive.eq_ignore_ascii_case("skip")) {
                (false, _) => Status::Failed,
                (true, true) => Status::Skipped,
                (true, false) => Status::Passed,
            },
            reason: result.reason.to_owned(),
            diagnostics,
        };
        if self
            .report
            .cases
            .iter()
            .any(|known| known.suite == case.suite && known.name == case.name)
        {
            self.problem(format!("`{}` has two results", case.full_name()));
        }
        self.report.cases.push(case);
    }

    fn close(&mut self, suite: &Level, result: TestResult<'_>) {
        self.complete(suite);
        if suite.name != result.name {
            self.problem(format!("suite `{}` ends as `{}`", suite.name, result.name));
        }
        if suite.failed == result.ok {
            self.problem(format!(
                "suite `{}` is `{}`, and {} of its cases failed",
                result.name,
                if result.ok { "ok" } else { "not ok" },
                if suite.failed { "one" } else { "none" },
            ));
        }
    }

    /// Checks an ended level against its plan.
    fn complete(&mut self, level: &Level) {
        let what = if level.name.is_empty() {
            "the run".to_owned()
        } else {
            format!("suite `{}`", level.name)
        };
        match level.plan {
            None => self.problem(format!("{what} has no plan")),
            Some(plan) if plan != level.results => self.problem(format!(
                "{what} has {} of {plan} planned results",
                level.results
            )),
            Some(_) => {}
        }
    }

    fn finish(mut self) -> Report {
        if self.versions == 0 {
            self.problem("there is no `KTAP version 1`".to_owned());
            return self.report;
        }
        for level in std::mem::take(&mut self.open).iter().rev() {
            if !level.name.is_empty() {
                self.problem(format!("suite `{}` has no result", level.name));
            }
            self.complete(level);
        }
        let counted = Totals {
            pass: self.report.count(Status::Passed),
            fail: self.report.count(Status::Failed),
            skip: self.report.count(Status::Skipped),
            total: self.report.cases.len(),
        };
        match self.totals {
            None => self.problem("the line `# Totals:` is missing".to_owned()),
            Some(totals) if totals != counted => self.problem(format!(
                "the totals say pass:{} fail:{} skip:{} total:{}, the results pass:{} fail:{} skip:{} total:{}",
                totals.pass, totals.fail, totals.skip, totals.total,
                counted.pass, counted.fail, counted.skip, counted.total,
            )),
            Some(_) => {}
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{bail_out, parse};
    use crate::ktap::Status;

    const GOOD: &str = "\
Tailfold 0.1.0 booting
KTAP version 1
1..2
  KTAP version 1
  # Subtest: buddy
  1..3
  ok 1 merge
HugeTLB: a line of the log in between
  # left is 4, right is 5 at kernel/x.rs:7
  not ok 2 misuse
  ok 3 split # SKIP no memory
  # Totals: pass:1 fail:1 skip:1 total:3
not ok 1 buddy
  KTAP version 1
  # Subtest: paging
  1..1
  ok 1 map
ok 2 paging
# Totals: pass:2 fail:1 skip:1 total:4
";

    #[test]
    fn reads_a_nested_run() {
        let report = parse(GOOD);
        assert_eq!(report.problems, Vec::<String>::new());
        assert_eq!(report.bail_out, None);
        let names: Vec<String> = report.cases.iter().map(super::Case::full_name).collect();
        assert_eq!(
            names,
            ["buddy:merge", "buddy:misuse", "buddy:split", "paging:map"]
        );
        assert_eq!(report.cases[1].status, Status::Failed);
        assert_eq!(
            report.cases[1].diagnostics,
            ["left is 4, right is 5 at kernel/x.rs:7"]
        );
        assert_eq!(report.cases[2].status, Status::Skipped);
        assert_eq!(report.cases[2].reason, "no memory");
        assert_eq!(report.cases[2].diagnostics, Vec::<String>::new());
    }

    #[test]
    fn carriage_returns_change_nothing() {
        assert_eq!(parse(&GOOD.replace('\n', "\r\n")), parse(GOOD));
    }

    #[test]
    fn every_lost_line_of_ktap_is_noticed() {
        let lines: Vec<&str> = GOOD.lines().collect();
        for lost in 0..lines.len() {
            let rest: Vec<&str> = (0..lines.len())
                .filter(|n| *n != lost)
                .map(|n| lines[n])
                .collect();
            let report = parse(&rest.join("\n"));
            // Words to people, a suite's own totals: nobody's loss.
            let harmless = lines[lost].contains("log")
                || lines[lost].starts_with("Tailfold")
                || lines[lost].starts_with("  # left")
                || lines[lost].starts_with("  # Totals");
            assert_eq!(
                report.problems.is_empty(),
                harmless,
                "without `{}`: {:?}",
                lines[lost],
                report.problems
            );
        }
    }

    #[test]
    fn every_doubled_result_is_noticed() {
        for line in GOOD.lines().filter(|line| line.contains("ok ")) {
            let report = parse(&GOOD.replacen(line, &format!("{line}\n{line}"), 1));
            assert!(!report.problems.is_empty(), "twice `{line}`");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let lines: Vec<&str> = GOOD.lines().collect();
        for n in 0..lines.len() {
            let report = parse(&lines[..n].join("\n"));
            assert!(!report.problems.is_empty(), "only {n} lines");
        }
    }

    #[test]
    fn a_suite_cannot_hide_a_failure() {
        let report = parse(&GOOD.replace("not ok 1 buddy", "ok 1 buddy"));
        assert_eq!(
            report.problems,
            ["suite `buddy` is `ok`, and one of its cases failed"]
        );
    }

    #[test]
    fn a_panic_in_a_case_is_a_failure_and_a_reason() {
        let log = "KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: a\n  1..2\n  ok 1 x\n  not ok 2 y # ERROR panicked at z\nBail out! panicked at z\n";
        let report = parse(log);
        assert_eq!(report.bail_out.as_deref(), Some("panicked at z"));
        assert_eq!(bail_out(log).as_deref(), Some("panicked at z"));
        assert_eq!(report.cases[1].status, Status::Failed);
        assert_eq!(report.cases[1].reason, "panicked at z");
        assert!(
            report
                .problems
                .iter()
                .any(|p| p == "suite `a` has no result")
        );
    }

    #[test]
    fn a_failed_case_cannot_be_skipped() {
        let report = parse("KTAP version 1\n1..1\nnot ok 1 x # SKIP not today\n");
        assert_eq!(report.cases[0].status, Status::Failed);
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_shuffled_ktap(lines in proptest::collection::vec((0usize..4, proptest::sample::select(vec![
            "KTAP version 1", "# Subtest: a", "1..2", "1..18446744073709551615", "ok 1 a", "not ok 2 b",
            "ok 2 b # SKIP c", "# Totals: pass:1 fail:0 skip:0 total:1", "Bail out!", "# d", "noise",
        ])), 0..40)) {
            let text: String = lines.iter().map(|(n, line)| format!("{}{line}\n", "  ".repeat(*n))).collect();
            let report = parse(&text);
            // Whatever is found, it is no more than was said.
            let said = lines.iter().filter(|(_, line)| line.contains("ok ")).count();
            prop_assert!(report.cases.len() <= said);
        }
    }
}
