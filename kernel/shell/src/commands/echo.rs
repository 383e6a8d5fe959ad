//! `echo`.

use core::fmt::{self, Write};

use super::Command;
use crate::context::Context;
use crate::io::Status;

/// `echo [-n] [WORD]...`; nothing in a word is special.
#[derive(Debug)]
pub(super) struct Echo;

impl Command for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn usage(&self) -> &'static str {
        "[-n] [WORD]... [> FILE]"
    }

    fn about(&self) -> &'static str {
        "write words, to a control file for example"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (words, end) = match args {
            ["-n", words @ ..] => (words, ""),
            words => (words, "\n"),
        };
        let mut out = context.io.out();
        for (n, word) in words.iter().enumerate() {
            let blank = if n > 0 { " " } else { "" };
            write!(out, "{blank}{word}")?;
        }
        out.write_str(end)?;
        Ok(0)
    }
}
