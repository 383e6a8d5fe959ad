//! A PS/2 keyboard, as every PC has or pretends to have one.
#![expect(unsafe_code, reason = "names I/O ports")]

use pc_keyboard::layouts::Us104Key;
use pc_keyboard::{DecodedKey, HandleControl, KeyCode, PS2Keyboard, ScancodeSet1};
use x86_64::instructions::port::{Port, PortReadOnly, PortWriteOnly};

const DATA: u16 = 0x60;
const STATUS: u16 = 0x64;

/// A byte is there.
const FULL: u8 = 1 << 0;
/// The controller has not taken the last byte that was written.
const BUSY: u8 = 1 << 1;
/// It is the mouse's.
const MOUSE: u8 = 1 << 5;
/// What no controller reads as.
const ABSENT: u8 = 0xff;
/// Command: the keyboard's clock on.
const ENABLE: u8 = 0xae;

/// Most bytes that are taken at once, should a controller never run dry.
const MAX_BYTES: usize = 64;

/// Something typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    /// A byte of what a VT100 sends.
    Byte(u8),
    /// To earlier text.
    PageUp,
    /// To later text.
    PageDown,
}

/// The keyboard: keys in, the bytes of a VT100 out.
pub(crate) struct Keyboard {
    decoder: PS2Keyboard<Us104Key, ScancodeSet1>,
    /// What is left of a key that makes several bytes.
    rest: &'static [u8],
}

impl Keyboard {
    /// The keyboard, if there is a controller. US layout; the controller translates to
    /// scancode set 1, as firmware leaves it.
    #[doc(alias = "i8042_controller_check")]
    pub(crate) fn detect() -> Option<Self> {
        if status() == ABSENT || !command(ENABLE) {
            return None;
        }
        let decoder = PS2Keyboard::new(
            ScancodeSet1::new(),
            Us104Key,
            HandleControl::MapLettersToUnicode,
        );
        Some(Self { decoder, rest: &[] })
    }

    /// Whether there is a keyboard and not just a controller, which firmware may pretend for a
    /// machine with none: whether one answers when it is asked for an echo.
    pub(crate) fn answers(&mut self) -> bool {
        if !has_room(&mut status) {
            return false;
        }
        // SAFETY: the port is the keyboard controller's; the byte goes to the keyboard, which
        // answers and does nothing else (H-1).
        unsafe { PortWriteOnly::new(DATA).write(ECHO) };
        answered(&mut || {
            let status = status();
            let full = status != ABSENT && status & FULL != 0;
            // SAFETY: as in `read`; the byte is taken (H-1).
            let byte = full.then(|| unsafe { PortReadOnly::<u8>::new(DATA).read() });
            byte.filter(|_| status & MOUSE == 0)
        })
    }

    /// The next key, or byte of one, that has been typed. What has none, on the layout or in
    /// ASCII, is left out.
    pub(crate) fn read(&mut self) -> Option<Key> {
        if let Some((&first, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Some(Key::Byte(first));
        }
        for _ in 0..MAX_BYTES {
            let status = status();
            if status == ABSENT || status & FULL == 0 {
                return None;
            }
            // SAFETY: as in `detect`; the byte is taken (H-1).
            let scancode: u8 = unsafe { Port::new(DATA).read() };
            if status & MOUSE != 0 {
                continue;
            }
            let Ok(Some(event)) = self.decoder.add_byte(scancode) else {
                continue;
            };
            let bytes: &[u8] = match self.decoder.process_keyevent(event) {
                Some(DecodedKey::Unicode(c)) => match u8::try_from(c) {
                    Ok(byte) if c.is_ascii() => return Some(Key::Byte(byte)),
                    _ => continue,
                },
                Some(DecodedKey::RawKey(KeyCode::PageUp)) => return Some(Key::PageUp),
                Some(DecodedKey::RawKey(KeyCode::PageDown)) => return Some(Key::PageDown),
                Some(DecodedKey::RawKey(key)) => sequence(key),
                None => continue,
            };
            if let Some((&first, rest)) = bytes.split_first() {
                self.rest = rest;
                return Some(Key::Byte(first));
            }
        }
        None
    }
}

/// Polls until a controller counts as stuck. One takes some hundred microseconds for a byte, and a
/// poll of a port takes one.
const MAX_POLLS: u32 = 100_000;

/// What a keyboard is asked that it gives back.
const ECHO: u8 = 0xee;
/// A keyboard that has understood, and one that has not.
const ANSWERS: [u8; 3] = [ECHO, 0xfa, 0xfe];

/// Whether `read` gives, in the time that a keyboard has, one of the bytes that it answers with.
pub(crate) fn answered(read: &mut dyn FnMut() -> Option<u8>) -> bool {
    (0..MAX_POLLS).any(|_| read().is_some_and(|byte| ANSWERS.contains(&byte)))
}

/// Waits until a controller that shows `status` takes a byte; whether it does. What is written
/// before is lost.
#[doc(alias = "i8042_wait_write")]
pub(crate) fn has_room(status: &mut dyn FnMut() -> u8) -> bool {
    (0..MAX_POLLS).any(|_| status() & BUSY == 0)
}

/// Sends `command` to the controller; whether it has taken it. One that is stuck is sent it all
/// the same, for want of anything better.
#[doc(alias = "i8042_command")]
pub(crate) fn command(command: u8) -> bool {
    let took = has_room(&mut status);
    // SAFETY: the port is the keyboard controller's on every PC, or nobody's; its commands change
    // no memory (H-1).
    unsafe { PortWriteOnly::new(STATUS).write(command) };
    took
}

fn status() -> u8 {
    // SAFETY: the port is the keyboard controller's on every PC, or nobody's; reading
    // changes nothing (H-1).
    unsafe { PortReadOnly::new(STATUS).read() }
}

/// What a terminal sends for a key without a character.
fn sequence(key: KeyCode) -> &'static [u8] {
    match key {
        KeyCode::ArrowUp => b"\x1b[A",
        KeyCode::ArrowDown => b"\x1b[B",
        KeyCode::ArrowRight => b"\x1b[C",
        KeyCode::ArrowLeft => b"\x1b[D",
        KeyCode::Home => b"\x1b[H",
        KeyCode::End => b"\x1b[F",
        KeyCode::Delete => b"\x1b[3~",
        _ => b"",
    }
}
