//! A guest with a shell on its serial port.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::console::{Console, Shell, Silence};
use crate::accel::{self, no_qemu};
use crate::error::Error;
use crate::machine::Machine;

/// Longest time to the first prompt, in software emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// Lines of a guest that does not boot which the error repeats.
const LAST_WORDS: usize = 5;

/// A guest that waits for a line. It ends when this is dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    /// Its shell.
    pub console: Console,
}

impl Guest {
    /// Starts `machine` and waits for its shell. All it writes goes to `log`, too.
    ///
    /// # Errors
    /// [`Error::NoQemu`], [`Error::Usage`] for a machine that cannot be; [`Error::Io`] if
    /// the log cannot be written; [`Error::NoShell`].
    pub fn boot(machine: &Machine, shell: Shell, log: &Path) -> Result<Self, Error> {
        let copy = File::create(log).map_err(Error::io(format!("writing {}", log.display())))?;
        let errors = copy
            .try_clone()
            .map_err(Error::io(format!("writing {}", log.display())))?;
        let mut child = Command::new(accel::qemu())
            .args(machine.arguments()?.iter())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(no_qemu)?;
        let pipes = child.stdout.take().zip(child.stdin.take());
        let Some((reader, writer)) = pipes else {
            return Err(no_shell(shell, Silence::Ended, ""));
        };
        let mut guest = Self {
            child,
            console: Console::new(shell, reader, writer, copy),
        };
        match guest.console.start(BOOT_LIMIT) {
            Ok(()) => {
                guest.console.take_log();
                Ok(guest)
            }
            Err((silence, said)) => {
                let log = guest.console.take_log().join("\n");
                Err(no_shell(shell, silence, &format!("{said}\n{log}")))
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn no_shell(shell: Shell, silence: Silence, said: &str) -> Error {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(LAST_WORDS);
    Error::NoShell {
        name: shell.name,
        why: silence.to_string(),
        last: lines[first..].join("\n"),
    }
}
