//! Scripts: lines for a shell, and what may differ between their outcomes. The format
//! is described in tests/compare/README.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rule::{Rule, Tolerance};
use crate::error::Error;
use crate::machine::NumaShape;
use crate::size::Size;

/// Longest time for a line, if it has no `#~ limit`.
const LINE_LIMIT: Duration = Duration::from_secs(60);

/// One side of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The real thing.
    Linux,
    /// This project.
    Tailfold,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Linux, Self::Tailfold];

    /// Its name in scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Tailfold => "tailfold",
        }
    }
}

/// A script.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// Its file's name without the ending.
    pub name: String,
    /// RAM, if it asks for an amount.
    pub memory: Option<Size>,
    /// NUMA nodes, if it asks for a number.
    pub nodes: Option<u32>,
    /// NUMA nodes that are no even shares, if it asks for such.
    pub numa: NumaShape,
    /// Processors, if it asks for a number.
    pub smp: Option<u32>,
    /// Words for both kernels' command lines.
    pub append: String,
    /// Its lines.
    pub steps: Vec<Step>,
}

/// A line of a script.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Its number in the file, from 1.
    pub number: usize,
    /// What is typed at each side, in the order of [`Side::ALL`]; nothing, if the line is
    /// for the other one.
    pub lines: [Option<String>; 2],
    /// What may differ.
    pub rule: Rule,
    /// Why it may; not empty if anything may.
    pub reason: String,
    /// What a side must write, whatever the other one does.
    pub expected: [Option<String>; 2],
    /// Longest time for it.
    pub limit: Duration,
    /// The version of Linux that brought what the line is about.
    pub since: Option<(u32, u32)>,
    /// What may differ, and why, in place of `rule` and `reason` for Linux of a version and later.
    pub newer: Option<((u32, u32), Rule, String)>,
}

impl Step {
    fn new() -> Self {
        Self {
            number: 0,
            lines: [None, None],
            rule: Rule::Same,
            reason: String::new(),
            expected: [None, None],
            limit: LINE_LIMIT,
            since: None,
            newer: None,
        }
    }

    /// The line as it is for Linux of version `linux`.
    #[must_use]
    pub fn for_linux(&self, linux: Option<(u32, u32)>) -> Self {
        let mut step = self.clone();
        if let Some((version, rule, reason)) = step.newer.take()
            && linux.is_some_and(|linux| linux >= version)
        {
            (step.rule, step.reason) = (rule, reason);
        }
        step
    }

    /// What is typed, as one text.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.lines {
            [Some(linux), Some(tailfold)] if linux == tailfold => linux.clone(),
            lines => {
                let sides = Side::ALL.iter().zip(lines);
                let typed = sides.filter_map(|(side, line)| Some((side.name(), line.as_ref()?)));
                let shown: Vec<String> = typed
                    .map(|(side, line)| format!("{side}$ {line}"))
                    .collect();
                shown.join("    ")
            }
        }
    }
}

impl Script {
    /// Reads a script: a path, or the name of one in tests/compare.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Usage`] with the file and the line that makes no sense.
    pub fn read(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = if name.contains('/') || name.contains('.') {
            PathBuf::from(name)
        } else {
            directory.join(format!("{name}.script"))
        };
        let text = std::fs::read_to_string(&path)
            .map_err(Error::io(format!("reading {}", path.display())))?;
        let stem = path.file_stem().unwrap_or_default();
        Self::parse(&stem.to_string_lossy(), &text)
            .map_err(|why| Error::Usage(format!("{}: {why}", path.display())))
    }

