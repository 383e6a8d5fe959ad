//! `cat`, in the words of coreutils.

use core::fmt::{self, Write};

use super::Command;
use crate::context::Context;
use crate::errno::Errno;
use crate::files::Node;
use crate::io::Status;

/// `cat [FILE]...`
#[derive(Debug)]
pub(super) struct Cat;

impl Command for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn usage(&self) -> &'static str {
        "[FILE]..."
    }

    fn about(&self) -> &'static str {
        "show files"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (options, mut paths) = super::options(args);
        // -u, unbuffered, is how it is anyway.
        if let Some(&option) = options.iter().find(|&&option| option != 'u') {
            super::invalid_option("cat", option, &mut context.io)?;
            return Ok(1);
        }
        if paths.is_empty() {
            paths.push("-");
        }
        let mut status = 0;
        for path in paths {
            if path == "-" {
                let input = context.io.input().unwrap_or_default();
                context.io.out().write_str(&input)?;
                continue;
            }
            match show(path, context) {
                Ok(()) => {}
                Err(Errno::EINTR) => return Err(fmt::Error),
                Err(why) => {
                    writeln!(context.io.err(), "cat: {path}: {why}")?;
                    status = 1;
                }
            }
        }
        Ok(status)
    }
}

fn show(path: &str, context: &mut Context<'_>) -> Result<(), Errno> {
    match context.files.resolve(&context.absolute(path))? {
        Node::Directory => Err(Errno::EISDIR),
        Node::File(file) => file.read(&mut context.io.out()),
    }
}
