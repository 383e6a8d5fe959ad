//! Outcomes next to each other, as text.

use std::fmt::{self, Write};

use super::console::Outcome;
use super::verdict::{Row, Verdict};

/// Columns of one side.
const WIDTH: usize = 58;

/// The outcomes of a script.
#[derive(Clone, Debug)]
pub struct Report {
    /// The script's name.
    pub script: String,
    /// What is compared, and in which machine.
    pub heading: String,
    /// Its lines.
    pub rows: Vec<Row>,
}

impl Report {
    /// The lines with differences that nobody accounts for, and why.
    #[must_use]
    pub fn unlisted(&self) -> Vec<String> {
        let rows = self.rows.iter();
        rows.filter_map(|row| match &row.verdict {
            Verdict::Unlisted(why) => Some(format!(
                "{}:{}: {}: {why}",
                self.script,
                row.step.number,
                row.step.shown()
            )),
            _ => None,
        })
        .collect()
    }

    /// The differences that the script accounts for: lines and reasons.
    #[must_use]
    pub fn listed(&self) -> Vec<(String, String)> {
        let listed = self
            .rows
            .iter()
            .filter(|row| row.verdict == Verdict::Listed);
        listed
            .map(|row| (row.step.shown(), row.step.reason.clone()))
            .collect()
    }

    fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| wanted(&row.verdict)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.script, self.heading)?;
        writeln!(f, "{:WIDTH$} | Tailfold", "Linux")?;
        for row in &self.rows {
            show(f, row)?;
        }
        writeln!(
            f,
            "{}: {} lines: {} the same, {} differ as listed, {} not compared, {} differ unlisted",
            self.script,
            self.rows.len(),
            self.count(|verdict| *verdict == Verdict::Same),
            self.count(|verdict| *verdict == Verdict::Listed),
            self.count(|verdict| *verdict == Verdict::NotCompared),
            self.unlisted().len(),
        )
    }
}

fn show(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    match &row.step.lines {
        [Some(a), Some(b)] if a == b => writeln!(f, "$ {a}")?,
        [a, b] => {
            let typed = |line: &Option<String>| line.as_ref().map(|line| format!("$ {line}"));
            columns(
                f,
                &typed(a).unwrap_or_default(),
                &typed(b).unwrap_or_default(),
            )?;
        }
    }
    let [linux, tailfold] = [0, 1].map(|n| {
        let outcome = row.outcomes[n].as_ref().map(described).unwrap_or_default();
        let logs = row.logs[n].iter();
        logs.fold(outcome, |text, line| format!("{text}\n{line}"))
    });
    columns(f, &linux, &tailfold)?;
    let reason = &row.step.reason;
    match &row.verdict {
        Verdict::Same => Ok(()),
        Verdict::Listed => writeln!(f, "    ~ {reason}"),
        Verdict::NotCompared if reason.is_empty() => Ok(()),
        Verdict::NotCompared => writeln!(f, "    (not compared: {reason})"),
        Verdict::Unlisted(why) => writeln!(f, "    ! line {}: {why}", row.step.number),
    }
}

fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { output, status: 0 } => output.clone(),
        Outcome::Done { output, status } if output.is_empty() => format!("[status {status}]"),
        Outcome::Done { output, status } => format!("{output}\n[status {status}]"),
        Outcome::NoPrompt(silence, said) => format!("{said}\n[{silence}]"),
        Outcome::NotReached => "[not reached]".to_owned(),
    }
}

/// Two texts in two columns. Lines that are too long go on in the next row.
fn columns(f: &mut fmt::Formatter<'_>, left: &str, right: &str) -> fmt::Result {
    let [left, right] = [left, right].map(broken);
    for n in 0..left.len().max(right.len()) {
        let cell = |side: &[String]| side.get(n).cloned().unwrap_or_default();
        let row = format!("    {:w$} | {}", cell(&left), cell(&right), w = WIDTH - 4);
        writeln!(f, "{}", row.trim_end())?;
    }
    Ok(())
}

fn broken(text: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let characters: Vec<char> = line.replace('\t', " ").chars().collect();
        rows.extend(characters.chunks(WIDTH - 4).map(String::from_iter));
    }
    rows
}

/// The summary over all `reports`: differences with their reasons, then those without.
#[must_use]
pub fn summary(reports: &[Report]) -> String {
    let mut text = String::new();
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for report in reports {
        for (line, reason) in report.listed() {
            let line = format!("{}: {line}", report.script);
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, lines)) => lines.push(line),
                None => reasons.push((reason, vec![line])),
            }
        }
    }
    // Writing to a string does not fail.
    if !reasons.is_empty() {
        let _ = writeln!(text, "Differences with a reason:");
    }
    for (reason, lines) in reasons {
        let _ = writeln!(text, "  {reason}");
        for line in lines {
            let _ = writeln!(text, "      {line}");
        }
    }
    for line in reports.iter().flat_map(Report::unlisted) {
        let _ = writeln!(text, "Unlisted: {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Report, summary};
    use crate::compare::console::Outcome;
    use crate::compare::script::Script;
    use crate::compare::verdict::{Row, judge};

    fn report(text: &str, outputs: &[[&str; 2]]) -> Report {
        let script = Script::parse("pool", text).unwrap();
        let rows = script.steps.iter().zip(outputs).map(|(step, outputs)| {
            let outcomes = outputs.map(|output| {
                let output = output.to_owned();
                Some(Outcome::Done { output, status: 0 })
            });
            Row {
                verdict: judge(step, &outcomes, &[], None),
                step: step.clone(),
                outcomes,
                logs: [vec![], vec![]],
            }
        });
        Report {
            script: "pool".to_owned(),
            heading: "2G".to_owned(),
            rows: rows.collect(),
        }
    }

    #[test]
    fn every_line_is_shown_and_counted() {
        let report = report(
            "cat a\n#~ differs: it is another kernel\nuname\ncat b",
            &[["10", "10"], ["Linux", "Tailfold"], ["left", "right"]],
        );
        let text = report.to_string();
        for line in [
            "$ cat a",
            "$ uname",
            "    ~ it is another kernel",
            "    ! line 4: not the same",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains(
            "3 lines: 1 the same, 1 differ as listed, 0 not compared, 1 differ unlisted"
        ));
        let row = text.lines().find(|line| line.contains("right")).unwrap();
        assert!(row.trim_start().starts_with("left ") && row.ends_with("| right"));
        assert_eq!(report.unlisted(), ["pool:4: cat b: not the same"]);
        let summary = summary(&[report]);
        assert!(summary.contains("  it is another kernel\n      pool: uname"));
        assert!(summary.contains("Unlisted: pool:4: cat b"));
    }

    #[test]
    fn long_lines_go_on() {
        let long = "y".repeat(200);
        let report = report("cat a", &[[&long, &long]]);
        let shown: usize = report.to_string().matches('y').count();
        assert_eq!(shown, 400);
    }
}