    /// The names of all scripts in `directory`, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn names(directory: &Path) -> Result<Vec<String>, Error> {
        let entries = std::fs::read_dir(directory)
            .map_err(Error::io(format!("reading {}", directory.display())))?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(".script").map(str::to_owned)
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Understands the text of a script.
    ///
    /// # Errors
    /// The line's number and what is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut script = Self {
            name: name.to_owned(),
            memory: None,
            nodes: None,
            numa: NumaShape::default(),
            smp: None,
            append: String::new(),
            steps: Vec::new(),
        };
        let mut step = Step::new();
        for (number, line) in (1..).zip(text.lines()) {
            script
                .line(&mut step, number, line.trim())
                .map_err(|why| format!("line {number}: {why}"))?;
        }
        if step != Step::new() {
            return Err("no line follows the last rule".to_owned());
        }
        for step in &script.steps {
            check(step).map_err(|why| format!("line {}: {why}", step.number))?;
        }
        if script.steps.is_empty() {
            return Err("there is no line to type".to_owned());
        }
        Ok(script)
    }

    fn line(&mut self, step: &mut Step, number: usize, line: &str) -> Result<(), String> {
        if let Some(setting) = line.strip_prefix("#:") {
            return self.setting(setting.trim());
        }
        if let Some(rule) = line.strip_prefix("#~") {
            return step.rule(rule.trim());
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        for (n, side) in Side::ALL.into_iter().enumerate() {
            let Some(typed) = line.strip_prefix(&format!("{}$ ", side.name())) else {
                continue;
            };
            // A line for Tailfold belongs to the one for Linux right before it.
            let pair = self.steps.last_mut().filter(|last| {
                last.lines[n].is_none() && last.number + 1 == number && side == Side::Tailfold
            });
            match pair {
                Some(last) => last.lines[n] = Some(typed.to_owned()),
                None => {
                    step.number = number;
                    step.lines[n] = Some(typed.to_owned());
                    self.steps.push(std::mem::replace(step, Step::new()));
                }
            }
            return Ok(());
        }
        step.number = number;
        step.lines = [Some(line.to_owned()), Some(line.to_owned())];
        self.steps.push(std::mem::replace(step, Step::new()));
        Ok(())
    }

    fn setting(&mut self, text: &str) -> Result<(), String> {
        let (word, value) = text.split_once(' ').unwrap_or((text, ""));
        let value = value.trim();
        let count = || {
            let count = value.parse().ok().filter(|&n: &u32| n > 0);
            count.ok_or_else(|| format!("`{value}` is no number of {word}"))
        };
        match word {
            "memory" => {
                let size = value.parse::<Size>();
                self.memory = Some(size.map_err(|why| format!("memory: {why}"))?);
            }
            "nodes" => self.nodes = Some(count()?),
            "numa" => self.numa = value.parse().map_err(|why| format!("numa: {why}"))?,
            "smp" => self.smp = Some(count()?),
            "append" => value.clone_into(&mut self.append),
            _ => {
                return Err(format!(
                    "`#: {word}` is none of memory, nodes, numa, smp, append"
                ));
            }
        }
        Ok(())
    }
}

impl Step {
    fn rule(&mut self, text: &str) -> Result<(), String> {
        let (head, reason) = text.split_once(':').unwrap_or((text, ""));
        let (head, reason) = (head.trim(), reason.trim());
        let rule = match head.split_whitespace().collect::<Vec<_>>()[..] {
            [name @ ("linux" | "tailfold")] => {
                let expected = &mut self.expected[usize::from(name == "tailfold")];
                match expected {
                    None => *expected = Some(reason.to_owned()),
                    Some(before) => {
                        before.push('\n');
                        before.push_str(reason);
                    }
                }
                return Ok(());
            }
            ["limit", seconds] => {
                let seconds = seconds.parse().ok().filter(|&n: &u64| n > 0);
                self.limit = seconds
                    .map(Duration::from_secs)
                    .ok_or_else(|| format!("`{head}` is no number of seconds"))?;
                return Ok(());
            }
            ["since", version] => {
                self.since = Some(linux_version(version)?);
                return Ok(());
            }
            ["from", version, ref words @ ..] => {
                if self.newer.is_some() || reason.is_empty() {
                    return Err(format!("`#~ {head}` is there once, and needs a reason"));
                }
                let rule = rule_of(head, words)?;
                self.newer = Some((linux_version(version)?, rule, reason.to_owned()));
                return Ok(());
            }
            ref words => rule_of(head, words)?,
        };
        if self.rule != Rule::Same || !self.reason.is_empty() {
            return Err("a line has one rule".to_owned());
        }
        self.rule = rule;
        reason.clone_into(&mut self.reason);
        Ok(())
    }
}

