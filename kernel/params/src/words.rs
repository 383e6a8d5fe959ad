//! Cutting a command line into words, as Linux's `next_arg` does.

use core::fmt::{self, Write as _};

/// One word of the command line, `name` or `name=value`. Displays as typed, with
/// control characters and bytes that are not UTF-8 escaped, and cut if long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    text: &'a [u8],
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

/// Longest word that is displayed whole, in characters.
const DISPLAYED: usize = 64;

impl<'a> Word<'a> {
    /// The word that is `text`, quotes and all.
    fn new(text: &'a [u8]) -> Self {
        // A quote may stand before the word or before the value; what it opened
        // ends with the word.
        let inner = text.strip_prefix(b"\"");
        let (mut name, mut value) = (inner.unwrap_or(text), None);
        if let Some(at) = name.iter().position(|byte| *byte == b'=') {
            value = Some(&name[at + 1..]);
            name = &name[..at];
        }
        if let Some(quoted) = value.and_then(|value| value.strip_prefix(b"\"")) {
            value = Some(quoted.strip_suffix(b"\"").unwrap_or(quoted));
        } else if inner.is_some() {
            let last = value.as_mut().unwrap_or(&mut name);
            *last = last.strip_suffix(b"\"").unwrap_or(last);
        }
        Self { text, name, value }
    }

    /// The word as typed, quotes and all.
    #[must_use]
    pub const fn text(self) -> &'a [u8] {
        self.text
    }

    /// What stands before the first `=`.
    #[must_use]
    pub const fn name(self) -> &'a [u8] {
        self.name
    }

    /// What stands behind the first `=`, if there is one, without quotes around it.
    #[must_use]
    pub const fn value(self) -> Option<&'a [u8]> {
        self.value
    }

    /// Whether its name is `name`; `-` and `_` are the same letter.
    #[must_use]
    #[doc(alias = "parameq")]
    pub fn is(self, name: &str) -> bool {
        let letter = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
        self.name
            .iter()
            .map(letter)
            .eq(name.as_bytes().iter().map(letter))
    }
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = DISPLAYED;
        for chunk in self.text.utf8_chunks() {
            for c in chunk.valid().chars() {
                if left == 0 {
                    return f.write_str("...");
                }
                left -= 1;
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    f.write_char(c)?;
                }
            }
            for byte in chunk.invalid() {
                left = left.saturating_sub(1);
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The words of a line.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub(super) const fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    #[doc(alias = "next_arg")]
    fn next(&mut self) -> Option<Word<'a>> {
        let line = trim_start(self.rest);
        if line.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = line.iter().position(|byte| {
            quoted ^= *byte == b'"';
            is_space(*byte) && !quoted
        });
        let (text, rest) = line.split_at(end.unwrap_or(line.len()));
        self.rest = rest;
        Some(Word::new(text))
    }
}

/// White space in C's sense: `u8::is_ascii_whitespace` lacks the vertical tab.
pub(super) const fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn trim_start(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|byte| !is_space(*byte));
    &line[start.unwrap_or(line.len())..]
}
