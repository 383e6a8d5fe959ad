//! What a terminal does with the few control codes that a line editor sends.

use core::fmt::{self, Write as _};

use super::Level;
use super::screen::Screen;

/// The longest number of a control sequence.
const MAX_PARAMETER: usize = 999;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC `[`, with the number so far.
    Sequence(usize),
}

/// Reads control codes for a [`Screen`]: BS, CR, LF, and `ESC [` ... `C D H J K`. Others are
/// left out.
#[derive(Debug)]
#[doc(alias = "vc_data")]
pub(super) struct Vt {
    state: State,
}

impl Vt {
    pub(super) const fn new() -> Self {
        Self { state: State::Text }
    }

    /// Shows `text` on `screen`.
    pub(super) fn write(&mut self, text: &str, screen: &mut Screen) {
        let _ = Writer { vt: self, screen }.write_str(text);
    }

    fn put(&mut self, c: char, screen: &mut Screen) {
        let (column, row) = screen.position();
        match (self.state, c) {
            (State::Text, '\x1b') => self.state = State::Escape,
            (State::Text, '\r') => screen.go_to(0, row),
            (State::Text, '\x08') => screen.go_to(column.saturating_sub(1), row),
            (State::Text, '\n' | ' '..) => screen.put(c, Level::Info),
            (State::Text, _) => {}
            (State::Escape, '[') => self.state = State::Sequence(0),
            (State::Escape, _) => self.state = State::Text,
            (State::Sequence(n), '0'..='9') => {
                let digit = usize::from(u8::try_from(c).unwrap_or(b'0') - b'0');
                self.state = State::Sequence((n * 10 + digit).min(MAX_PARAMETER));
            }
            (State::Sequence(n), _) => {
                self.state = State::Text;
                match c {
                    'C' => screen.go_to(column + n.max(1), row),
                    'D' => screen.go_to(column.saturating_sub(n.max(1)), row),
                    'H' => screen.go_to(0, 0),
                    'J' => screen.erase_below(),
                    'K' => screen.erase_line_end(),
                    _ => {}
                }
            }
        }
    }
}

struct Writer<'a> {
    vt: &'a mut Vt,
    screen: &'a mut Screen,
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.vt.put(c, self.screen);
        }
        Ok(())
    }
}
