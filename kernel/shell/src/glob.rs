//! Patterns of names, as in `node*`.

use alloc::string::String;
use alloc::vec::Vec;

/// One element of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Element {
    Literal(char),
    /// `?`.
    One,
    /// `*`.
    Any,
    /// `[a-z]` and `[!a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern for one name of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glob(Vec<Element>);

impl Glob {
    /// From characters, each with whether it was quoted.
    pub(crate) fn new(text: &[(char, bool)]) -> Self {
        let mut elements = Vec::new();
        let mut rest = text;
        while let [(c, quoted), after @ ..] = rest {
            rest = after;
            elements.push(match c {
                '*' if !quoted => Element::Any,
                '?' if !quoted => Element::One,
                '[' if !quoted => match class(after) {
                    Some((class, after)) => {
                        rest = after;
                        class
                    }
                    None => Element::Literal('['),
                },
                &c => Element::Literal(c),
            });
        }
        Self(elements)
    }

    /// The name itself, if the pattern matches only one.
    pub(crate) fn literal(&self) -> Option<String> {
        let literals = self.0.iter().map(|element| match element {
            Element::Literal(c) => Some(c),
            _ => None,
        });
        literals.collect()
    }

    /// Whether it matches `name`. Takes time proportional to the product of the lengths
    /// at most.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut p, mut n) = (0, 0);
        // Where to go on if the last `*` has to take one more character.
        let mut retry: Option<(usize, usize)> = None;
        while let Some(&c) = name.get(n) {
            match self.0.get(p) {
                Some(Element::Any) => {
                    p += 1;
                    retry = Some((p, n));
                }
                Some(element) if element.takes(c) => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else {
                        return false;
                    };
                    retry = Some((after_star, taken + 1));
                    (p, n) = (after_star, taken + 1);
                }
            }
        }
        self.0[p..].iter().all(|element| *element == Element::Any)
    }
}

impl Element {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::One => true,
            Self::Any => false,
            Self::Class { negated, ranges } => {
                *negated != ranges.iter().any(|&(from, to)| (from..=to).contains(&c))
            }
        }
    }
}

/// The class after a `[`, and what follows it. `None` if it is not closed.
fn class(text: &[(char, bool)]) -> Option<(Element, &[(char, bool)])> {
    let (negated, mut rest) = match text {
        [('!' | '^', false), rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        let (&(from, quoted), after) = rest.split_first()?;
        // A `]` right at the start is one of the characters.
        if from == ']' && !quoted && !ranges.is_empty() {
            return Some((Element::Class { negated, ranges }, after));
        }
        rest = after;
        let mut to = from;
        if let [('-', false), (end, _), after @ ..] = rest
            && *end != ']'
        {
            to = *end;
            rest = after;
        }
        ranges.push((from, to));
    }
}
