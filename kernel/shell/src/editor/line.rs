//! A line of text and a place in it.

use alloc::string::String;
use alloc::vec::Vec;

use super::LINE_MAX;

/// The text under edit. Positions are counted in characters.
#[derive(Clone, Debug)]
pub(super) struct Line {
    text: Vec<char>,
    cursor: usize,
    /// Length in bytes of UTF-8.
    bytes: usize,
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            text: Vec::new(),
            cursor: 0,
            bytes: 0,
        }
    }

    pub(super) fn text(&self) -> &[char] {
        &self.text
    }

    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(super) fn before_cursor(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Puts `text` in place of everything, with the cursor at the end.
    pub(super) fn set(&mut self, text: &str) {
        self.text = text.chars().collect();
        self.bytes = text.len();
        self.cursor = self.text.len();
    }

    /// The text; empty afterwards.
    pub(super) fn take(&mut self) -> String {
        let text = self.text.iter().collect();
        self.set("");
        text
    }

    /// Puts `c` before the cursor. `false` if the line is full.
    pub(super) fn insert(&mut self, c: char) -> bool {
        let fits = self.bytes + c.len_utf8() <= LINE_MAX;
        if fits {
            self.text.insert(self.cursor, c);
            self.bytes += c.len_utf8();
            self.cursor += 1;
        }
        fits
    }

    /// Removes what lies between `from` and `to`; the cursor comes to `from`. `false` if
    /// nothing does.
    fn cut(&mut self, from: usize, to: usize) -> bool {
        let gone = self.text.drain(from..to);
        self.bytes -= gone.map(char::len_utf8).sum::<usize>();
        self.cursor = from;
        from < to
    }

    pub(super) fn backspace(&mut self) -> bool {
        self.cut(self.cursor.saturating_sub(1), self.cursor)
    }

    pub(super) fn delete(&mut self) -> bool {
        self.cut(self.cursor, self.text.len().min(self.cursor + 1))
    }

    pub(super) fn kill_start(&mut self) -> bool {
        self.cut(0, self.cursor)
    }

    pub(super) fn kill_end(&mut self) -> bool {
        self.cut(self.cursor, self.text.len())
    }

    /// Removes the word before the cursor, and blanks between.
    pub(super) fn kill_word(&mut self) -> bool {
        self.cut(self.word_start(), self.cursor)
    }

    /// Goes to `position`, or to the end. `false` if it is there already.
    pub(super) fn go(&mut self, position: usize) -> bool {
        let position = position.min(self.text.len());
        core::mem::replace(&mut self.cursor, position) != position
    }

    /// Where the word before the cursor starts.
    pub(super) fn word_start(&self) -> usize {
        let before = &self.text[..self.cursor];
        let end = before.iter().rposition(|&c| c != ' ').map_or(0, |n| n + 1);
        let blank = before[..end].iter().rposition(|&c| c == ' ');
        blank.map_or(0, |n| n + 1)
    }

    /// Where the word after the cursor ends.
    pub(super) fn word_end(&self) -> usize {
        let after = |from: usize, blank: bool| {
            let rest = &self.text[from..];
            let found = rest.iter().position(|&c| (c == ' ') == blank);
            found.map_or(self.text.len(), |n| from + n)
        };
        after(after(self.cursor, false), true)
    }
}
