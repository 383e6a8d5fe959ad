//! Commands: what one is, and those that every shell has.

mod cat;
mod echo;
mod grep;
mod help;
mod ls;
mod plain;
mod sleep;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::context::Context;
use crate::io::{Io, Status};

/// A command of the shell.
pub trait Command {
    /// What one types.
    fn name(&self) -> &str;

    /// What comes after the name: `[-v] PATTERN [FILE]...`.
    fn usage(&self) -> &str;

    /// What it does, in one line for `help`.
    fn about(&self) -> &str;

    /// Runs it. `args` are the words after the name.
    ///
    /// # Errors
    /// When its output takes no more, because of Ctrl-C or because a pipe is full: just the
    /// failure of a `write!`.
    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error>;

    /// Calls `each` with what may come in place of `word`, the last of the arguments. By
    /// default nothing, which means paths.
    fn complete(&self, word: &str, each: &mut dyn FnMut(&str)) {
        let _ = (word, each);
    }
}

impl fmt::Debug for dyn Command + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The commands that need nothing but files and a [`crate::Host`].
#[must_use]
pub fn builtins<'a>() -> Vec<Box<dyn Command + 'a>> {
    vec![
        Box::new(cat::Cat),
        Box::new(plain::Cd),
        Box::new(plain::Clear),
        Box::new(plain::Dmesg),
        Box::new(echo::Echo),
        Box::new(plain::Outcome::FALSE),
        Box::new(grep::Grep),
        Box::new(help::Help),
        Box::new(ls::Ls),
        Box::new(plain::Pwd),
        Box::new(sleep::Sleep),
        Box::new(plain::Outcome::TRUE),
    ]
}

/// The letters of all options among `args`, and what else there is, in order. `-` and what
/// comes behind `--` are no options.
#[doc(alias = "getopt_long")]
fn options<'s>(args: &[&'s str]) -> (Vec<char>, Vec<&'s str>) {
    let (mut letters, mut others) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg.strip_prefix('-') {
            None | Some("") => others.push(arg),
            Some("-") => others.extend(args.by_ref()),
            Some(more) => letters.extend(more.chars()),
        }
    }
    (letters, others)
}

/// Complains of an option as coreutils does, and says where to look.
fn invalid_option(name: &str, option: char, io: &mut Io<'_>) -> fmt::Result {
    complain(name, format_args!("invalid option -- '{option}'"), io)
}

/// Complains of what is wrong with the words of a call, and says where to look.
fn complain(name: &str, what: fmt::Arguments<'_>, io: &mut Io<'_>) -> fmt::Result {
    let mut err = io.err();
    writeln!(err, "{name}: {what}")?;
    writeln!(err, "Try '{name} --help' for more information.")
}
