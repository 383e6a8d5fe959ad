//! Pages that a person can turn to: the codes of the report, and the log from its end back.

use qr::Code;

use super::picture::Picture;
use super::ring::Ring;
use super::screen::Screen;
use super::{Level, RING_BYTES};

/// Pages behind the live text, which is page 0.
#[derive(Debug)]
pub(super) struct Pages {
    /// A page each, from 1 on.
    codes: &'static [Code],
    /// The one that is shown.
    at: usize,
}

impl Pages {
    pub(super) const fn new() -> Self {
        Self { codes: &[], at: 0 }
    }

    pub(super) fn set_codes(&mut self, codes: &'static [Code]) {
        self.codes = codes;
    }

    /// The page that is shown.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// How many codes there are: pages 1 to so many.
    pub(super) const fn codes(&self) -> usize {
        self.codes.len()
    }

    /// Shows page `number`, or the last one if there are not so many.
    pub(super) fn show(&mut self, number: usize, ring: &Ring<RING_BYTES>, screen: &mut Screen) {
        if number == 0 {
            self.at = 0;
            screen.look_away();
        } else if let Some(code) = self.codes.get(number - 1) {
            self.at = number;
            show_code(code, number, self.codes.len(), screen);
        } else {
            let back = number - self.codes.len();
            self.at = self.codes.len() + show_log(back, ring, screen);
        }
    }
}

/// A line at the top of a page that says what it is.
fn title(text: &str, put: &mut dyn FnMut(usize, usize, char, Level)) {
    for (column, c) in text.chars().enumerate() {
        put(column, 0, c, Level::Warn);
    }
}

fn show_code(code: &'static Code, number: usize, count: usize, screen: &mut Screen) {
    let ((width, height), (columns, rows)) = (screen.cell(), screen.size());
    let picture = Picture::code(code, columns * width, (rows - 1) * height);
    let place = picture.map(|picture| {
        let free = columns.saturating_sub(picture.size().0.div_ceil(width));
        (picture, free / 2, 1)
    });
    let text = ktest::Text::<96>::of(format_args!(
        "Report, code {number} of {count}: photograph it, `cargo run -- report PICTURE` reads it"
    ));
    screen.look(|put| title(text.as_str(), put), place);
}

/// Calls `each` with the row, the column and every character of the log, in rows of `columns`;
/// how many rows there are.
fn rows(
    ring: &Ring<RING_BYTES>,
    columns: usize,
    mut each: impl FnMut(usize, usize, char),
) -> usize {
    let (mut row, mut column) = (0, 0);
    ring.chunks(|chunk| {
        for &byte in chunk {
            if byte == b'\n' {
                (row, column) = (row + 1, 0);
                continue;
            }
            if column == columns {
                (row, column) = (row + 1, 0);
            }
            each(row, column, char::from(byte));
            column += 1;
        }
    });
    row + usize::from(column > 0)
}

/// Shows the page that lies `back` pages before the end of the log, from 1 on, or the first one;
/// which it is.
fn show_log(back: usize, ring: &Ring<RING_BYTES>, screen: &mut Screen) -> usize {
    let (columns, height) = screen.size();
    let height = (height - 1).max(1);
    let all = rows(ring, columns, |_, _, _| ());
    let count = all.div_ceil(height).max(1);
    let back = back.min(count);
    let first = all.saturating_sub(back * height);
    let text = ktest::Text::<96>::of(format_args!(
        "Log, page {} of {count}: Page Up and Page Down turn, any other key ends",
        count + 1 - back
    ));
    let draw = |put: &mut dyn FnMut(usize, usize, char, Level)| {
        title(text.as_str(), put);
        rows(ring, columns, |row, column, c| {
            if (first..first + height).contains(&row) {
                put(column, row - first + 1, c, Level::Info);
            }
        });
    };
    screen.look(draw, None);
    back
}
