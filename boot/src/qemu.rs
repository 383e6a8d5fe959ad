//! Running a guest to its end, with limits.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wait_timeout::ChildExt;

use crate::accel::{self, no_qemu};
use crate::error::Error;
use crate::ktap;
use crate::machine::Arguments;
use crate::size::Size;

/// The word in the kernel's first line by which it is known to have started: the
/// firmware writes to the same port.
pub const BANNER: &str = "Tailfold";

/// How long a kernel may take to its first word, in software emulation on a busy
/// machine. UEFI takes 4 s on an idle one.
pub const FIRST_WORD_LIMIT: Duration = Duration::from_secs(90);

/// Most that a guest may write to its serial port.
const OUTPUT_LIMIT: Size = Size::mib(64);

/// How long after its verdict a kernel is taken to stay: one that ends by itself
/// needs an instant.
const AFTER_VERDICT: Duration = Duration::from_secs(2);

/// How often the limits are looked at.
const STEP: Duration = Duration::from_millis(50);

/// How a guest is run.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Longest time from start to end, as [`Guest::elapsed`] counts it.
    pub limit: Option<Duration>,
    /// Longest time to the kernel's first word ([`BANNER`]).
    pub first_word: Option<Duration>,
    /// End it when the kernel has come to its verdict and stays idle.
    pub at_verdict: bool,
    /// Repeat the guest's words on our stdout as they come.
    pub echo: bool,
    /// File to write them to.
    pub log: Option<&'a Path>,
}

/// A guest that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Why it ended.
    pub end: End,
    /// All that it wrote to its serial port, without terminal control sequences.
    pub serial: String,
    /// What QEMU wrote to stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

/// Why a guest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// QEMU ended.
    Status(ExitStatus),
    /// The kernel has come to its verdict, and stayed.
    Verdict,
    /// It took longer than this.
    Limit(Duration),
    /// The kernel had not said a word after this.
    Silent(Duration),
    /// It wrote more than this.
    TooMuchOutput(Size),
}

/// Where an emulator writes what the guest's serial port says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SerialFrom {
    /// Its own stdout.
    Stdout,
    /// A FIFO, which it opens.
    Fifo(PathBuf),
}

/// A file that is opened when it is first read: a FIFO's opening waits for the writer.
struct Late {
    path: PathBuf,
    file: Option<File>,
}

impl Late {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }
}

impl Read for Late {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        file.read(buffer)
    }
}

