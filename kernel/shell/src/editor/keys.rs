//! Bytes of a terminal, taken together to keys.

/// What a person pressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A character; U+FFFD for bytes that are no UTF-8.
    Char(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    /// Ctrl-U.
    KillStart,
    /// Ctrl-K.
    KillEnd,
    /// Ctrl-W.
    KillWord,
    /// Ctrl-L.
    Clear,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfInput,
}

/// Longest escape sequence or string that is waited for to end, in bytes.
const SEQUENCE_MAX: u16 = 256;

#[derive(Clone, Copy, Debug)]
enum State {
    Ground,
    /// Some bytes of a character.
    Character {
        bytes: [u8; 4],
        len: usize,
    },
    Escape,
    /// After ESC `[`: the first number, and whether there are more.
    Csi {
        number: u16,
        more: bool,
        len: u16,
    },
    /// One more byte: after ESC `O`, or after ESC `[[` of Linux's console.
    OneMore {
        cursor: bool,
    },
    /// A string that ends at BEL or ESC `\`.
    Text {
        len: u16,
    },
}

/// The decoder.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    state: State,
    /// The last byte was a CR: an LF after it is the same Enter.
    after_cr: bool,
}

impl Keys {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Ground,
            after_cr: false,
        }
    }

    /// Takes one byte; the keys that it completes. There are two when it shows that the
    /// bytes before it are no character.
    pub(super) fn feed(&mut self, byte: u8) -> [Option<Key>; 2] {
        if let State::Character { mut bytes, len } = self.state {
            bytes[len] = byte;
            self.state = State::Ground;
            return match core::str::from_utf8(&bytes[..=len]) {
                // One of the other control characters (C1) is for terminals, not for text.
                Ok(text) => {
                    let c = text.chars().next().filter(|c| !c.is_control());
                    let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                    [Some(Key::Char(c)), None]
                }
                Err(e) if e.error_len().is_none() && len < 3 => {
                    let len = len + 1;
                    self.state = State::Character { bytes, len };
                    [None, None]
                }
                Err(_) => [
                    Some(Key::Char(char::REPLACEMENT_CHARACTER)),
                    self.start(byte),
                ],
            };
        }
        [self.step(byte), None]
    }

    fn step(&mut self, byte: u8) -> Option<Key> {
        // A control character ends any sequence: nobody is to wait for its end.
        if byte < 0x20 && !matches!((byte, self.state), (0x07, State::Text { .. })) {
            return self.start(byte);
        }
        match self.state {
            State::Ground | State::Character { .. } => self.start(byte),
            State::Escape => self.escape(byte),
            State::Csi { number, more, len } => self.csi(byte, number, more, len),
            State::OneMore { cursor } => {
                self.state = State::Ground;
                if cursor { cursor_key(byte) } else { None }
            }
            State::Text { len } => {
                self.state = if byte == 0x07 || len == SEQUENCE_MAX {
                    State::Ground
                } else {
                    State::Text { len: len + 1 }
                };
                None
            }
        }
    }

    fn start(&mut self, byte: u8) -> Option<Key> {
        self.state = State::Ground;
        let after_cr = core::mem::replace(&mut self.after_cr, byte == b'\r');
        Some(match byte {
            b'\n' if after_cr => return None,
            b'\r' | b'\n' => Key::Enter,
            b'\t' => Key::Tab,
            0x1b => {
                self.state = State::Escape;
                return None;
            }
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x03 => Key::Interrupt,
            0x04 => Key::EndOfInput,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x08 | 0x7f => Key::Backspace,
            0x0b => Key::KillEnd,
            0x0c => Key::Clear,
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillStart,
            0x17 => Key::KillWord,
            b' '..=b'~' => Key::Char(char::from(byte)),
            0xc2..=0xf4 => {
                let bytes = [byte, 0, 0, 0];
                self.state = State::Character { bytes, len: 1 };
                return None;
            }
            0x80.. => Key::Char(char::REPLACEMENT_CHARACTER),
            _ => return None,
        })
    }

    fn escape(&mut self, byte: u8) -> Option<Key> {
        self.state = match byte {
            b'[' => State::Csi {
                number: 0,
                more: false,
                len: 0,
            },
            b'O' => State::OneMore { cursor: true },
            b']' | b'P' | b'X' | b'^' | b'_' => State::Text { len: 0 },
            _ => State::Ground,
        };
        match byte {
            b'b' => Some(Key::WordLeft),
            b'f' => Some(Key::WordRight),
            0x7f => Some(Key::KillWord),
            _ => None,
        }
    }

    fn csi(&mut self, byte: u8, number: u16, more: bool, len: u16) -> Option<Key> {
        match byte {
            b'0'..=b'9' if !more && len < SEQUENCE_MAX => {
                let number = number
                    .saturating_mul(10)
                    .saturating_add(u16::from(byte - b'0'));
                let len = len + 1;
                self.state = State::Csi { number, more, len };
                None
            }
            0x20..=0x3f if len < SEQUENCE_MAX => {
                self.state = State::Csi {
                    number,
                    more: true,
                    len: len + 1,
                };
                None
            }
            b'[' if len == 0 => {
                self.state = State::OneMore { cursor: false };
                None
            }
            _ => {
                self.state = State::Ground;
                match (byte, number, more) {
                    (b'~', 1 | 7, false) => Some(Key::Home),
                    (b'~', 4 | 8, false) => Some(Key::End),
                    (b'~', 3, false) => Some(Key::Delete),
                    (b'C', 1, true) => Some(Key::WordRight),
                    (b'D', 1, true) => Some(Key::WordLeft),
                    (_, 0 | 1, false) => cursor_key(byte),
                    _ => None,
                }
            }
        }
    }
}

fn cursor_key(byte: u8) -> Option<Key> {
    Some(match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}
