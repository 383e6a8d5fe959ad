//! The first serial port.
#![expect(unsafe_code, reason = "names I/O ports")]

use core::hint;

use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::port::Port;

use crate::arch::x86_64::tsc::{self, OwnTime};

/// Where COM1 is on every PC that has one.
const COM1: u16 = 0x3f8;

/// Its modem control register, and the bit there that makes it hear itself (16550D data sheet,
/// 8.6.7).
const MODEM_CONTROL: u16 = COM1 + 4;
const LOOPBACK: u8 = 1 << 4;

/// Polls until a byte counts as not coming back: it takes 87 microseconds, a poll takes one.
const MAX_LOOPBACK_POLLS: u32 = 100_000;

/// How long a port may not send until it counts as stuck, so that a slow reader at the
/// other end of an emulated one loses nothing. Other CPUs wait meanwhile.
const LIMIT_MICROS: u64 = 3_000_000;
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
        // SAFETY: the register is COM1's, which has just remembered a byte (H-1).
        let before: u8 = unsafe { Port::new(MODEM_CONTROL).read() };
        // SAFETY: as above (H-1).
        unsafe { Port::new(MODEM_CONTROL).write(LOOPBACK) };
        let uart = core::cell::RefCell::new(uart);
        let hears = hears_itself(
            &mut |byte| uart.borrow_mut().try_send_byte(byte).is_ok(),
            &mut || uart.borrow_mut().try_receive_byte().ok(),
        );
        // SAFETY: as above; what was there (H-1).
        unsafe { Port::new(MODEM_CONTROL).write(before) };
        hears.then(|| Self {
            uart: uart.into_inner(),
            stuck: false,
        })
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
        let mut own = OwnTime::start();
        while !bytes.is_empty() {
            let sent = self.uart.send_bytes(bytes);
            bytes = &bytes[sent..];
            if sent > 0 {
                self.stuck = false;
                (polls, own) = (0, OwnTime::start());
                continue;
            }
            polls += 1;
            let waited = own.micros();
            self.stuck |= match tsc::hz() {
                0 => polls == MAX_POLLS,
                _ => waited > LIMIT_MICROS,
            };
            if self.stuck {
                return;
            }
            hint::spin_loop();
        }
    }
}

/// Whether a port in loopback mode gives back what it is sent. The crate's own test waits for that
/// without limit, and a port that remembers bytes but has no loopback would stop the boot before
/// there is a screen.
pub(crate) fn hears_itself(
    send: &mut dyn FnMut(u8) -> bool,
    receive: &mut dyn FnMut() -> Option<u8>,
) -> bool {
    // What came in before is not ours: as much as the port keeps, and some more.
    let _ = (0..64).find(|_| receive().is_none());
    [0x5a, 0xa5].into_iter().all(|byte| {
        let mut sent = false;
        let mut heard = None;
        for _ in 0..MAX_LOOPBACK_POLLS {
            sent = sent || send(byte);
            heard = heard.or_else(&mut *receive);
            if heard.is_some() {
                break;
            }
            hint::spin_loop();
        }
        heard == Some(byte)
    })
}
