//! A person at a shell on a serial port, with less patience.

use std::fmt;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::qemu::plain;

/// How long a byte may take, at most, to be taken by the guest or to come from it.
const STEP: Duration = Duration::from_millis(50);

/// Most that a line may write.
const OUTPUT_LIMIT: usize = 8 << 20;

/// Asks a shell for the exit status of the last line.
const STATUS: &str = "echo $?";

/// A shell, as seen from the other end of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shell {
    /// Whose it is.
    pub name: &'static str,
    /// What it says when it waits for a line.
    pub prompt: &'static str,
    /// Whether it repeats what is typed.
    pub echoes: bool,
}

/// What came of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The prompt came back.
    Done {
        /// What was written, without the kernel's log.
        output: String,
        /// The line's exit status.
        status: u32,
    },
    /// No prompt came back; what was written until then.
    NoPrompt(Silence, String),
    /// The line was not typed, since an earlier one had not ended.
    NotReached,
}

/// Why no prompt comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// It took longer than this.
    Limit(Duration),
    /// The guest has ended.
    Ended,
    /// It writes without end.
    TooMuchOutput,
    /// It has no exit status.
    NoStatus,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(limit) => write!(f, "no prompt after {} s", limit.as_secs_f32()),
            Self::Ended => f.write_str("the guest ended"),
            Self::TooMuchOutput => write!(f, "more than {} MiB of output", OUTPUT_LIMIT >> 20),
            Self::NoStatus => write!(f, "`{STATUS}` shows no number"),
        }
    }
}

/// A shell that is typed at.
pub struct Console {
    shell: Shell,
    writer: Box<dyn Write + Send>,
    bytes: Receiver<Vec<u8>>,
    log: Vec<String>,
    broken: bool,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("shell", &self.shell)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// Types into `writer` and reads from `reader`, and copies what it reads to `copy`.
    pub fn new(
        shell: Shell,
        mut reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        mut copy: impl Write + Send + 'static,
    ) -> Self {
        let (sender, bytes) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                // The copy is for people; a full disk does not end the comparison.
                let _ = copy.write_all(&buffer[..n]);
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            shell,
            writer: Box::new(writer),
            bytes,
            log: Vec::new(),
            broken: false,
        }
    }

    /// Waits for the first prompt.
    ///
    /// # Errors
    /// Why none came, and the last words.
    pub fn start(&mut self, limit: Duration) -> Result<(), (Silence, String)> {
        match self.answer(false, Instant::now() + limit) {
            Ok(_) => Ok(()),
            Err((silence, said)) => {
                self.broken = true;
                Err((with_limit(silence, limit), said))
            }
        }
    }

    /// Types a line, waits for the prompt, and asks for the exit status.
    pub fn run(&mut self, line: &str, limit: Duration) -> Outcome {
        if self.broken {
            return Outcome::NotReached;
        }
        let deadline = Instant::now() + limit;
        let output = match self.line(line, deadline) {
            Ok(output) => output,
            Err((silence, said)) => {
                self.broken = true;
                return Outcome::NoPrompt(with_limit(silence, limit), said);
            }
        };
        let status = self.line(STATUS, Instant::now() + limit);
        let number = |text: String| text.trim().parse().map_err(|_| (Silence::NoStatus, text));
        match status.and_then(number) {
            Ok(status) => Outcome::Done { output, status },
            Err((silence, said)) => {
                self.broken = true;
                Outcome::NoPrompt(with_limit(silence, limit), said)
            }
        }
    }

    /// The lines of the kernel's log since this was asked last.
    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn line(&mut self, line: &str, deadline: Instant) -> Result<String, (Silence, String)> {
        let typed = self.writer.write_all(format!("{line}\r").as_bytes());
        // The rest of what it wrote says more than that it takes no line.
        let _ = typed.and_then(|()| self.writer.flush());
        self.answer(self.shell.echoes, deadline)
    }

    /// What comes before the next prompt, behind the first line if that is an echo.
    fn answer(&mut self, echo: bool, deadline: Instant) -> Result<String, (Silence, String)> {
        let mut bytes = Vec::new();
        let silence = loop {
            let text = plain(&bytes);
            // An editor may write the prompt again while it echoes.
            let answer = if echo {
                text.split_once('\n').map(|(_, rest)| rest)
            } else {
                Some(&*text)
            };
            if let Some(answer) = answer.and_then(|text| text.strip_suffix(self.shell.prompt)) {
                return Ok(self.without_log(answer));
            }
            if bytes.len() > OUTPUT_LIMIT {
                break Silence::TooMuchOutput;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Silence::Limit(Duration::ZERO);
            }
            match self.bytes.recv_timeout(left.min(STEP)) {
                Ok(more) => {
                    bytes.extend(more);
                    while let Ok(more) = self.bytes.try_recv() {
                        bytes.extend(more);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break Silence::Ended,
            }
        };
        let text = plain(&bytes);
        Err((silence, self.without_log(&text)))
    }

    /// `text` without lines of the kernel's log, which are kept.
    fn without_log(&mut self, text: &str) -> String {
        let (log, output): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| is_log(line));
        self.log.extend(log.into_iter().map(str::to_owned));
        output.join("\n")
    }
}

