//! Running a line.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use crate::commands::{Command, builtins};
use crate::context::Context;
use crate::errno::Errno;
use crate::files::{Files, Node, OpenFile, normalise};
use crate::io::{Host, Io, Route, Status};
use crate::syntax::{self, Pipeline, Redirect, Simple, Target, When};

/// Commands to which `--help` is a word like any other.
const LITERAL: [&str; 3] = ["echo", "false", "true"];
/// The file that takes everything.
const NULL: &str = "/dev/null";
/// Status of a line that is no command line.
const STATUS_SYNTAX: Status = 2;
/// Status when there is no such command.
const STATUS_NOT_FOUND: Status = 127;
/// Status of a command that Ctrl-C ended: 128 and the number of SIGINT.
const STATUS_INTERRUPTED: Status = 130;

/// The commands and the files of a machine, and where in them a person is.
#[derive(Debug)]
pub struct Shell<'a> {
    pub(crate) files: Files<'a>,
    pub(crate) commands: Vec<Box<dyn Command + 'a>>,
    pub(crate) directory: String,
    pub(crate) status: Status,
}

impl<'a> Shell<'a> {
    /// With [`builtins`] as the commands.
    #[must_use]
    pub fn new(files: Files<'a>) -> Self {
        Self {
            files,
            commands: builtins(),
            directory: "/".into(),
            status: 0,
        }
    }

    /// Adds a command, in place of one of that name if there is one.
    pub fn add(&mut self, command: impl Command + 'a) {
        self.commands.retain(|known| known.name() != command.name());
        self.commands.push(Box::new(command));
        self.commands.sort_by(|a, b| a.name().cmp(b.name()));
    }

