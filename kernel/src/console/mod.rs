//! One text, three places: the serial port, the screen, and a ring in memory.
//!
//! Whole lines go to all of them under one lock. `log!` puts Linux's time stamp
//! in front; [`raw_line`] does not, for KTAP.

mod bar;
mod pages;
mod picture;
mod ring;
mod screen;
mod vt;

use alloc::collections::TryReserveError;
use alloc::string::String;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, Ordering};

use arrayvec::ArrayVec;
use ktest::Text;
use qr::Code;
use spin::Mutex;

pub(crate) use bar::{Bar, Colour};
use pages::Pages;
pub(crate) use picture::Picture;
pub(crate) use ring::Ring;
pub(crate) use screen::Screen;
use vt::Vt;

use crate::arch::x86_64::{irq, tsc};
use crate::drivers::serial::Serial;

/// How a line is meant; decides its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// The kernel ends here.
    #[doc(alias = "KERN_EMERG")]
    Emerg,
    /// Something is wrong but boot goes on.
    #[doc(alias = "KERN_WARNING")]
    Warn,
    /// Normal.
    #[doc(alias = "KERN_INFO")]
    Info,
}

/// Bytes of log kept in memory.
#[doc(alias = "CONFIG_LOG_BUF_SHIFT")]
const RING_BYTES: usize = 64 * 1024;

struct Console {
    ring: Ring<RING_BYTES>,
    serial: Option<Serial>,
    screen: Option<Screen>,
    vt: Vt,
    /// Where lines without a time stamp go instead, while a command's output is redirected. Has
    /// its memory: nothing is allocated under the lock.
    capture: Option<String>,
    pages: Pages,
    warnings: Warnings,
}

/// Longest warning that is kept, in bytes.
const WARNING: usize = 160;

/// Lines that said what is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Warnings {
    /// How many there were.
    pub(crate) count: usize,
    /// The first ones.
    pub(crate) first: ArrayVec<Text<WARNING>, 4>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console {
    ring: Ring::new(),
    serial: None,
    screen: None,
    vt: Vt::new(),
    capture: None,
    pages: Pages::new(),
    warnings: Warnings {
        count: 0,
        first: ArrayVec::new_const(),
    },
});

// Lines of this level and those that are more urgent are shown; the ring keeps all.
// Relaxed: set once, and a line more or less does not matter.
static SHOWN: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Shows only lines as urgent as `level`, or more so; what was shown before. KTAP is
/// always shown.
#[doc(alias = "console_loglevel")]
pub(crate) fn show_up_to(level: Level) -> Level {
    let before = SHOWN.swap(level as u8, Ordering::Relaxed);
    let all = [Level::Emerg, Level::Warn, Level::Info];
    let before = all.into_iter().find(|level| *level as u8 == before);
    before.unwrap_or(Level::Info)
}

/// Runs `f` with the console, interrupts off: a handler may want to print.
fn with<R>(f: impl FnOnce(&mut Console) -> R) -> R {
    let irq = irq::save();
    let result = f(&mut CONSOLE.lock());
    irq::restore(irq);
    result
}

/// Starts sending everything to `serial`; what was logged before goes there first.
pub(crate) fn add_serial(serial: Serial) {
    with(|console| {
        let serial = console.serial.insert(serial);
        console.ring.chunks(|chunk| serial.write(chunk));
    });
}

/// Starts showing everything on `screen`, beginning with what was logged before.
pub(crate) fn add_screen(screen: Screen) {
    with(|console| {
        let screen = console.screen.insert(screen);
        console.ring.chunks(|chunk| {
            for &byte in chunk {
                screen.put(char::from(byte), Level::Info);
            }
        });
    });
}

/// Whether there is a serial port, and the screen's size in characters (columns,
/// rows) if there is one.
pub(crate) fn outputs() -> (bool, Option<(usize, usize)>) {
    with(|console| {
        let size = console.screen.as_ref().map(Screen::size);
        (console.serial.is_some(), size)
    })
}

