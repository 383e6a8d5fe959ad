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
use core::fmt;

use crate::context::Context;
use crate::io::Status;

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

/// The letters of all options in front of `args`, and what follows them. `-` and what
/// comes behind `--` are no options.
fn options<'a, 's>(mut args: &'a [&'s str]) -> (Vec<char>, &'a [&'s str]) {
    let mut letters = Vec::new();
    while let [first, rest @ ..] = args {
        match first.strip_prefix('-') {
            None | Some("") => break,
            Some("-") => {
                args = rest;
                break;
            }
            Some(more) => letters.extend(more.chars()),
        }
        args = rest;
    }
    (letters, args)
}
