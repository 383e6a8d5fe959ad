//! The person's end: what is typed at the serial port or the keyboard, and what is shown
//! on both.

use alloc::string::String;

use shell::{Host, TypeAhead};

use crate::arch::x86_64::{lapic, machine_check, tsc};
use crate::console;
use crate::drivers::keyboard::Keyboard;

/// Serial port, keyboard and screen.
pub(super) struct Terminal {
    keyboard: Option<Keyboard>,
    /// What was typed while a command ran.
    ahead: TypeAhead,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            keyboard: Keyboard::detect(),
            ahead: TypeAhead::new(),
        }
    }

    /// The next byte typed, if there is one.
    pub(super) fn read(&mut self) -> Option<u8> {
        self.ahead.pop().or_else(|| self.device())
    }

    fn device(&mut self) -> Option<u8> {
        console::read_byte().or_else(|| self.keyboard.as_mut()?.read())
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