/// Empties the screen, so that what follows stays together on it. The other places
/// keep everything.
pub(crate) fn new_page() {
    with(|console| {
        if let Some(screen) = &mut console.screen {
            screen.clear();
        }
    });
}

/// Lets `f` look at the screen, if there is one, or add to it. It allocates nothing: the lock is
/// held.
pub(crate) fn with_screen<R>(f: impl FnOnce(&mut Screen) -> R) -> Option<R> {
    with(|console| console.screen.as_mut().map(f))
}

/// The codes that a person can turn to; see [`show_page`].
pub(crate) fn set_codes(codes: &'static [Code]) {
    with(|console| console.pages.set_codes(codes));
}

/// Number of the page that the screen shows, and how many codes there are: page 0 is the live
/// text, the next ones are the codes, and behind them comes the log from its end back.
pub(crate) fn page() -> (usize, usize) {
    with(|console| (console.pages.at(), console.pages.codes()))
}

/// Shows page `number` on the screen, or the last one if there are not so many.
pub(crate) fn show_page(number: usize) {
    with(|console| {
        if let Some(screen) = &mut console.screen {
            console.pages.show(number, &console.ring, screen);
        }
    });
}

/// The warnings so far.
pub(crate) fn warnings() -> Warnings {
    with(|console| console.warnings.clone())
}

/// What a person at the terminal is told: shown, not logged. Control codes of a VT100
/// are understood.
pub(crate) fn print(text: &str) {
    with(|console| {
        if let Some(serial) = &mut console.serial {
            serial.write(text.as_bytes());
        }
        if let Some(screen) = &mut console.screen {
            console.vt.write(text, screen);
            screen.show_cursor();
        }
    });
}

/// A byte that has come in by the serial port.
pub(crate) fn read_byte() -> Option<u8> {
    with(|console| console.serial.as_mut().and_then(Serial::read))
}

/// The character that stands for `c` where only ASCII goes: the serial port, the log.
pub(crate) fn as_ascii(c: char) -> char {
    if c.is_ascii() {
        c
    } else {
        char::from(bar::as_ascii(c))
    }
}

/// The log as far as it is kept, oldest first.
#[doc(alias = "kmsg_dump")]
pub(crate) fn with_log(mut each: impl FnMut(&[u8])) {
    with(|console| console.ring.chunks(&mut each));
}

/// One line with a time stamp.
pub(crate) fn log(level: Level, line: fmt::Arguments<'_>) {
    let micros = tsc::micros();
    let (s, us) = (micros / 1_000_000, micros % 1_000_000);
    let shown = level as u8 <= SHOWN.load(Ordering::Relaxed);
    if level == Level::Warn {
        with(|console| {
            let warnings = &mut console.warnings;
            warnings.count += 1;
            if !warnings.first.is_full() {
                warnings.first.push(Text::of(line));
            }
        });
    }
    write_line(level, shown, format_args!("[{s:5}.{us:06}] {line}"));
}

/// One line as it is, shown whatever the command line says.
pub(crate) fn raw_line(line: fmt::Arguments<'_>) {
    result_line(Level::Info, line);
}

/// As [`raw_line`], for all but the screen.
pub(crate) fn unseen_line(line: fmt::Arguments<'_>) {
    with(|console| {
        let out = Everywhere {
            console,
            level: Level::Info,
            on_serial: true,
            on_screen: false,
        };
        write_to(out, line);
    });
}

/// As [`raw_line`], in the colour of `level`.
pub(crate) fn result_line(level: Level, line: fmt::Arguments<'_>) {
    let captured = with(|console| {
        let Some(text) = &mut console.capture else {
            return false;
        };
        // Cannot fail: `Bounded` does not.
        let _ = writeln!(Bounded(text), "{line}");
        true
    });
    if !captured {
        write_line(level, true, line);
    }
}

