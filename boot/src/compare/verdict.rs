//! What two outcomes of a line mean.

use super::console::Outcome;
use super::rule::{Outputs, Rule};
use super::script::{Side, Step};
use super::wording;

/// A line and what came of it on each side, in the order of [`Side::ALL`]; nothing for a
/// side that did not take part.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The line.
    pub step: Step,
    /// What came of it.
    pub outcomes: [Option<Outcome>; 2],
    /// The kernels' log lines meanwhile.
    pub logs: [Vec<String>; 2],
    /// What that means.
    pub verdict: Verdict,
}

/// What the outcomes of a line mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// They are the same, but perhaps for the words of the shell.
    Same,
    /// They differ as they may, and the script says why.
    Listed,
    /// They are not compared: one side only, or ignored.
    NotCompared,
    /// They differ, and why is not known; or the script expects something else.
    Unlisted(String),
}

/// What is compared of an outcome.
fn output(outcome: &Outcome) -> Option<(String, u32)> {
    match outcome {
        Outcome::Done { output, status } => Some((wording::common(output), *status)),
        Outcome::NoPrompt(..) | Outcome::NotReached => None,
    }
}

/// Judges the outcomes of `step`, the rows before it being `earlier`, where Linux has
/// version `linux`.
#[must_use]
pub fn judge(
    step: &Step,
    outcomes: &[Option<Outcome>; 2],
    earlier: &[Row],
    linux: Option<(u32, u32)>,
) -> Verdict {
    let too_old = step
        .since
        .is_some_and(|since| linux.is_some_and(|linux| linux < since));
    for (n, side) in Side::ALL.into_iter().enumerate() {
        if too_old && side == Side::Linux {
            continue;
        }
        let (Some(expected), Some(outcome)) = (&step.expected[n], &outcomes[n]) else {
            continue;
        };
        let found = output(outcome).map(|(output, _)| output);
        if found.as_deref() != Some(expected) {
            return Verdict::Unlisted(format!("{} was to write: {expected}", side.name()));
        }
    }
    let [Some(a), Some(b)] = outcomes else {
        return Verdict::NotCompared;
    };
    if too_old {
        return Verdict::NotCompared;
    }
    let (Some((linux, linux_status)), Some((tailfold, tailfold_status))) = (output(a), output(b))
    else {
        return match step.rule {
            Rule::Ignore | Rule::MayDiffer | Rule::Differs => Verdict::Listed,
            _ => Verdict::Unlisted("a prompt is missing".to_owned()),
        };
    };
    let statuses = linux_status == tailfold_status;
    if linux == tailfold && statuses && step.rule != Rule::Differs {
        return Verdict::Same;
    }
    let any_status = matches!(step.rule, Rule::Differs | Rule::MayDiffer | Rule::Ignore);
    if !statuses && !any_status {
        return Verdict::Unlisted(format!("exit status {linux_status} and {tailfold_status}"));
    }
    let before = earlier
        .iter()
        .rev()
        .find(|row| row.step.lines == step.lines);
    let before = before.and_then(|row| {
        let [a, b] = &row.outcomes;
        Some([output(a.as_ref()?)?.0, output(b.as_ref()?)?.0])
    });
    let outputs = Outputs {
        now: [&linux, &tailfold],
        before: before.as_ref().map(|[a, b]| [a.as_str(), b.as_str()]),
    };
    match step.rule.allows(outputs) {
        // The same words with another status are a difference, too.
        Err(_) if step.rule == Rule::Differs && !statuses => Verdict::Listed,
        Err(why) => Verdict::Unlisted(why),
        Ok(()) if step.rule == Rule::Ignore => Verdict::NotCompared,
        Ok(()) => Verdict::Listed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Row, Verdict, judge};
    use crate::compare::console::{Outcome, Silence};
    use crate::compare::script::Script;

    fn done(output: &str, status: u32) -> Option<Outcome> {
        let output = output.to_owned();
        Some(Outcome::Done { output, status })
    }

    fn verdict(text: &str, linux: Option<Outcome>, tailfold: Option<Outcome>) -> Verdict {
        let script = Script::parse("x", text).unwrap();
        judge(&script.steps[0], &[linux, tailfold], &[], Some((6, 1)))
    }

    #[test]
    fn an_unlisted_difference_is_one() {
        assert_eq!(verdict("a", done("1", 0), done("1", 0)), Verdict::Same);
        for (linux, tailfold) in [
            (done("1", 0), done("2", 0)),
            (done("1", 0), done("1", 1)),
            (done("1", 0), Some(Outcome::NotReached)),
            (
                Some(Outcome::NoPrompt(Silence::Ended, String::new())),
                done("1", 0),
            ),
        ] {
            let found = verdict("a", linux, tailfold);
            assert!(matches!(found, Verdict::Unlisted(_)), "{found:?}");
        }
    }

    #[test]
    fn a_listed_difference_must_be_there() {
        let text = "#~ differs: y\na";
        assert_eq!(verdict(text, done("1", 0), done("2", 0)), Verdict::Listed);
        assert_eq!(verdict(text, done("1", 0), done("1", 1)), Verdict::Listed);
        let found = verdict(text, done("1", 0), done("1", 0));
        assert!(matches!(found, Verdict::Unlisted(why) if why.contains("said to differ")));
        let died = Some(Outcome::NoPrompt(
            Silence::Limit(Duration::ZERO),
            String::new(),
        ));
        assert_eq!(verdict(text, died, done("1", 0)), Verdict::Listed);
    }

    #[test]
    fn a_tolerance_is_none_for_the_status() {
        let text = "#~ within 5: y\na";
        assert_eq!(verdict(text, done("1", 0), done("2", 0)), Verdict::Listed);
        let found = verdict(text, done("1", 0), done("2", 1));
        assert!(matches!(found, Verdict::Unlisted(_)));
    }

    #[test]
    fn expectations_hold_for_a_side_alone() {
        let text = "#~ differs: y\n#~ linux: 1\n#~ tailfold: 2\na";
        assert_eq!(verdict(text, done("1", 0), done("2", 0)), Verdict::Listed);
        for (linux, tailfold) in [
            (done("1", 0), done("3", 0)),
            (done("3", 0), done("2", 0)),
            (done("3", 0), None),
        ] {
            let found = verdict(text, linux, tailfold);
            assert!(matches!(found, Verdict::Unlisted(_)), "{found:?}");
        }
        assert_eq!(verdict(text, done("1", 0), None), Verdict::NotCompared);
    }

    #[test]
    fn a_linux_that_has_not_got_it_is_no_measure() {
        let text = "#~ since 6.10\n#~ linux: 7\na";
        assert_eq!(
            verdict(text, done("", 1), done("7", 0)),
            Verdict::NotCompared
        );
        let text = "#~ since 6.1\na";
        let found = verdict(text, done("", 1), done("7", 0));
        assert!(matches!(found, Verdict::Unlisted(_)));
    }

    #[test]
    fn changes_look_at_the_same_line_before() {
        let script = Script::parse("x", "#~ numbers: z\na\nb\n#~ change within 1: z\na").unwrap();
        let row = |n: usize, outcomes| Row {
            step: script.steps[n].clone(),
            outcomes,
            logs: [vec![], vec![]],
            verdict: Verdict::Same,
        };
        let earlier = [
            row(0, [done("10", 0), done("20", 0)]),
            row(1, [done("0", 0), done("0", 0)]),
        ];
        let now = |tailfold| [done("15", 0), done(tailfold, 0)];
        let judged = |tailfold| judge(&script.steps[2], &now(tailfold), &earlier, None);
        assert_eq!(judged("25"), Verdict::Listed);
        assert!(matches!(judged("27"), Verdict::Unlisted(_)));
    }
}