/// The rule that `words` of `#~ head` say.
fn rule_of(head: &str, words: &[&str]) -> Result<Rule, String> {
    Ok(match words {
        ["same"] => Rule::Same,
        ["numbers"] => Rule::Numbers,
        ["ignore"] => Rule::Ignore,
        ["differs"] => Rule::Differs,
        ["may", "differ"] => Rule::MayDiffer,
        ["within", amount] => Rule::Within(amount.parse::<Tolerance>()?),
        ["change", "within", amount] => Rule::ChangeWithin(amount.parse::<Tolerance>()?),
        _ => {
            return Err(format!(
                "`#~ {head}` is none of same, numbers, within N[%], change within N[%], \
                 differs, may differ, ignore, from VERSION RULE, linux, tailfold, limit, since"
            ));
        }
    })
}

fn linux_version(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once('.');
    let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| format!("`{text}` is no version of Linux; write it like 6.10"))
}

/// Whoever lets something differ has a reason.
fn check(step: &Step) -> Result<(), String> {
    let alike = step.lines[0] == step.lines[1];
    if step.reason.is_empty() && (step.rule != Rule::Same || !alike) {
        return Err(
            "a line that may differ, or is typed differently, needs a reason: \
                    #~ RULE: REASON"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Script;
    use crate::compare::rule::Rule;
    use crate::size::Size;

    fn why(text: &str) -> String {
        Script::parse("x", text).unwrap_err()
    }

    #[test]
    fn settings_rules_and_lines() {
        let text = "# a comment\n#: memory 2G\n#: nodes 2\n#: append hugepages=3\n\n\
            echo 1\n\
            #~ within 5%: sizes of kernels\n#~ limit 120\n#~ since 6.10\ngrep MemFree x\n\
            #~ differs: another version\n#~ linux: a\n#~ linux: b\n#~ tailfold:\nuname\n\
            #~ same: no files here\nlinux$ dd\ntailfold$ fill\n\
            #~ same: nothing to mount there\nlinux$ mount\n";
        let script = Script::parse("x", text).unwrap();
        assert_eq!(script.memory, Some(Size::mib(2048)));
        assert_eq!((script.nodes, script.smp), (Some(2), None));
        assert_eq!(script.append, "hugepages=3");
        let [echo, grep, uname, fill, mount] = &script.steps[..] else {
            panic!("{:?}", script.steps);
        };
        assert_eq!((echo.number, echo.rule), (6, Rule::Same));
        assert_eq!(grep.reason, "sizes of kernels");
        assert_eq!(grep.limit, Duration::from_secs(120));
        assert_eq!(grep.since, Some((6, 10)));
        assert_eq!(
            uname.expected,
            [Some("a\nb".to_owned()), Some(String::new())]
        );
        assert_eq!(fill.shown(), "linux$ dd    tailfold$ fill");
        assert_eq!(mount.lines, [Some("mount".to_owned()), None]);
    }

    #[test]
    fn a_newer_linux_has_a_rule_of_its_own() {
        let script = Script::parse("x", "#~ from 7.3 differs: new\n#~ within 5: old\na").unwrap();
        let of = |version| {
            let step = script.steps[0].for_linux(version);
            (step.rule, step.reason)
        };
        let old = (Rule::Within("5".parse().unwrap()), "old".to_owned());
        let new = (Rule::Differs, "new".to_owned());
        assert_eq!((of(None), of(Some((6, 12)))), (old.clone(), old));
        assert_eq!((of(Some((7, 3))), of(Some((8, 0)))), (new.clone(), new));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(why("").contains("no line to type"));
        assert!(why("a\n#: cpus 3\nb").starts_with("line 2: `#: cpus`"));
        assert!(why("#: nodes 0\na").contains("`0` is no number of nodes"));
        assert!(why("#: memory much\na").contains("memory"));
        assert!(why("#~ about 3\na").contains("`#~ about 3`"));
        assert!(why("#~ within some: x\na").contains("`some`"));
        assert!(why("#~ since new\na").contains("`new`"));
        assert!(why("#~ from new differs: x\na").contains("`new`"));
        assert!(why("#~ from 7.3 about: x\na").contains("from 7.3 about"));
        assert!(why("#~ from 7.3 differs\na").contains("needs a reason"));
        assert!(why("#~ limit 0\na").contains("limit 0"));
        assert!(why("#~ differs\na").contains("needs a reason"));
        assert!(why("linux$ a\ntailfold$ b").contains("needs a reason"));
        assert!(why("#~ differs: x\n#~ ignore: y\na").contains("one rule"));
        assert!(why("a\n#~ differs: x").contains("no line follows"));
    }
}
