//! `help`, in the words of bash.

use core::fmt::{self, Write};

use super::Command;
use crate::context::Context;
use crate::io::Status;

/// `help [COMMAND]...`
#[derive(Debug)]
pub(super) struct Help;

impl Command for Help {
    fn name(&self) -> &'static str {
        "help"
    }

    fn usage(&self) -> &'static str {
        "[COMMAND]..."
    }

    fn about(&self) -> &'static str {
        "list the commands"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let mut status = 0;
        for name in args {
            if !context.commands.iter().any(|c| c.name() == *name) {
                let mut err = context.io.err();
                writeln!(err, "sh: help: no help topics match `{name}'.")?;
                status = 1;
            }
        }
        for command in context.commands {
            if args.is_empty() || args.contains(&command.name()) {
                let call = alloc::format!("{} {}", command.name(), command.usage());
                writeln!(context.io.out(), "{call:34} {}", command.about())?;
            }
        }
        Ok(status)
    }
}