/// A guest that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    /// What it needs beside, until it has ended.
    aside: Option<Box<dyn std::any::Any + Send>>,
    fifo: Option<PathBuf>,
    started: Instant,
    serial: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Guest {
    /// Starts QEMU, its stdout and stderr with us.
    ///
    /// # Errors
    /// [`Error::NoQemu`]; [`Error::Io`] if the log cannot be written.
    pub fn start(arguments: &Arguments, options: &Options<'_>) -> Result<Self, Error> {
        let mut command = Command::new(accel::qemu());
        command.args(arguments.iter());
        Self::launch(command, no_qemu, SerialFrom::Stdout, None, options)
    }

    /// Starts an emulator, whose serial port comes `from` there. `aside` is dropped when it has
    /// ended.
    ///
    /// # Errors
    /// What `no_program` makes of a program that does not start; [`Error::Io`] if the log cannot
    /// be written.
    pub(crate) fn launch(
        mut command: Command,
        no_program: fn(std::io::Error) -> Error,
        from: SerialFrom,
        aside: Option<Box<dyn std::any::Any + Send>>,
        options: &Options<'_>,
    ) -> Result<Self, Error> {
        let log = options
            .log
            .map(|path| {
                File::create(path).map_err(Error::io(format!("writing {}", path.display())))
            })
            .transpose()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(no_program)?;
        let serial = Arc::default();
        let stderr = Arc::default();
        let mut sinks: Vec<Box<dyn Write + Send>> = Vec::new();
        if options.echo {
            sinks.push(Box::new(std::io::stdout()));
        }
        if let Some(log) = log {
            sinks.push(Box::new(log));
        }
        let aside_of =
            |from: Option<_>| from.map(|from| collect(from, Arc::clone(&stderr), Vec::new()));
        let mut readers = Vec::new();
        let mut fifo = None;
        match from {
            SerialFrom::Stdout => {
                let stdout = child.stdout.take();
                readers.extend(stdout.map(|from| collect(from, Arc::clone(&serial), sinks)));
            }
            SerialFrom::Fifo(path) => {
                readers.extend(aside_of(
                    child
                        .stdout
                        .take()
                        .map(|from| Box::new(from) as Box<dyn Read + Send>),
                ));
                readers.push(collect(Late::new(path.clone()), Arc::clone(&serial), sinks));
                fifo = Some(path);
            }
        }
        readers.extend(aside_of(
            child
                .stderr
                .take()
                .map(|from| Box::new(from) as Box<dyn Read + Send>),
        ));
        Ok(Self {
            child,
            aside,
            fifo,
            started: Instant::now(),
            serial,
            readers,
            stderr,
        })
    }

    /// What it wrote so far.
    #[must_use]
    pub fn serial(&self) -> String {
        plain(&self.serial.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long it has run, as far as the host let it: time that its busiest thread spent waiting
    /// for a processor does not count, so that a limit on a busy host is one on an idle host. At
    /// least a tenth of the time on the clock, so that every limit comes.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let clock = self.started.elapsed();
        let waited = waited(self.child.id()).unwrap_or_default();
        clock.saturating_sub(waited).max(clock / 10)
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has_ended(&mut self) -> Result<bool, Error> {
        Ok(self
            .child
            .try_wait()
            .map_err(Error::io("waiting for QEMU"))?
            .is_some())
    }

    /// Waits for the end, or makes it when a limit of `options` is reached.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait(mut self, options: &Options<'_>) -> Result<Ended, Error> {
        let end = self.watch(options)?;
        self.stop();
        let took = self.started.elapsed();
        Ok(Ended {
            end,
            serial: self.serial(),
            stderr: plain(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)),
            took,
        })
    }

    fn watch(&mut self, options: &Options<'_>) -> Result<End, Error> {
        let mut silent = options.first_word;
        // Where to go on looking for the first word.
        let mut seen = 0;
        let mut verdict_since = None;
        loop {
            let status = self
                .child
                .wait_timeout(STEP)
                .map_err(Error::io("waiting for QEMU"))?;
            if let Some(status) = status {
                return Ok(End::Status(status));
            }
            let length = {
                let serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                if silent.is_some() && has_banner(&serial[seen..]) {
                    silent = None;
                }
                seen = serial.len().saturating_sub(BANNER.len());
                serial.len()
            };
            if options.at_verdict && length > 0 && is_given(&self.serial()) {
                // A kernel that goes on to end by itself is given the time to.
                let since: &mut Instant = verdict_since.get_or_insert_with(Instant::now);
                if since.elapsed() > AFTER_VERDICT {
                    return Ok(End::Verdict);
                }
            }
            let elapsed = self.elapsed();
            if let Some(limit) = silent.filter(|limit| elapsed > *limit) {
                return Ok(End::Silent(limit));
            }
            if let Some(limit) = options.limit.filter(|limit| elapsed > *limit) {
                return Ok(if silent.is_some() {
                    End::Silent(limit)
                } else {
                    End::Limit(limit)
                });
            }
            if u64::try_from(length).is_ok_and(|length| length > OUTPUT_LIMIT.bytes()) {
                return Ok(End::TooMuchOutput(OUTPUT_LIMIT));
            }
        }
    }

    fn stop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(fifo) = self.fifo.take() {
            // A guest that never opened its end has left the reader waiting for somebody who does.
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            let _ = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty());
        }
        for reader in self.readers.drain(..) {
            // A reader that panicked has kept what it read.
            let _ = reader.join();
        }
        self.aside = None;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a guest and waits for its end.
