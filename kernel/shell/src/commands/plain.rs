//! Commands of a few lines each.

use core::fmt::{self, Write};

use super::Command;
use crate::context::Context;
use crate::errno::Errno;
use crate::files::Node;
use crate::io::Status;

/// `cd [DIRECTORY]`, in the words of busybox's ash.
#[derive(Debug)]
pub(super) struct Cd;

impl Command for Cd {
    fn name(&self) -> &'static str {
        "cd"
    }

    fn usage(&self) -> &'static str {
        "[DIRECTORY]"
    }

    fn about(&self) -> &'static str {
        "go to a directory, or to /"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let path = args.first().copied().unwrap_or("/");
        let mut absolute = context.absolute(path);
        let why = match context.files.resolve(&absolute) {
            Ok(Node::Directory) => {
                if absolute.len() > 1 && absolute.ends_with('/') {
                    absolute.pop();
                }
                context.directory = absolute;
                return Ok(0);
            }
            Ok(Node::File(_)) => Errno::ENOTDIR,
            Err(why) => why,
        };
        writeln!(context.io.err(), "sh: cd: can't cd to {path}: {why}")?;
        Ok(1)
    }
}

/// `pwd`
#[derive(Debug)]
pub(super) struct Pwd;

impl Command for Pwd {
    fn name(&self) -> &'static str {
        "pwd"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "name the working directory"
    }

    fn run(&self, _: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let Context { io, directory, .. } = context;
        writeln!(io.out(), "{directory}")?;
        Ok(0)
    }
}

/// `clear`
#[derive(Debug)]
pub(super) struct Clear;

impl Command for Clear {
    fn name(&self) -> &'static str {
        "clear"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "empty the screen"
    }

    fn run(&self, _: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        context.io.out().write_str("\x1b[H\x1b[J")?;
        Ok(0)
    }
}

/// `dmesg`
#[derive(Debug)]
pub(super) struct Dmesg;

impl Command for Dmesg {
    fn name(&self) -> &'static str {
        "dmesg"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "show the kernel's log"
    }

    fn run(&self, _: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let log = context.io.host().log();
        context.io.out().write_str(&log)?;
        Ok(0)
    }
}

/// `true` and `false`
#[derive(Debug)]
pub(super) struct Outcome(Status);

impl Outcome {
    pub(super) const TRUE: Self = Self(0);
    pub(super) const FALSE: Self = Self(1);
}

impl Command for Outcome {
    fn name(&self) -> &'static str {
        if self.0 == 0 { "true" } else { "false" }
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        if self.0 == 0 { "succeed" } else { "fail" }
    }

    fn run(&self, _: &[&str], _: &mut Context<'_>) -> Result<Status, fmt::Error> {
        Ok(self.0)
    }
}