    /// The control files.
    #[must_use]
    pub fn files(&self) -> &Files<'a> {
        &self.files
    }

    /// The status of the last command: `$?`.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Runs one line. `false` if Ctrl-C ended it.
    pub fn run_line(&mut self, line: &str, host: &mut dyn Host) -> bool {
        // What was typed before the line is nothing to it.
        let _ = host.interrupted();
        let pipelines = match syntax::parse(line) {
            Ok(pipelines) => pipelines,
            Err(why) => {
                host.print(&alloc::format!("sh: {why}\n"));
                self.status = STATUS_SYNTAX;
                return true;
            }
        };
        for pipeline in pipelines {
            let wanted = match pipeline.when {
                When::Always => true,
                When::Success => self.status == 0,
                When::Failure => self.status != 0,
            };
            if wanted && !self.run_pipeline(&pipeline, host) {
                host.print("^C\n");
                self.status = STATUS_INTERRUPTED;
                return false;
            }
        }
        true
    }

    /// `false` if Ctrl-C ended it.
    fn run_pipeline(&mut self, pipeline: &Pipeline, host: &mut dyn Host) -> bool {
        let (mut input, mut status) = (None, 0);
        let last = pipeline.commands.len() - 1;
        for (n, simple) in pipeline.commands.iter().enumerate() {
            let mut io = Io::new(host);
            io.input = input;
            if n < last {
                io.routes[0] = Route::Buffer(0);
                io.buffers.push(String::new());
            }
            let done = self.run_simple(simple, io);
            if done.interrupted {
                return false;
            }
            status = done.status;
            // The commands of a pipe are children, whose directory is their own.
            if let Some(directory) = done.directory.filter(|_| last == 0) {
                self.directory = directory;
            }
            input = done.buffers.into_iter().next().filter(|_| n < last);
        }
        self.status = status;
        true
    }

    fn run_simple<'s>(&'s self, simple: &Simple, mut io: Io<'s>) -> Done {
        // Nothing is left to say to an output that fails, and `Done` looks for Ctrl-C.
        let words = match self.expand_all(&simple.words) {
            Ok(words) => words,
            Err(why) => {
                let _ = writeln!(io.err(), "sh: {why}");
                return Done::new(1, io);
            }
        };
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut targets = match self.redirect(&simple.redirects, &mut io) {
            Ok(targets) => targets,
            Err(why) => {
                let _ = writeln!(io.err(), "sh: {why}");
                return Done::new(1, io);
            }
        };
        let Some((&name, args)) = args.split_first() else {
            return Done::new(0, io);
        };
        let Some(command) = self.commands.iter().find(|c| c.name() == name) else {
            let _ = writeln!(io.err(), "sh: {name}: not found");
            return Done::new(STATUS_NOT_FOUND, io);
        };
        if args == ["--help"] && !LITERAL.contains(&name) {
            let (usage, about) = (command.usage(), command.about());
            let _ = writeln!(io.out(), "Usage: {name} {usage}\n{about}");
            return Done::new(0, io);
        }
        let mut context = Context {
            io,
            files: &self.files,
            commands: &self.commands,
            directory: self.directory.clone(),
        };
        let mut status = command.run(args, &mut context).unwrap_or(1);
        let Context {
            mut io, directory, ..
        } = context;
        if core::mem::take(&mut io.overflow) {
            // A part of what was meant is not to reach a control file.
            targets.clear();
            let _ = writeln!(io.err(), "{name}: write error: {}", Errno::ENOSPC);
            status = 1;
        }
        for (buffer, file) in targets {
            let text = core::mem::take(&mut io.buffers[buffer]);
            if text.is_empty() || io.interrupted() {
                continue;
            }
            if let Err(why) = file.write(&text) {
                let _ = writeln!(io.err(), "{name}: write error: {why}");
                status = 1;
            }
        }
        Done {
            directory: Some(directory),
            ..Done::new(status, io)
        }
    }

    /// Opens what the redirections name, from left to right; the buffers that are to be
    /// written, and where.
    fn redirect(
        &self,
        redirects: &[Redirect],
        io: &mut Io<'_>,
    ) -> Result<Vec<(usize, OpenFile<'_>)>, String> {
        let mut targets = Vec::new();
        for Redirect { fd, target } in redirects {
            let output = usize::from(fd.saturating_sub(1));
            match target {
                Target::Same(other) => {
                    io.routes[output] = io.routes[usize::from(other.saturating_sub(1))];
                }
                Target::Output(word) => {
                    let path = self.one_word(word)?;
                    let absolute = normalise(&self.directory, &path);
                    let file = self.files.open_for_writing(&absolute);
                    let file = file.map_err(|why| {
                        alloc::format!("can't create {path}: {}", ash(why, "nonexistent directory"))
                    })?;
                    if absolute == NULL {
                        io.routes[output] = Route::Nowhere;
                        continue;
                    }
                    io.routes[output] = Route::Buffer(io.buffers.len());
                    targets.push((io.buffers.len(), file));
                    io.buffers.push(String::new());
                }
                Target::Input(word) => {
                    let path = self.one_word(word)?;
                    let absolute = normalise(&self.directory, &path);
                    let text = self.read(&absolute).map_err(|why| {
                        alloc::format!("can't open {path}: {}", ash(why, "no such file"))
                    })?;
                    io.input = Some(text);
                }
            }
        }
        Ok(targets)
    }

    fn read(&self, path: &str) -> Result<String, Errno> {
        let mut text = String::new();
        match self.files.resolve(path)? {
            Node::Directory => Err(Errno::EISDIR),
            Node::File(file) => file.read(&mut text).map(|()| text),
        }
    }
}

/// What came of a command.
struct Done {
    status: Status,
    interrupted: bool,
    buffers: Vec<String>,
    /// The working directory after it.
    directory: Option<String>,
}

impl Done {
    fn new(status: Status, mut io: Io<'_>) -> Self {
        Self {
            status,
            interrupted: io.interrupted(),
            buffers: io.buffers,
            directory: None,
        }
    }
}

/// What ash says of an error of a redirection.
fn ash(why: Errno, missing: &str) -> String {
    match why {
        Errno::ENOENT | Errno::ENOTDIR => missing.into(),
        why => why.to_string(),
    }
}