///
/// # Errors
/// As [`Guest::start`] and [`Guest::wait`].
pub fn run(arguments: &Arguments, options: &Options<'_>) -> Result<Ended, Error> {
    Guest::start(arguments, options)?.wait(options)
}

/// Runs a guest on our own terminal until the person leaves it, or for `limit`.
///
/// # Errors
/// [`Error::NoQemu`], [`Error::Io`]; [`Error::TimedOut`] at the limit.
pub fn run_on_terminal(
    arguments: &Arguments,
    limit: Option<Duration>,
) -> Result<ExitStatus, Error> {
    let mut child = Command::new(accel::qemu())
        .args(arguments.iter())
        .spawn()
        .map_err(no_qemu)?;
    let Some(limit) = limit else {
        return child.wait().map_err(Error::io("waiting for QEMU"));
    };
    let status = child
        .wait_timeout(limit)
        .map_err(Error::io("waiting for QEMU"))?;
    if let Some(status) = status {
        return Ok(status);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Error::TimedOut {
        limit,
        last: "see above".to_owned(),
    })
}

/// How long the busiest thread of process `pid` has waited for a processor. `None` where the host
/// does not count it (`CONFIG_SCHED_INFO`; Linux, Documentation/scheduler/sched-stats.rst).
fn waited(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let busiest = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| {
            // Nanoseconds on a processor, nanoseconds waiting for one, slices of time.
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .max_by_key(|(ran, waited)| ran.saturating_add(*waited))?;
    Some(Duration::from_nanos(busiest.1))
}

/// Whether the kernel has said its first word in `serial`.
fn has_banner(serial: &[u8]) -> bool {
    serial
        .windows(BANNER.len())
        .any(|window| window == BANNER.as_bytes())
}

fn collect(
    mut from: impl Read + Send + 'static,
    into: Arc<Mutex<Vec<u8>>>,
    mut sinks: Vec<Box<dyn Write + Send>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..n];
            into.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            // A sink that fails (a closed pipe, a full disk) is given up; the run
            // goes on, for its verdict does not depend on it.
            sinks.retain_mut(|sink| sink.write_all(bytes).and_then(|()| sink.flush()).is_ok());
        }
    })
}

/// Serial output as text: terminal control sequences, which OVMF writes many of,
/// carriage returns and other control characters taken out.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // CSI: parameters, then one final character (ECMA-48 5.4).
                for c in chars.by_ref() {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
            '\n' | '\t' => plain.push(c),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Whether the kernel has come to its verdict, the last line of a boot that tests, or has
/// panicked.
#[must_use]
pub fn is_given(serial: &str) -> bool {
    serial.contains("Tailfold: ") || ktap::bail_out(serial).is_some()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::{has_banner, plain, waited};

    /// More processes than processors, each in a loop: each must wait. One that sleeps does not.
    #[test]
    fn waiting_for_a_processor_is_told_from_sleep() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::null());
            command.spawn().unwrap()
        };
        let mut busy: Vec<_> = (0..2 * processors)
            .map(|_| start("while :; do :; done"))
            .collect();
        let mut asleep = start("exec sleep 60");
        let started = Instant::now();
        let most = || busy.iter().map(|child| waited(child.id()).unwrap()).max();
        while most() < Some(Duration::from_millis(200)) {
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", most());
            std::thread::sleep(Duration::from_millis(20));
        }
        let slept = waited(asleep.id()).unwrap();
        for child in busy.iter_mut().chain([&mut asleep]) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(slept < Duration::from_millis(100), "{slept:?}");
    }

    #[test]
    fn firmware_colours_are_taken_out() {
        let text = plain(b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading\r\nTailfold\x00 0.1\r\n");
        assert_eq!(text, "BdsDxe: loading\nTailfold 0.1\n");
        assert_eq!(plain(b"\x1b"), "");
        assert_eq!(plain(b"a\x1b["), "a");
    }

    #[test]
    fn the_firmware_is_not_the_kernel() {
        assert!(!has_banner(b"BdsDxe: failed to load Boot0001"));
        assert!(has_banner(b"..Tailfold 0.1.0"));
    }
}
