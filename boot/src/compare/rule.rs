//! What may differ between two outcomes.

use std::str::FromStr;

/// What may differ.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// Nothing.
    Same,
    /// Numbers, whatever they are.
    Numbers,
    /// Numbers, by so much.
    Within(Tolerance),
    /// Numbers, as long as they change alike, within so much, between one typing of a
    /// line and the next typing of the same line.
    ChangeWithin(Tolerance),
    /// Everything; and something has to, or the rule is out of date.
    Differs,
    /// Everything.
    MayDiffer,
    /// Everything, and it is not shown as a difference.
    Ignore,
}

/// By how much two numbers may differ.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// By so many hundredths of the greater one.
    Percent(f64),
    /// By so much.
    Absolute(u64),
}

impl FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tolerance = match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok();
                percent
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .map(Self::Percent)
            }
            None => text.parse().ok().map(Self::Absolute),
        };
        tolerance.ok_or_else(|| format!("`{text}` is no tolerance; write it like 5% or 64"))
    }
}

impl Tolerance {
    fn covers(self, a: i128, b: i128) -> bool {
        let apart = a.abs_diff(b);
        match self {
            Self::Absolute(most) => apart <= u128::from(most),
            Self::Percent(percent) => {
                let most = a.unsigned_abs().max(b.unsigned_abs());
                // Amounts of memory in bytes fit in a double with room to spare.
                #[expect(clippy::cast_precision_loss, reason = "a hundredth is precise enough")]
                let (apart, most) = (apart as f64, most as f64);
                apart <= most * percent / 100.0
            }
        }
    }
}

/// Two outputs of the same line, and two outputs of an earlier typing of it.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// Now, on either side.
    pub now: [&'a str; 2],
    /// Before, on either side, if it was typed before.
    pub before: Option<[&'a str; 2]>,
}

impl Rule {
    /// Why this rule does not allow for `outputs`, if it does not.
    ///
    /// # Errors
    /// The reason, in words for a person.
    pub fn allows(self, outputs: Outputs<'_>) -> Result<(), String> {
        let [linux, tailfold] = outputs.now;
        let same = linux == tailfold;
        let verdict = |good: bool, why: &str| if good { Ok(()) } else { Err(why.to_owned()) };
        match self {
            Self::Ignore | Self::MayDiffer => Ok(()),
            Self::Same => verdict(same, "not the same"),
            Self::Differs => verdict(!same, "the same, though it is said to differ"),
            Self::Numbers => verdict(
                shape(linux) == shape(tailfold),
                "not the same but for numbers",
            ),
            Self::Within(tolerance) => {
                let numbers = outputs.now.map(numbers);
                alike(outputs.now, &numbers, tolerance)
            }
            Self::ChangeWithin(tolerance) => {
                let before = outputs
                    .before
                    .ok_or("the same line must be typed before, to see a change")?;
                let now = outputs.now.map(numbers);
                let before = before.map(numbers);
                if (0..2).any(|side| now[side].len() != before[side].len()) {
                    return Err("not as many numbers as before".to_owned());
                }
                let change = [0, 1].map(|side: usize| {
                    let pairs = now[side].iter().zip(&before[side]);
                    pairs.map(|(now, before)| now - before).collect()
                });
                alike(outputs.now, &change, tolerance)
            }
        }
    }
}

/// Whether two texts are the same but for numbers, and `numbers` within `tolerance`.
fn alike(texts: [&str; 2], numbers: &[Vec<i128>; 2], tolerance: Tolerance) -> Result<(), String> {
    if shape(texts[0]) != shape(texts[1]) {
        return Err("not the same but for numbers".to_owned());
    }
    let mut pairs = numbers[0].iter().zip(&numbers[1]);
    match pairs.find(|&(&a, &b)| !tolerance.covers(a, b)) {
        Some((a, b)) => Err(format!("{a} and {b} are too far apart")),
        None => Ok(()),
    }
}

/// `text` with one sign in place of every number, and one blank in place of several.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !((c == '0' || c == ' ') && shape.ends_with(c)) {
            shape.push(c);
        }
    }
    shape
}

/// The decimal numbers in `text`; those too long for an `i128` are left out, so that
/// nothing is within anything of them.
fn numbers(text: &str) -> Vec<i128> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Outputs, Rule, Tolerance};

    fn allows(rule: Rule, linux: &str, tailfold: &str) -> bool {
        let now = [linux, tailfold];
        rule.allows(Outputs { now, before: None }).is_ok()
    }

    #[test]
    fn what_each_rule_lets_through() {
        let percent = Rule::Within(Tolerance::Percent(5.0));
        let absolute = Rule::Within(Tolerance::Absolute(2));
        for (rule, linux, tailfold, allowed) in [
            (Rule::Same, "a", "a", true),
            (Rule::Same, "a", "b", false),
            (Rule::Differs, "a", "b", true),
            (Rule::Differs, "a", "a", false),
            (Rule::MayDiffer, "a", "a", true),
            (Rule::Ignore, "a", "b", true),
            (Rule::Numbers, "x:   1 kB", "x: 999 kB", true),
            (Rule::Numbers, "x: 1 kB", "y: 1 kB", false),
            (Rule::Numbers, "x: 1 kB", "x: kB", false),
            (percent, "x: 100 kB", "x: 96 kB", true),
            (percent, "x: 100 kB", "x: 94 kB", false),
            (percent, "0", "0", true),
            (percent, "0", "1", false),
            (absolute, "7 7", "9 5", true),
            (absolute, "7 7", "7 10", false),
            (absolute, "7", "7 7", false),
        ] {
            assert_eq!(
                allows(rule, linux, tailfold),
                allowed,
                "{rule:?} {linux} {tailfold}"
            );
        }
    }

    #[test]
    fn changes_are_compared_with_the_typing_before() {
        let rule = Rule::ChangeWithin(Tolerance::Absolute(1));
        let check = |now, before| rule.allows(Outputs { now, before });
        assert!(check(["110", "20"], Some(["100", "10"])).is_ok());
        assert!(check(["90", "1"], Some(["100", "10"])).is_ok());
        assert!(
            check(["110", "20"], Some(["100", "12"]))
                .unwrap_err()
                .contains("10 and 8")
        );
        assert!(check(["110", "20"], None).is_err());
        assert!(check(["110", "20"], Some(["100", "10 2"])).is_err());
    }

    #[test]
    fn tolerances_are_understood_or_named() {
        assert_eq!("5%".parse(), Ok(Tolerance::Percent(5.0)));
        assert_eq!("64".parse(), Ok(Tolerance::Absolute(64)));
        for text in ["", "%", "-1", "101%", "much", "5 %"] {
            let why = text.parse::<Tolerance>().unwrap_err();
            assert!(why.contains(&format!("`{text}`")));
        }
    }
}
