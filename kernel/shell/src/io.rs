//! What a command reads and writes, and the machine behind it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Exit status of a command: 0 is success.
pub type Status = u8;

/// Most bytes that a pipe or a redirection holds: more than any file of a kernel, and a
/// small part of its heap.
pub const BUFFER_MAX: usize = 256 << 10;

/// What the shell needs of the machine.
pub trait Host {
    /// Shows text on the terminal.
    fn print(&mut self, text: &str);

    /// Whether Ctrl-C was typed since the last call. Other input is kept for later.
    #[doc(alias = "signal_pending")]
    fn interrupted(&mut self) -> bool;

    /// Microseconds since some moment.
    #[doc(alias = "ktime_get")]
    fn micros(&mut self) -> u64;

    /// Waits a moment, at most some milliseconds.
    #[doc(alias = "cpu_relax")]
    fn idle(&mut self);

    /// The kernel's log.
    #[doc(alias = "log_buf")]
    fn log(&mut self) -> String;

    /// Columns of the terminal.
    fn columns(&mut self) -> usize {
        80
    }
}

/// Where an output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Terminal,
    /// `/dev/null`, which takes as much as there is.
    Nowhere,
    /// A buffer, by index.
    Buffer(usize),
}

/// The input and the outputs of a command.
pub struct Io<'h> {
    host: &'h mut dyn Host,
    /// Of standard output and standard error.
    pub(crate) routes: [Route; 2],
    pub(crate) buffers: Vec<String>,
    pub(crate) input: Option<String>,
    interrupted: bool,
    /// A buffer is full.
    pub(crate) overflow: bool,
}

impl<'h> Io<'h> {
    pub(crate) fn new(host: &'h mut dyn Host) -> Self {
        Self {
            host,
            routes: [Route::Terminal; 2],
            buffers: Vec::new(),
            input: None,
            interrupted: false,
            overflow: false,
        }
    }

    /// Standard output.
    pub fn out(&mut self) -> impl fmt::Write + use<'_, 'h> {
        Output { io: self, fd: 0 }
    }

    /// Standard error.
    pub fn err(&mut self) -> impl fmt::Write + use<'_, 'h> {
        Output { io: self, fd: 1 }
    }

    /// Whether standard output goes to the terminal.
    #[must_use]
    #[doc(alias = "isatty")]
    pub fn is_terminal(&self) -> bool {
        self.routes[0] == Route::Terminal
    }

    /// The text that is piped or redirected to the command. `None` if there is none: nobody
    /// can type input for a command.
    pub fn input(&mut self) -> Option<String> {
        self.input.take()
    }

    /// Whether Ctrl-C was typed: the command is to end. Writing fails from then on.
    pub fn interrupted(&mut self) -> bool {
        self.interrupted = self.interrupted || self.host.interrupted();
        self.interrupted
    }

    /// The machine.
    pub fn host(&mut self) -> &mut (dyn Host + 'h) {
        self.host
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

struct Output<'a, 'h> {
    io: &'a mut Io<'h>,
    fd: usize,
}

impl fmt::Write for Output<'_, '_> {
    /// Fails after Ctrl-C, which is looked for after every line, and when a buffer is full.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let io = &mut *self.io;
        if io.interrupted || io.overflow {
            return Err(fmt::Error);
        }
        match io.routes[self.fd] {
            Route::Terminal => {
                for line in text.split_inclusive('\n') {
                    io.host.print(line);
                    if line.ends_with('\n') && io.interrupted() {
                        return Err(fmt::Error);
                    }
                }
            }
            Route::Nowhere => {
                if io.interrupted() {
                    return Err(fmt::Error);
                }
            }
            Route::Buffer(n) => {
                let Some(buffer) = io.buffers.get_mut(n) else {
                    return Err(fmt::Error);
                };
                if buffer.len() + text.len() > BUFFER_MAX {
                    io.overflow = true;
                    return Err(fmt::Error);
                }
                buffer.push_str(text);
                if text.contains('\n') && io.interrupted() {
                    return Err(fmt::Error);
                }
            }
        }
        Ok(())
    }
}
