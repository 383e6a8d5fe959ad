//! The line editor: bytes of a terminal in, text for its screen out.
//!
//! A state machine without a clock or a device. The keys are those of readline's and
//! busybox's emacs mode: arrows, Home, End, Delete, Ctrl-A B C D E F H K L N P U W, Alt-B
//! and Alt-F, Tab. Of the screen it needs what a VT100 has: BEL, BS, CR, LF, `CSI n C`,
//! `CSI n D`, `CSI K`, `CSI H`, `CSI J`.

mod history;
mod keys;
mod line;
mod view;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use history::History;
use keys::{Key, Keys};
use line::Line;
use view::View;

/// Longest line in bytes of UTF-8; the terminal rings for what is more.
#[doc(alias = "MAX_CANON")]
pub const LINE_MAX: usize = 4096;

/// What a byte led to, if it needs somebody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Enter: the line, which is in the history already. The terminal is on a new row.
    Line(String),
    /// Ctrl-C: the line is gone. The terminal is on a new row.
    Interrupt,
    /// Ctrl-D on an empty line.
    EndOfInput,
    /// Tab: [`Editor::complete`] wants to be called.
    Complete,
}

/// One way to go on with a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// What takes the place of the word. A blank is added, except after `/`.
    pub text: String,
    /// What a list of candidates shows for it.
    pub shown: String,
}

/// The ways to go on with the word before the cursor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    /// Characters of the word, which end at the cursor.
    pub word: usize,
    /// The ways, in order. Each text begins with the word.
    pub candidates: Vec<Candidate>,
}

/// A line under edit on a terminal.
#[derive(Clone, Debug)]
pub struct Editor {
    keys: Keys,
    line: Line,
    view: View,
    history: History,
    /// The key before was a Tab that got nowhere.
    stuck: bool,
}

impl Editor {
    /// An empty line; nothing is on the screen yet. `prompt` is ASCII and shorter than a
    /// row.
    #[must_use]
    pub const fn new(prompt: &'static str) -> Self {
        Self {
            keys: Keys::new(),
            line: Line::new(),
            view: View::new(prompt),
            history: History::new(),
            stuck: false,
        }
    }

    /// Says how wide the terminal is. It is taken for 80 columns, and for no less than 20.
    pub fn set_columns(&mut self, columns: usize) {
        self.view.set_columns(columns);
    }

    /// Columns of the terminal.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.view.columns()
    }

    /// Shows the prompt and what there is of a line on a row that is empty.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn start(&mut self, out: &mut impl Write) -> fmt::Result {
        self.view.prompt(out)?;
        self.view.show(&self.line, out)
    }

    /// Shows the prompt and what there is of a line in place of what is on the row.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn redraw(&mut self, out: &mut impl Write) -> fmt::Result {
        out.write_str("\r\x1b[K")?;
        self.start(out)
    }

    /// The line up to the cursor.
    #[must_use]
    pub fn before_cursor(&self) -> String {
        self.line.before_cursor()
    }

    /// Takes one byte and brings the screen up to date.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn feed(&mut self, byte: u8, out: &mut impl Write) -> Result<Option<Event>, fmt::Error> {
        let [first, second] = self.keys.feed(byte);
        // Of two keys the first is a character, which is no event.
        if let Some(key) = first {
            let event = self.press(key, out)?;
            if second.is_none() {
                return Ok(event);
            }
        }
        second.map_or(Ok(None), |key| self.press(key, out))
    }

    fn press(&mut self, key: Key, out: &mut impl Write) -> Result<Option<Event>, fmt::Error> {
        if key != Key::Tab {
            self.stuck = false;
        }
        let line = &mut self.line;
        let done = match key {
            Key::Char(c) => line.insert(c),
            Key::Backspace => line.backspace(),
            Key::Delete => line.delete(),
            Key::Left => line.cursor() > 0 && line.go(line.cursor() - 1),
            Key::Right => line.go(line.cursor() + 1),
            Key::WordLeft => line.go(line.word_start()),
            Key::WordRight => line.go(line.word_end()),
            Key::Home => {
                line.go(0);
                true
            }
            Key::End => {
                line.go(usize::MAX);
                true
            }
            Key::KillStart => {
                line.kill_start();
                true
            }
            Key::KillEnd => {
                line.kill_end();
                true
            }
            Key::KillWord => line.kill_word(),
            Key::Up => {
                let older = self.history.up(line.text().iter().collect());
                older.map(|text| line.set(text)).is_some()
            }
            Key::Down => self.history.down().map(|text| line.set(text)).is_some(),
            Key::Tab => return Ok(Some(Event::Complete)),
            Key::EndOfInput if line.text().is_empty() => return Ok(Some(Event::EndOfInput)),
            Key::EndOfInput => line.delete(),
            Key::Clear => {
                out.write_str("\x1b[H\x1b[J")?;
                self.start(out)?;
                true
            }
            Key::Enter => {
                self.view.finish(&self.line, out)?;
                let text = self.line.take();
                self.history.add(&text);
                return Ok(Some(Event::Line(text)));
            }
            Key::Interrupt => {
                self.line.go(usize::MAX);
                self.view.show(&self.line, out)?;
                self.line.take();
                self.history.add("");
                out.write_str("^C\n")?;
                return Ok(Some(Event::Interrupt));
            }
        };
        if !done {
            out.write_char('\x07')?;
        }
        self.view.show(&self.line, out)?;
        Ok(None)
    }

    /// Goes on with the word before the cursor as far as `found` leaves no choice. If it
    /// leaves no way at all the terminal rings; at the second Tab in a row it lists them.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn complete(&mut self, found: &Completion, out: &mut impl Write) -> fmt::Result {
        let stuck = core::mem::take(&mut self.stuck);
        let common = found.common_prefix();
        let rest: Vec<char> = common.chars().skip(found.word).collect();
        let done = match found.candidates.as_slice() {
            [] => false,
            [only] => {
                let blank = (!only.text.ends_with('/')).then_some(' ');
                rest.into_iter().chain(blank).all(|c| self.line.insert(c))
            }
            _ if !rest.is_empty() => rest.into_iter().all(|c| self.line.insert(c)),
            several if stuck => {
                let names: Vec<&str> = several.iter().map(|c| c.shown.as_str()).collect();
                self.view.finish(&self.line, out)?;
                crate::columns::write(&names, self.columns(), out)?;
                return self.start(out);
            }
            _ => {
                self.stuck = true;
                false
            }
        };
        if !done {
            out.write_char('\x07')?;
        }
        self.view.show(&self.line, out)
    }
}

impl Completion {
    /// What all candidates begin with.
    fn common_prefix(&self) -> &str {
        let mut texts = self.candidates.iter().map(|c| c.text.as_str());
        let Some(first) = texts.next() else {
            return "";
        };
        texts.fold(first, |common, text| {
            let same = common.chars().zip(text.chars());
            let len = same.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
            &common[..len.sum()]
        })
    }
}
