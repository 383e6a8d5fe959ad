//! The first serial port.
#![expect(unsafe_code, reason = "names I/O ports")]

use core::hint;

use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

/// Where COM1 is on every PC that has one.
const COM1: u16 = 0x3f8;

/// Polls before a port that does not send counts as broken: several seconds, so
/// that a slow reader at the other end of an emulated port loses nothing.
const MAX_POLLS: u32 = 10_000_000;

/// A serial port that answers.
#[derive(Debug)]
pub(crate) struct Serial {
    uart: Uart16550<PioBackend>,
    stuck: bool,
}

impl Serial {
    /// COM1 at 115200 8N1, if there is one: it has to remember a byte and to hear
    /// itself in loopback mode.
    pub(crate) fn detect() -> Option<Self> {
        // SAFETY: COM1 or nothing lies at these ports on a PC; this is called once.
        let mut uart = unsafe { Uart16550::new_port(COM1) }.ok()?;
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        uart.test_loopback().ok()?;
        Some(Self { uart, stuck: false })
    }

    /// Sends text; a line break becomes CR LF. Text is dropped once the port has
    /// stopped sending.
    pub(crate) fn write(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => {
                    self.send(line);
                    self.send(b"\r\n");
                }
                None => self.send(line),
            }
        }
    }

    /// A byte that has come in. What nobody fetches in time, 16 bytes, is lost on a PC; an
    /// emulator waits.
    pub(crate) fn read(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }

    fn send(&mut self, mut bytes: &[u8]) {
        let mut polls = 0;
        while !bytes.is_empty() && !self.stuck {
            let sent = self.uart.send_bytes(bytes);
            bytes = &bytes[sent..];
            polls = if sent == 0 { polls + 1 } else { 0 };
            self.stuck = polls == MAX_POLLS;
            if sent == 0 {
                hint::spin_loop();
            }
        }
    }
}