fn with_limit(silence: Silence, limit: Duration) -> Silence {
    match silence {
        Silence::Limit(_) => Silence::Limit(limit),
        other => other,
    }
}

/// Whether a line begins as the log of either kernel does: `[   12.345678] `.
fn is_log(line: &str) -> bool {
    let Some((time, _)) = line
        .strip_prefix('[')
        .and_then(|line| line.split_once("] "))
    else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = time.trim_start().split_once('.');
    parts.is_some_and(|(seconds, micros)| {
        is_number(seconds) && micros.len() == 6 && is_number(micros)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{Console, Outcome, Shell, Silence, is_log};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A console whose far end is `guest`, run for each line that is typed; its answer
    /// is written in `chunk` bytes at a time. It ends where `guest` says `None`.
    fn fake(
        echoes: bool,
        chunk: usize,
        mut guest: impl FnMut(&str) -> Option<String> + Send + 'static,
    ) -> Console {
        let shell = Shell {
            name: "fake",
            prompt: "$ ",
            echoes,
        };
        let (near, far) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(far.try_clone().unwrap());
            let mut out = far;
            let mut say = |text: &str| {
                text.as_bytes()
                    .chunks(chunk)
                    .all(|part| out.write_all(part).is_ok())
            };
            say("firmware\r\n$ ");
            loop {
                let mut line = Vec::new();
                if lines.read_until(b'\r', &mut line).unwrap_or(0) == 0 {
                    return;
                }
                let line = String::from_utf8(line).unwrap();
                let line = line.trim_end();
                if echoes {
                    // As an editor does that draws its row again.
                    say(&format!("{}\r\x1b[K$ {line}\r\n", &line[..1]));
                }
                match guest(line) {
                    Some(answer) => say(&answer),
                    None => return,
                };
            }
        });
        let reader = near.try_clone().unwrap();
        Console::new(shell, reader, near, std::io::sink())
    }

    fn done(output: &str, status: u32) -> Outcome {
        let output = output.to_owned();
        Outcome::Done { output, status }
    }

    #[test]
    fn outputs_and_statuses_of_lines() {
        for echoes in [false, true] {
            for chunk in [1, 3, 1000] {
                let mut console = fake(echoes, chunk, |line| {
                    Some(match line {
                        "echo $?" => "1\r\n$ ".to_owned(),
                        "nothing" => "$ ".to_owned(),
                        line => format!("a $ b\r\n[    1.000001] log\r\n{line}\r\n$ "),
                    })
                });
                console.start(LIMIT).unwrap();
                assert_eq!(console.run("nothing", LIMIT), done("", 1));
                assert_eq!(console.run("words", LIMIT), done("a $ b\nwords", 1));
                assert_eq!(console.take_log(), ["[    1.000001] log"]);
                assert!(console.take_log().is_empty());
            }
        }
    }

    #[test]
    fn a_guest_that_says_nothing_is_given_up() {
        let mut console = fake(false, 9, |line| {
            (line != "hang")
                .then(|| "0\r\n$ ".to_owned())
                .or(Some("half".to_owned()))
        });
        console.start(LIMIT).unwrap();
        let limit = Duration::from_millis(300);
        assert_eq!(
            console.run("hang", limit),
            Outcome::NoPrompt(Silence::Limit(limit), "half".to_owned())
        );
        assert_eq!(console.run("true", LIMIT), Outcome::NotReached);
    }

    #[test]
    fn a_guest_that_ends_has_last_words() {
        let mut console = fake(false, 9, |_| None);
        console.start(LIMIT).unwrap();
        assert!(matches!(
            console.run("panic", LIMIT),
            Outcome::NoPrompt(Silence::Ended, _)
        ));
        assert_eq!(console.run("true", LIMIT), Outcome::NotReached);
    }

    #[test]
    fn a_status_is_a_number() {
        let mut console = fake(false, 9, |_| Some("what?\r\n$ ".to_owned()));
        console.start(LIMIT).unwrap();
        assert!(matches!(
            console.run("x", LIMIT),
            Outcome::NoPrompt(Silence::NoStatus, said) if said == "what?"
        ));
    }

    #[test]
    fn a_first_prompt_may_never_come() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let shell = Shell {
            name: "x",
            prompt: "$ ",
            echoes: false,
        };
        let mut console = Console::new(shell, near.try_clone().unwrap(), near, std::io::sink());
        assert_eq!(console.start(LIMIT), Err((Silence::Ended, String::new())));
    }

    #[test]
    fn log_lines_have_a_time() {
        assert!(is_log("[    0.000001] a"));
        assert!(is_log("[12345.678901] "));
        for line in [
            "[1.5] a",
            "[a.000000] b",
            "x [    0.000001] a",
            "[",
            "HugeTLB: x",
        ] {
            assert!(!is_log(line), "{line}");
        }
    }
}
