//! The language of a line: as much of the POSIX shell's as a line of commands needs.
//!
//! Words with `'`, `"`, `\` and `$?`; `#` comments; `;`, `&&`, `||` and `|`; `>`, `>>` and
//! `<`, with a number before them, and `>&`. No variables, no jobs, no control flow: a line
//! that uses them is refused and not misunderstood. Errors are worded as busybox's ash does.

mod lexer;
mod parser;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub(crate) use parser::parse;

/// The commands of `line` as lines of their own: cut at each `;` that ends a command, and at none
/// that is quoted.
///
/// # Errors
/// What the shell would say of the line. Nothing of it is to run then.
pub fn split_line(line: &str) -> Result<String, impl fmt::Display + use<>> {
    parse(line).map(|_| {
        let mut text = String::with_capacity(line.len());
        let mut quote = None;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (None, ';') => {
                    text.push('\n');
                    continue;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                (None | Some('"'), '\\') => {
                    text.push(c);
                    text.extend(chars.next());
                    continue;
                }
                // A comment: the rest is no command.
                (None, '#') if text.is_empty() || text.ends_with([' ', '\t', '\n']) => break,
                _ => {}
            }
            text.push(c);
        }
        text
    })
}

/// A part of a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// Text in which `*`, `?` and `[` are patterns.
    Plain(String),
    /// Text as it is.
    Quoted(String),
    /// `$?`.
    Status,
}

/// A word before expansion. One without pieces does not exist: `''` is an empty
/// [`Piece::Quoted`].
pub(crate) type Word = Vec<Piece>;

/// Where a redirection leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// `> FILE` and `>> FILE`, which is the same for a control file.
    Output(Word),
    /// `< FILE`.
    Input(Word),
    /// `>& N`: to where output N goes.
    Same(u8),
}

/// One redirection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Redirect {
    /// The file descriptor: 0 for input, 1 or 2 for output.
    pub(crate) fd: u8,
    pub(crate) target: Target,
}

/// One command with its words and redirections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Simple {
    pub(crate) words: Vec<Word>,
    pub(crate) redirects: Vec<Redirect>,
}

/// When a pipeline runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Always,
    /// After `&&`.
    Success,
    /// After `||`.
    Failure,
}

/// Commands joined by `|`; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pipeline {
    pub(crate) when: When,
    pub(crate) commands: Vec<Simple>,
}

/// Words that are no commands where one can stand (POSIX.1-2024, Shell Command Language, 2.4, and
/// those that other shells have added). To run what stands between them would be to
/// misunderstand the line.
const RESERVED: [&str; 21] = [
    "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "select", "then", "time", "until", "while", "{", "}",
];

/// Why a line cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// A quote is not closed.
    #[error("syntax error: unterminated quoted string")]
    Unterminated,
    /// A token where none can be.
    #[error("syntax error: unexpected \"{0}\"")]
    Unexpected(String),
    /// The end of the line where it cannot be.
    #[error("syntax error: unexpected newline")]
    UnexpectedEnd,
    /// A redirection of a descriptor that there is not.
    #[error("syntax error: bad fd number {0}: there are 0, 1 and 2")]
    BadDescriptor(String),
    /// An expansion that this shell does not know.
    #[error("syntax error: no expansion of {0}: there is only $?")]
    NoExpansion(String),
    /// A reserved word: the shell has no control flow.
    #[error("syntax error: \"{0}\": this shell has no control flow")]
    Reserved(String),
    /// An assignment: the shell has no variables.
    #[error("syntax error: \"{0}\": this shell has no variables")]
    Assignment(String),
}
