//! Pictures of the guest's screen, by QEMU's machine protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::Machine;
use crate::qemu::{self, Guest, Options};

/// How long the picture must stay the same to be taken for the last one, in
/// software emulation.
pub const STILL: Duration = Duration::from_secs(15);

/// How often it is looked at.
const STEP: Duration = Duration::from_secs(1);

/// Longest time for one answer of QEMU.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// When a picture is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// When the kernel has given its verdict on serial, and the screen is the same
    /// for a second.
    Verdict,
    /// When the screen has not changed for so long, usually [`STILL`]: a long test
    /// or the firmware may look like the end.
    Still(Duration),
}

/// A picture to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Shot<'a> {
    /// Where to save it, as PNG.
    pub file: &'a Path,
    /// When to take it.
    pub when: When,
    /// Longest time until then.
    pub limit: Duration,
    /// Where to write the serial port's output.
    pub log: Option<&'a Path>,
}

/// Runs `machine`, which must have a socket in [`Machine::qmp`], until it is time for
/// the picture, takes it, and ends the machine.
///
/// # Errors
/// [`Error::TimedOut`] if that time does not come; [`Error::Io`]; [`Error::Qemu`]
/// if the guest ends before that, or QEMU takes no pictures.
pub fn shoot(machine: &Machine, shot: &Shot<'_>) -> Result<(), Error> {
    let Some(socket) = &machine.qmp else {
        return Err(Error::Usage("the machine has no socket".to_owned()));
    };
    // One that a run before left behind would be taken for this run's.
    let _ = std::fs::remove_file(socket);
    let file = std::path::absolute(shot.file)
        .map_err(Error::io(format!("finding {}", shot.file.display())))?;
    let mut guest = Guest::start(
        &machine.arguments()?,
        &Options {
            log: shot.log,
            ..Options::default()
        },
    )?;
    let result = still_picture(&mut guest, socket, &file, shot);
    let _ = std::fs::remove_file(socket);
    result
}

fn still_picture(
    guest: &mut Guest,
    socket: &Path,
    file: &Path,
    shot: &Shot<'_>,
) -> Result<(), Error> {
    let limit = shot.limit;
    let started = Instant::now();
    let mut qmp = loop {
        match Qmp::connect(socket) {
            Ok(qmp) => break qmp,
            Err(error) if guest.has_ended()? || started.elapsed() > ANSWER_LIMIT => {
                return Err(error);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let mut last: Option<(Vec<u8>, Instant)> = None;
    loop {
        std::thread::sleep(STEP);
        if guest.has_ended()? {
            return Err(Error::Qemu {
                status: "its own end before the screen was still (init=shell stays)".to_owned(),
                stderr: String::new(),
            });
        }
        qmp.call("screendump", &json!({ "filename": file, "format": "png" }))?;
        let picture =
            std::fs::read(file).map_err(Error::io(format!("reading {}", file.display())))?;
        match &last {
            Some((before, since)) if *before == picture => {
                let ready = match shot.when {
                    When::Verdict => qemu::is_given(&guest.serial()),
                    // The firmware's screen is still, too.
                    When::Still(time) => since.elapsed() > time && started.elapsed() > time * 2,
                };
                if ready {
                    return Ok(());
                }
            }
            _ => last = Some((picture, Instant::now())),
        }
        if guest.elapsed() > limit {
            return Err(Error::TimedOut {
                limit,
                last: guest
                    .serial()
                    .lines()
                    .last()
                    .unwrap_or("none on serial, and the screen still changes")
                    .to_owned(),
            });
        }
    }
}

/// A connection of QEMU's machine protocol.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, and ends the negotiation.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Qemu`].
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let doing = || format!("connecting to {}", socket.display());
        let stream = UnixStream::connect(socket).map_err(Error::io(doing()))?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .map_err(Error::io(doing()))?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
        };
        qmp.answer()?;
        qmp.call("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Calls `command` and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Qemu`] with QEMU's words if it refuses.
    pub fn call(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}")
            .map_err(Error::io(format!("telling QEMU to {command}")))?;
        loop {
            let mut answer = self.answer()?;
            if let Some(error) = answer.get("error") {
                return Err(Error::Qemu {
                    status: format!("a refusal of {command}"),
                    stderr: error["desc"].as_str().unwrap_or_default().to_owned(),
                });
            }
            // Everything else is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn answer(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        let bytes = self
            .stream
            .read_line(&mut line)
            .map_err(Error::io("waiting for QEMU's answer"))?;
        if bytes == 0 {
            return Err(Error::Qemu {
                status: "the end of its protocol".to_owned(),
                stderr: String::new(),
            });
        }
        serde_json::from_str(&line).map_err(|error| Error::Qemu {
            status: format!("an answer that cannot be read ({error})"),
            stderr: line,
        })
    }
}