/// Text that takes as much as it has memory for.
struct Bounded<'a>(&'a mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            // As on the serial port, where bars have no characters of their own.
            if self.0.len() < self.0.capacity() {
                self.0.push(as_ascii(c));
            }
        }
        Ok(())
    }
}

/// Runs `work`, and returns what it has printed by [`raw_line`] and its kin instead of showing it:
/// the first `bytes` of it. Lines of the log are shown as ever.
///
/// # Errors
/// No memory for so many bytes; then `work` was not run.
pub(crate) fn captured<R>(
    bytes: usize,
    work: impl FnOnce() -> R,
) -> Result<(R, String), TryReserveError> {
    let mut text = String::new();
    text.try_reserve_exact(bytes)?;
    with(|console| console.capture = Some(text));
    let result = work();
    let text = with(|console| console.capture.take());
    Ok((result, text.unwrap_or_default()))
}

fn write_line(level: Level, shown: bool, line: fmt::Arguments<'_>) {
    with(|console| {
        let out = Everywhere {
            console,
            level,
            on_serial: shown,
            on_screen: shown,
        };
        write_to(out, line);
    });
}

fn write_to(mut out: Everywhere<'_>, line: fmt::Arguments<'_>) {
    // Only a Display implementation can fail, and then the rest is lost.
    let _ = writeln!(out, "{line}");
}

/// The places of a line; the ring takes every one.
struct Everywhere<'a> {
    console: &'a mut Console,
    level: Level,
    on_serial: bool,
    on_screen: bool,
}

impl fmt::Write for Everywhere<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let Console {
            ring,
            serial,
            screen,
            ..
        } = &mut *self.console;
        let mut serial = serial.as_mut().filter(|_| self.on_serial);
        let screen = screen.as_mut().filter(|_| self.on_screen);
        for piece in s.split_inclusive(|c: char| !c.is_ascii()) {
            let ascii_len = piece.find(|c: char| !c.is_ascii()).unwrap_or(piece.len());
            let (ascii, other) = piece.split_at(ascii_len);
            let substitute = other.chars().next().map(|c| [bar::as_ascii(c)]);
            for bytes in [
                ascii.as_bytes(),
                substitute.as_ref().map_or(&[], |b| &b[..]),
            ] {
                ring.write(bytes);
                if let Some(serial) = &mut serial {
                    serial.write(bytes);
                }
            }
        }
        if let Some(screen) = screen {
            for c in s.chars() {
                screen.put(c, self.level);
            }
        }
        Ok(())
    }
}

/// The end of a test run that did not reach its end, in KTAP.
pub(crate) fn bail_out(reason: fmt::Arguments<'_>) {
    ktest::note_abort(&mut KtapLines, reason);
}

/// KTAP lines go out without a time stamp.
#[derive(Debug)]
pub(crate) struct KtapLines;

impl ktest::Output for KtapLines {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        raw_line(line);
    }
}

/// Opens the console's lock whoever holds it. Only for a panic, whose CPU may be
/// the holder: half a line is better than none.
#[expect(unsafe_code, reason = "opens a lock that somebody else may hold")]
pub(crate) fn break_locks() {
    if CONSOLE.is_locked() {
        // SAFETY: the panicking CPU is the only one that prints from here on; a
        // writer it interrupted never goes on (H-7).
        unsafe { CONSOLE.force_unlock() };
    }
    // What a panic says is shown, whatever it interrupted. The text is not given back: the heap's
    // lock may be held.
    with(|console| core::mem::forget(console.capture.take()));
    show_page(0);
}

/// Logs one line, formatted as by `format!`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        $crate::console::log($crate::console::Level::Info, format_args!($($arg)*))
    };
}

/// Logs one line that says what is wrong, though boot goes on.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => {
        $crate::console::log($crate::console::Level::Warn, format_args!($($arg)*))
    };
}

/// Logs one line of a kernel that ends.
#[macro_export]
macro_rules! emerg {
    ($($arg:tt)*) => {
        $crate::console::log($crate::console::Level::Emerg, format_args!($($arg)*))
    };
}
