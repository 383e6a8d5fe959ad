//! Lines of before.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Most lines that are kept.
pub(super) const LINES: usize = 64;

/// The last lines, and where a person is among them.
#[derive(Clone, Debug)]
pub(super) struct History {
    lines: VecDeque<String>,
    /// How many lines back; 0 is the line that is being written.
    back: usize,
    /// That line, while another is shown.
    draft: String,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            back: 0,
            draft: String::new(),
        }
    }

    /// Adds a line, unless it is blank or a repetition, and goes back to the newest.
    pub(super) fn add(&mut self, line: &str) {
        self.back = 0;
        self.draft.clear();
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// The line before the one shown, which is `current`. `None` at the oldest.
    pub(super) fn up(&mut self, current: String) -> Option<&str> {
        if self.back == self.lines.len() {
            return None;
        }
        if self.back == 0 {
            self.draft = current;
        }
        self.back += 1;
        self.lines
            .get(self.lines.len() - self.back)
            .map(String::as_str)
    }

    /// The line after the one shown. `None` at the one being written.
    pub(super) fn down(&mut self) -> Option<&str> {
        self.back = self.back.checked_sub(1)?;
        if self.back == 0 {
            return Some(&self.draft);
        }
        self.lines
            .get(self.lines.len() - self.back)
            .map(String::as_str)
    }
}
