//! What is typed while nobody reads.

use alloc::collections::VecDeque;

/// Most bytes that are kept; what comes after them is lost.
const BYTES_MAX: usize = 16 << 10;

/// Input between the device and the shell.
#[derive(Clone, Debug, Default)]
#[doc(alias = "n_tty_data")]
pub struct TypeAhead {
    bytes: VecDeque<u8>,
    interrupted: bool,
}

impl TypeAhead {
    /// Nothing typed.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: VecDeque::new(),
            interrupted: false,
        }
    }

    /// A byte of input that comes while a command runs. Ctrl-C throws away what came before
    /// it.
    pub fn push(&mut self, byte: u8) {
        if byte == 0x03 {
            self.bytes.clear();
            self.interrupted = true;
        } else if self.bytes.len() < BYTES_MAX {
            self.bytes.push_back(byte);
        }
    }

    /// The oldest byte.
    pub fn pop(&mut self) -> Option<u8> {
        self.bytes.pop_front()
    }

    /// Whether Ctrl-C came since the last call.
    pub fn take_interrupt(&mut self) -> bool {
        core::mem::take(&mut self.interrupted)
    }
}
