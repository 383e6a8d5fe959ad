//! `grep`, in the words of GNU grep.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::Command;
use crate::context::Context;
use crate::errno::Errno;
use crate::files::Node;
use crate::io::{Io, Status};
use crate::pattern::{Kind, Pattern};

/// `grep [-cEFhHinqrsv] PATTERN [FILE]...`
#[derive(Debug)]
pub(super) struct Grep;

const USAGE: &str = "[-cEFhHinqrsv] PATTERN [FILE]...";

impl Command for Grep {
    fn name(&self) -> &'static str {
        "grep"
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn about(&self) -> &'static str {
        "show the lines that match"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (options, rest) = super::options(args);
        if let Some(option) = options.iter().find(|o| !"cEFhHinqrsv".contains(**o)) {
            writeln!(context.io.err(), "grep: invalid option -- '{option}'")?;
        } else if !rest.is_empty() {
            return search(&options, rest[0], &rest[1..], context);
        }
        let mut err = context.io.err();
        writeln!(err, "Usage: grep {USAGE}")?;
        writeln!(err, "Try 'grep --help' for more information.")?;
        Ok(2)
    }
}

fn search(
    options: &[char],
    pattern: &str,
    mut paths: &[&str],
    context: &mut Context<'_>,
) -> Result<Status, fmt::Error> {
    let has = |option| options.contains(&option);
    let kind = match (has('F'), has('E')) {
        (true, _) => Kind::Fixed,
        (false, true) => Kind::Extended,
        (false, false) => Kind::Basic,
    };
    let pattern = match Pattern::new(pattern, kind, has('i')) {
        Ok(pattern) => pattern,
        Err(why) => {
            writeln!(context.io.err(), "grep: {}", why.text())?;
            return Ok(2);
        }
    };
    let recursive = has('r');
    if paths.is_empty() {
        paths = if recursive { &["."] } else { &["-"] };
    }
    let mut search = Search {
        pattern,
        inverted: has('v'),
        count: has('c'),
        numbers: has('n'),
        quiet: has('q'),
        names: has('H') || (paths.len() > 1 || recursive) && !has('h'),
        recursive,
        silent: has('s'),
        found: false,
        failed: false,
    };
    for &path in paths {
        search.path(path, context)?;
        if search.quiet && search.found {
            return Ok(0);
        }
    }
    Ok(match (search.failed, search.found) {
        (true, _) => 2,
        (false, true) => 0,
        (false, false) => 1,
    })
}

struct Search {
    pattern: Pattern,
    inverted: bool,
    count: bool,
    numbers: bool,
    quiet: bool,
    names: bool,
    recursive: bool,
    silent: bool,
    found: bool,
    failed: bool,
}

impl Search {
    fn path(&mut self, path: &str, context: &mut Context<'_>) -> fmt::Result {
        if path == "-" {
            let input = context.io.input().unwrap_or_default();
            let mut lines = Lines::new(self, "(standard input)", &mut context.io);
            lines.write_str(&input)?;
            return lines.end();
        }
        let files = context.files;
        let absolute = context.absolute(path);
        let why = match files.resolve(&absolute) {
            Ok(Node::Directory) if self.recursive => {
                for entry in files.list(&absolute).unwrap_or_default() {
                    let slash = if path.ends_with('/') { "" } else { "/" };
                    self.path(&alloc::format!("{path}{slash}{}", entry.name), context)?;
                }
                return Ok(());
            }
            Ok(Node::Directory) => Errno::EISDIR,
            Ok(Node::File(file)) => {
                let mut lines = Lines::new(self, path, &mut context.io);
                match file.read(&mut lines) {
                    Ok(()) => return lines.end(),
                    Err(Errno::EINTR) => return Err(fmt::Error),
                    Err(why) => why,
                }
            }
            Err(why) => why,
        };
        self.failed = true;
        if !self.silent {
            writeln!(context.io.err(), "grep: {path}: {why}")?;
        }
        Ok(())
    }
}

/// Takes text and looks at it line by line.
struct Lines<'a, 'h> {
    search: &'a mut Search,
    path: &'a str,
    io: &'a mut Io<'h>,
    line: String,
    number: u64,
    matched: u64,
}

impl<'a, 'h> Lines<'a, 'h> {
    fn new(search: &'a mut Search, path: &'a str, io: &'a mut Io<'h>) -> Self {
        Self {
            search,
            path,
            io,
            line: String::new(),
            number: 0,
            matched: 0,
        }
    }

    fn line(&mut self) -> fmt::Result {
        let Self { search, io, .. } = self;
        self.number += 1;
        let line = core::mem::take(&mut self.line);
        let matches = search.pattern.matches(&line) != search.inverted;
        if matches {
            self.matched += 1;
            search.found = true;
        }
        if !matches || search.count || search.quiet {
            // What shows nothing has to look for Ctrl-C itself.
            return if io.interrupted() {
                Err(fmt::Error)
            } else {
                Ok(())
            };
        }
        let mut out = io.out();
        if search.names {
            write!(out, "{}:", self.path)?;
        }
        if search.numbers {
            write!(out, "{}:", self.number)?;
        }
        writeln!(out, "{line}")
    }

    /// After the last text.
    fn end(mut self) -> fmt::Result {
        if !self.line.is_empty() {
            self.line()?;
        }
        if !self.search.count || self.search.quiet {
            return Ok(());
        }
        let mut out = self.io.out();
        if self.search.names {
            write!(out, "{}:", self.path)?;
        }
        writeln!(out, "{}", self.matched)
    }
}

impl fmt::Write for Lines<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut pieces: Vec<&str> = text.split('\n').collect();
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            self.line.push_str(piece);
            self.line()?;
        }
        self.line.push_str(last);
        Ok(())
    }
}
