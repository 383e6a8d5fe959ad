//! The first serial port.
#![expect(unsafe_code, reason = "names I/O ports")]

use core::hint;

use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

use crate::arch::x86_64::tsc;

/// Where COM1 is on every PC that has one.
const COM1: u16 = 0x3f8;

/// How long a port may not send until it counts as stuck, so that a slow reader at the
/// other end of an emulated one loses nothing. Other CPUs wait meanwhile, and are
/// missed after ten seconds.
const LIMIT_SECONDS: u64 = 3;
/// Polls until then, while the clock's frequency is not known.
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
        // SAFETY: COM1 or nothing lies at these ports on a PC; this is called once (H-1).
        let mut uart = unsafe { Uart16550::new_port(COM1) }.ok()?;
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        uart.test_loopback().ok()?;
        Some(Self { uart, stuck: false })
    }

    /// Sends text; a line break becomes CR LF. While the port is stuck text is
    /// dropped; it is tried again with each.
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
        let mut polls = 0_u32;
        let mut since = tsc::cycles();
        while !bytes.is_empty() {
            let sent = self.uart.send_bytes(bytes);
            bytes = &bytes[sent..];
            if sent > 0 {
                self.stuck = false;
                (polls, since) = (0, tsc::cycles());
                continue;
            }
            polls += 1;
            let waited = tsc::cycles().wrapping_sub(since);
            self.stuck |= match tsc::hz() {
                0 => polls == MAX_POLLS,
                hz => waited > hz * LIMIT_SECONDS,
            };
            if self.stuck {
                return;
            }
            hint::spin_loop();
        }
    }
}
