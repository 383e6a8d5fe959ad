//! The row of the terminal that shows the line.
//!
//! The line stays on one row, whatever its length: a part of it is shown, as wide as the
//! row. So nothing depends on the height of the terminal or on how it breaks lines, and
//! nothing but the number of columns must be known. Only what differs from what is on the
//! screen is sent.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::line::Line;

/// Columns of a terminal, if nobody says otherwise.
pub(super) const COLUMNS: usize = 80;
/// Fewest columns that can be worked with.
const COLUMNS_MIN: usize = 20;

/// What the row shows.
#[derive(Clone, Debug)]
pub(super) struct View {
    prompt: &'static str,
    columns: usize,
    /// The first character of the line that is shown.
    first: usize,
    /// The characters on the screen behind the prompt.
    shown: Vec<char>,
    /// Where in them the terminal's cursor is.
    at: usize,
}

impl View {
    pub(super) const fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            columns: COLUMNS,
            first: 0,
            shown: Vec::new(),
            at: 0,
        }
    }

    pub(super) fn set_columns(&mut self, columns: usize) {
        self.columns = columns.max(COLUMNS_MIN);
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Characters of the line that fit. The last column stays free: what a terminal does
    /// after writing there differs.
    fn width(&self) -> usize {
        (self.columns - 1).saturating_sub(self.prompt.len()).max(4)
    }

    /// The prompt, on an empty row.
    pub(super) fn prompt(&mut self, out: &mut impl Write) -> fmt::Result {
        self.shown.clear();
        (self.first, self.at) = (0, 0);
        out.write_str(self.prompt)
    }

    /// Makes the row show `line`.
    pub(super) fn show(&mut self, line: &Line, out: &mut impl Write) -> fmt::Result {
        self.scroll(line);
        let text = line.text();
        let end = text.len().min(self.first + self.width());
        let wanted = text[self.first..end].iter().map(|&c| visible(c));
        let wanted: Vec<char> = wanted.collect();
        let same = (wanted.iter().zip(&self.shown))
            .take_while(|(a, b)| a == b)
            .count();
        if same < wanted.len() || wanted.len() < self.shown.len() {
            self.go(same, out)?;
            for &c in &wanted[same..] {
                out.write_char(c)?;
            }
            self.at = wanted.len();
            if wanted.len() < self.shown.len() {
                out.write_str("\x1b[K")?;
            }
            self.shown = wanted;
        }
        self.go(line.cursor() - self.first, out)
    }

    /// Shows all of `line`, over several rows if it takes them, and goes to the next row.
    pub(super) fn finish(&mut self, line: &Line, out: &mut impl Write) -> fmt::Result {
        if self.first > 0 || line.text().len() > self.shown.len() {
            out.write_char('\r')?;
            self.prompt(out)?;
            for &c in line.text() {
                out.write_char(visible(c))?;
            }
        } else {
            self.go(self.shown.len(), out)?;
        }
        out.write_char('\n')
    }

    /// Chooses the part to show: the cursor must be in it. It moves by half a row, so
    /// that a line that is typed or pasted is not sent again and again.
    fn scroll(&mut self, line: &Line) {
        let (cursor, len, width) = (line.cursor(), line.text().len(), self.width());
        let half = width / 2;
        if len <= width {
            self.first = 0;
        } else if cursor <= self.first {
            self.first = cursor.saturating_sub(half);
        } else if cursor >= self.first + width && (cursor < len || cursor > self.first + width) {
            self.first = cursor - half;
        }
    }

    fn go(&mut self, to: usize, out: &mut impl Write) -> fmt::Result {
        match (to.checked_sub(self.at), self.at.saturating_sub(to)) {
            (None, 1) => out.write_char('\x08')?,
            (None, left) => write!(out, "\x1b[{left}D")?,
            (Some(0), _) => {}
            (Some(right), _) => write!(out, "\x1b[{right}C")?,
        }
        self.at = to;
        Ok(())
    }
}

/// What stands for `c` on the screen: one column each. What may be wide, or joined to its
/// neighbour, is a question mark.
fn visible(c: char) -> char {
    match c {
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}' => c,
        _ => '?',
    }
}
