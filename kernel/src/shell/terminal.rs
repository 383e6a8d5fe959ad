//! The person's end: what is typed at the serial port or the keyboard, and what is shown
//! on both.

use alloc::string::String;

use shell::{Host, TypeAhead};

use crate::arch::x86_64::{lapic, machine_check, tsc};
use crate::console;
use crate::drivers::keyboard::{Key, Keyboard};

/// Serial port, keyboard and screen.
pub(super) struct Terminal {
    keyboard: Option<Keyboard>,
    /// Whether a keyboard answered when it was asked.
    has_keyboard: bool,
    /// What was typed while a command ran.
    ahead: TypeAhead,
    /// When the screen turns to another page by itself: never, where there is a keyboard.
    next_turn: Option<u64>,
}

/// How long a page stays when pages take turns, in microseconds: long enough for a photograph.
const TURN_MICROS: u64 = 12_000_000;

/// How long the text stays after something has come in by the serial port.
const TYPED_MICROS: u64 = 120_000_000;

/// Pages of the log that take turns.
const LOG_PAGES: usize = 3;

impl Terminal {
    pub(super) fn new() -> Self {
        let mut keyboard = Keyboard::detect();
        let has_keyboard = keyboard.as_mut().is_some_and(Keyboard::answers);
        Self {
            keyboard,
            has_keyboard,
            ahead: TypeAhead::new(),
            next_turn: (!has_keyboard).then(|| tsc::micros() + TURN_MICROS),
        }
    }

    /// Whether a keyboard was found.
    pub(super) const fn has_keyboard(&self) -> bool {
        self.has_keyboard
    }

    /// The next byte typed, if there is one.
    pub(super) fn read(&mut self) -> Option<u8> {
        self.ahead.pop().or_else(|| self.device())
    }

    /// The next byte from a device. Keys that turn pages are acted on, and any other makes the
    /// screen show the text again.
    fn device(&mut self) -> Option<u8> {
        let key = console::read_byte().map(Key::Byte);
        let key = key.or_else(|| self.keyboard.as_mut()?.read())?;
        let later = |_| tsc::micros() + TYPED_MICROS;
        self.next_turn = self.next_turn.map(later);
        let (page, _) = console::page();
        match key {
            Key::PageUp => console::show_page(page + 1),
            Key::PageDown => console::show_page(page.saturating_sub(1)),
            Key::Byte(byte) => {
                if page > 0 {
                    console::show_page(0);
                }
                return Some(byte);
            }
        }
        None
    }

    /// Shows the next page, if it is time: the text, the codes, the end of the log, and again.
    fn take_turns(&mut self) {
        let now = tsc::micros();
        if self.next_turn.is_some_and(|at| now >= at) {
            let (page, codes) = console::page();
            console::show_page((page + 1) % (1 + codes + LOG_PAGES));
            if console::page().0 == page {
                // The log has fewer pages.
                console::show_page(0);
            }
            self.next_turn = Some(now + TURN_MICROS);
        }
    }
}

impl Host for Terminal {
    fn print(&mut self, text: &str) {
        console::print(text);
    }

    fn interrupted(&mut self) -> bool {
        while let Some(byte) = self.device() {
            self.ahead.push(byte);
        }
        self.ahead.take_interrupt()
    }

    fn micros(&mut self) -> u64 {
        tsc::micros()
    }

    /// Sleeps until the timer's next tick: neither device interrupts.
    fn idle(&mut self) {
        machine_check::say_what_was_noted();
        self.take_turns();
        lapic::sleep();
    }

    fn log(&mut self) -> String {
        let mut text = String::new();
        console::with_log(|bytes| text.push_str(&String::from_utf8_lossy(bytes)));
        text
    }

    fn columns(&mut self) -> usize {
        // A terminal at the serial port cannot be asked; the screen's size is known.
        let (_, screen) = console::outputs();
        screen.map_or(80, |(columns, _)| columns.min(80))
    }
}
