//! Which cases run: the value of `selftest=`.

use crate::case::Case;

/// Whether `text` matches `pattern`, in which `*` stands for any characters and
/// `?` for one. Takes time proportional to the product of the lengths at most.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on if the last `*` has to take one more character.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else {
                    return false;
                };
                retry = Some((after_star, taken + 1));
                p = after_star;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The cases asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection<'a> {
    /// None.
    Off,
    /// All but the manual ones.
    All,
    /// The names of all, but none is run.
    List,
    /// Those that match one of the patterns, separated by commas. A pattern is
    /// `suite:case`; without a colon it names suites.
    Matching(&'a str),
}

impl<'a> Selection<'a> {
    /// From the value of `selftest=`: `off`, `on`, `list`, or patterns.
    #[must_use]
    pub fn parse(value: &'a str) -> Self {
        match value {
            "off" | "0" => Self::Off,
            "on" | "1" | "" => Self::All,
            "list" => Self::List,
            patterns => Self::Matching(patterns),
        }
    }

    /// Whether `case` is to run.
    #[must_use]
    pub fn selects(self, case: &Case) -> bool {
        match self {
            Self::Off | Self::List => false,
            Self::All => !case.manual,
            Self::Matching(patterns) => patterns.split(',').any(|p| matches(p, case)),
        }
    }

    /// The patterns that select none of `cases`: slips of the pen.
    pub fn unmatched<'c>(self, cases: &'c [Case]) -> impl Iterator<Item = &'a str> + use<'a, 'c> {
        let patterns = match self {
            Self::Matching(patterns) => patterns,
            Self::Off | Self::All | Self::List => "",
        };
        patterns
            .split(',')
            .filter(|p| !p.is_empty())
            .filter(|p| !cases.iter().any(|case| matches(p, case)))
    }
}

fn matches(pattern: &str, case: &Case) -> bool {
    let (suite, name) = pattern.split_once(':').unwrap_or((pattern, "*"));
    if case.manual && suite.contains(['*', '?']) {
        return false;
    }
    glob(suite, case.suite) && glob(name, case.name)
}

#[cfg(test)]
mod tests {
    use super::{Selection, glob};
    use crate::case::Case;

    const fn case(suite: &'static str, name: &'static str, manual: bool) -> Case {
        Case {
            suite,
            name,
            manual,
            run: || Ok(()),
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("*b*b*", "abab", true),
            ("*ab", "aab", true),
            ("?", "", false),
            ("a**", "a", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn words_and_patterns() {
        let a = case("buddy_core", "split", false);
        let b = case("selfcheck", "fails", true);
        for (value, runs_a, runs_b) in [
            ("on", true, false),
            ("off", false, false),
            ("list", false, false),
            ("buddy_core", true, false),
            ("buddy_*:sp?it", true, false),
            ("*", true, false),
            ("*:fails", false, false),
            ("selfcheck:fails", false, true),
            ("selfcheck", false, true),
            ("selfcheck:*,buddy_core:split", true, true),
            ("selfcheck:passes", false, false),
        ] {
            let selection = Selection::parse(value);
            assert_eq!(selection.selects(&a), runs_a, "{value} on a");
            assert_eq!(selection.selects(&b), runs_b, "{value} on b");
        }
    }

    #[test]
    fn names_patterns_without_a_match() {
        let cases = [case("buddy", "split", false)];
        let selection = Selection::parse("buddy:*,budy,,buddy:merge");
        assert!(
            selection
                .unmatched(&cases)
                .eq(["budy", "buddy:merge"].into_iter())
        );
        assert_eq!(Selection::All.unmatched(&cases).count(), 0);
    }
}
