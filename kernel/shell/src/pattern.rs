//! Regular expressions, as much as one types at `grep`.
//!
//! POSIX's `.`, `[...]`, `*`, `^` and `$`, GNU's `\|`, `\+` and `\?`, and with `-E` the same
//! without the backslash. No groups and no counts. A line is matched in time proportional
//! to its length times the pattern's: all states of the automaton go along together.

use alloc::vec;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

/// How the text of a pattern is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// POSIX basic.
    Basic,
    /// POSIX extended: `grep -E`.
    Extended,
    /// No character is special: `grep -F`.
    Fixed,
}

/// Why a pattern cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PatternError {
    /// In GNU's words.
    UnmatchedBracket,
    /// In GNU's words.
    TrailingBackslash,
    /// A group or a count.
    NotSupported,
}

impl PatternError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::UnmatchedBracket => "Unmatched [, [^, [:, [., or [=",
            Self::TrailingBackslash => "Trailing backslash",
            Self::NotSupported => "groups and counts are not supported in a pattern",
        }
    }
}

#[derive(Clone, Debug)]
enum Atom {
    Literal(char),
    /// `.`.
    One,
    /// `^`, which takes no character.
    Start,
    /// `$`, which takes no character.
    End,
    /// `[a-z]` and `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Clone, Debug)]
struct Item {
    atom: Atom,
    /// May be left out.
    optional: bool,
    /// May be repeated.
    repeats: bool,
}

/// Items one after another.
#[derive(Clone, Debug, Default)]
struct Branch(Vec<Item>);

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    branches: Vec<Branch>,
    fold_case: bool,
}

impl Pattern {
    pub(crate) fn new(text: &str, kind: Kind, fold_case: bool) -> Result<Self, PatternError> {
        let mut branches = vec![Branch::default()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let (c, escaped) = match c {
                '\\' if kind != Kind::Fixed => {
                    (rest.next().ok_or(PatternError::TrailingBackslash)?, true)
                }
                c => (c, false),
            };
            let special = match c {
                '|' | '+' | '?' | '(' | ')' | '{' | '}' => escaped == (kind == Kind::Basic),
                _ => !escaped,
            } && kind != Kind::Fixed;
            let Some(branch) = branches.last_mut() else {
                continue;
            };
            let extended = kind == Kind::Extended;
            let first = branch.0.is_empty();
            // In a basic pattern there is nothing to repeat at the start or behind `^`; the
            // character is itself. In an extended one it is nothing.
            let repeats = |item: &&mut Item| extended || !matches!(item.atom, Atom::Start);
            let last = branch.0.last_mut().filter(|_| special).filter(repeats);
            match (c, last) {
                ('*', Some(item)) => (item.optional, item.repeats) = (true, true),
                ('+', Some(item)) => item.repeats = true,
                ('?', Some(item)) => item.optional = true,
                ('*' | '+' | '?', None) if special && extended => {}
                ('|', _) if special => branches.push(Branch::default()),
                ('(' | ')' | '{' | '}', _) if special => return Err(PatternError::NotSupported),
                ('^', _) if special && (extended || first) => branch.push(Atom::Start),
                ('$', _) if special && (extended || ends(&rest)) => branch.push(Atom::End),
                ('.', _) if special => branch.push(Atom::One),
                ('[', _) if special => {
                    let class = class(&mut rest).ok_or(PatternError::UnmatchedBracket)?;
                    branch.push(class);
                }
                (c, _) => branch.push(Atom::Literal(fold(c, fold_case))),
            }
        }
        Ok(Self {
            branches,
            fold_case,
        })
    }

    /// Whether `line` has a match.
    pub(crate) fn matches(&self, line: &str) -> bool {
        self.branches
            .iter()
            .any(|b| b.matches(line, self.fold_case))
    }
}

/// Whether a branch of a basic pattern ends here.
fn ends(rest: &Peekable<Chars<'_>>) -> bool {
    let mut rest = rest.clone();
    match rest.next() {
        None => true,
        Some(c) => c == '\\' && rest.next() == Some('|'),
    }
}

fn fold(c: char, fold_case: bool) -> char {
    if fold_case { c.to_ascii_lowercase() } else { c }
}

/// The class after a `[`.
fn class(rest: &mut Peekable<Chars<'_>>) -> Option<Atom> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = rest.next()?;
        // A `]` right at the start is one of the characters.
        if from == ']' && !ranges.is_empty() {
            return Some(Atom::Class { negated, ranges });
        }
        let mut ahead = rest.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                *rest = ahead;
                to
            }
            _ => from,
        };
        ranges.push((from, to));
    }
}

impl Branch {
    fn push(&mut self, atom: Atom) {
        self.0.push(Item {
            atom,
            optional: false,
            repeats: false,
        });
    }

    fn matches(&self, line: &str, fold_case: bool) -> bool {
        let end = self.0.len();
        // State `n` is before item `n`.
        let (mut states, mut after) = (vec![false; end + 1], vec![false; end + 1]);
        let mut rest = line.chars();
        let mut at_start = true;
        loop {
            let next = rest.next();
            // A match may begin anywhere.
            states[0] = true;
            self.skip(&mut states, at_start, next.is_none());
            if states[end] {
                return true;
            }
            let Some(c) = next else {
                return false;
            };
            after.fill(false);
            for (n, item) in self.0.iter().enumerate() {
                if states[n] && item.atom.takes(c, fold_case) {
                    after[n] |= item.repeats;
                    after[n + 1] = true;
                }
            }
            core::mem::swap(&mut states, &mut after);
            at_start = false;
        }
    }

    /// Adds the states that are reached without a character.
    fn skip(&self, states: &mut [bool], at_start: bool, at_end: bool) {
        for (n, item) in self.0.iter().enumerate() {
            let free = match item.atom {
                Atom::Start => at_start,
                Atom::End => at_end,
                _ => false,
            };
            states[n + 1] |= states[n] && (free || item.optional);
        }
    }
}

impl Atom {
    fn takes(&self, c: char, fold_case: bool) -> bool {
        let c = fold(c, fold_case);
        match self {
            Self::Literal(literal) => *literal == c,
            Self::One => true,
            Self::Start | Self::End => false,
            Self::Class { negated, ranges } => {
                let has = |c: char| ranges.iter().any(|&(from, to)| (from..=to).contains(&c));
                *negated != (has(c) || fold_case && has(c.to_ascii_uppercase()))
            }
        }
    }
}
