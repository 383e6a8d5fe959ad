//! One line of KTAP.

/// What a line is; its indentation is not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line<'a> {
    /// `KTAP version 1`.
    Version,
    /// `# Subtest: name`.
    Subtest(&'a str),
    /// `1..N`.
    Plan(usize),
    /// `ok N name # DIRECTIVE reason`, or `not ok …`.
    Result(TestResult<'a>),
    /// `# Totals: pass:A fail:B skip:C total:D`.
    Totals(Totals),
    /// `# text`.
    Diagnostic(&'a str),
    /// `Bail out! reason`.
    BailOut(&'a str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TestResult<'a> {
    pub(super) ok: bool,
    pub(super) number: usize,
    pub(super) name: &'a str,
    /// `SKIP`, `ERROR` and the like; empty if there is none.
    pub(super) directive: &'a str,
    pub(super) reason: &'a str,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Totals {
    pub(super) pass: usize,
    pub(super) fail: usize,
    pub(super) skip: usize,
    pub(super) total: usize,
}

impl<'a> Line<'a> {
    /// Level (two spaces each) and content; `None` for what is not KTAP.
    pub(super) fn parse(text: &'a str) -> Option<(usize, Self)> {
        let text = text.trim_end();
        let content = text.trim_start_matches(' ');
        let indent = text.len() - content.len();
        let line = Self::content(content)?;
        indent.is_multiple_of(2).then_some((indent / 2, line))
    }

    fn content(text: &'a str) -> Option<Self> {
        if text == "KTAP version 1" {
            return Some(Self::Version);
        }
        if let Some(reason) = text.strip_prefix("Bail out!") {
            return Some(Self::BailOut(reason.trim()));
        }
        if let Some(comment) = text.strip_prefix("# ") {
            return Some(if let Some(name) = comment.strip_prefix("Subtest: ") {
                Self::Subtest(name.trim())
            } else if let Some(totals) = comment.strip_prefix("Totals: ").and_then(totals) {
                Self::Totals(totals)
            } else {
                Self::Diagnostic(comment)
            });
        }
        if let Some(plan) = text.strip_prefix("1..") {
            let (number, _) = split_directive(plan);
            return number.trim().parse().ok().map(Self::Plan);
        }
        result(text).map(Self::Result)
    }
}

fn result(text: &str) -> Option<TestResult<'_>> {
    let (ok, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (name, directive) = split_directive(rest);
    let (directive, reason) = directive.split_once(' ').unwrap_or((directive, ""));
    Some(TestResult {
        ok,
        number: number.parse().ok()?,
        name: name.trim().trim_start_matches("- "),
        directive,
        reason: reason.trim(),
    })
}

/// What stands before and after ` # `.
fn split_directive(text: &str) -> (&str, &str) {
    if let Some(directive) = text.strip_prefix("# ") {
        return ("", directive.trim());
    }
    match text.split_once(" # ") {
        Some((before, directive)) => (before, directive.trim()),
        None => (text, ""),
    }
}

fn totals(text: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    let mut words = 0;
    for word in text.split_whitespace() {
        let (name, number) = word.split_once(':')?;
        let number = number.parse().ok()?;
        match name {
            "pass" => totals.pass = number,
            "fail" => totals.fail = number,
            "skip" => totals.skip = number,
            "total" => totals.total = number,
            _ => return None,
        }
        words += 1;
    }
    (words == 4).then_some(totals)
}

#[cfg(test)]
mod tests {
    use super::{Line, TestResult, Totals};

    fn result<'a>(ok: bool, number: usize, name: &'a str, rest: [&'a str; 2]) -> Line<'a> {
        Line::Result(TestResult {
            ok,
            number,
            name,
            directive: rest[0],
            reason: rest[1],
        })
    }

    #[test]
    fn knows_each_kind() {
        for (text, line) in [
            ("KTAP version 1", Line::Version),
            ("1..12", Line::Plan(12)),
            ("1..0 # SKIP nothing selected", Line::Plan(0)),
            ("# Subtest: buddy", Line::Subtest("buddy")),
            ("# left is 4", Line::Diagnostic("left is 4")),
            ("# Totals: about", Line::Diagnostic("Totals: about")),
            ("Bail out! panicked", Line::BailOut("panicked")),
            ("ok 1 split", result(true, 1, "split", ["", ""])),
            ("ok 1 - split", result(true, 1, "split", ["", ""])),
            ("ok 1", result(true, 1, "", ["", ""])),
            (
                "not ok 3 a # ERROR b c",
                result(false, 3, "a", ["ERROR", "b c"]),
            ),
            (
                "ok 2 huge # SKIP no 1 GiB",
                result(true, 2, "huge", ["SKIP", "no 1 GiB"]),
            ),
            (
                "# Totals: pass:1 fail:2 skip:3 total:6",
                Line::Totals(Totals {
                    pass: 1,
                    fail: 2,
                    skip: 3,
                    total: 6,
                }),
            ),
        ] {
            assert_eq!(Line::parse(text), Some((0, line)), "{text}");
        }
    }

    #[test]
    fn tells_the_level() {
        assert_eq!(Line::parse("    1..2\r"), Some((2, Line::Plan(2))));
        assert_eq!(Line::parse("   1..2"), None);
    }

    #[test]
    fn is_deaf_to_the_rest() {
        for text in [
            "",
            "ok",
            "okay 1 x",
            "ok x y",
            "1..",
            "1..x",
            "HugeTLB: 28 KiB",
            "#",
        ] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
