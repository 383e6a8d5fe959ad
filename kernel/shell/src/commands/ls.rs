//! `ls`, in the words of coreutils.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::Command;
use crate::columns;
use crate::context::Context;
use crate::errno::Errno;
use crate::files::{Entry, Mode, Node};
use crate::io::Status;

/// `ls [-1dl] [PATH]...`
#[derive(Debug)]
pub(super) struct Ls;

impl Command for Ls {
    fn name(&self) -> &'static str {
        "ls"
    }

    fn usage(&self) -> &'static str {
        "[-1dl] [PATH]..."
    }

    fn about(&self) -> &'static str {
        "list directories"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        let (options, mut paths) = super::options(args);
        // -a and -A change nothing: no name starts with a dot.
        if let Some(&option) = options.iter().find(|o| !"1daAl".contains(**o)) {
            super::invalid_option("ls", option, &mut context.io)?;
            return Ok(2);
        }
        if paths.is_empty() {
            paths.push(".");
        }
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let mut status = 0;
        for &path in &paths {
            let absolute = context.absolute(path);
            let mode = match context.files.resolve(&absolute) {
                Ok(Node::Directory) if !options.contains(&'d') => {
                    directories.push((path, absolute));
                    continue;
                }
                Ok(Node::Directory) => None,
                Ok(Node::File(file)) => Some(file.mode()),
                Err(why) => {
                    writeln!(context.io.err(), "ls: cannot access '{path}': {why}")?;
                    status = 2;
                    continue;
                }
            };
            let name = path.into();
            files.push((absolute, Entry { name, mode }));
        }
        show(&files, &options, context)?;
        for (n, (path, absolute)) in directories.iter().enumerate() {
            if paths.len() > 1 {
                let blank = if n > 0 || !files.is_empty() { "\n" } else { "" };
                writeln!(context.io.out(), "{blank}{path}:")?;
            }
            match list(absolute, context) {
                Ok(entries) => show(&entries, &options, context)?,
                Err(why) => {
                    writeln!(context.io.err(), "ls: cannot access '{path}': {why}")?;
                    status = 2;
                }
            }
        }
        Ok(status)
    }
}

/// The entries of a directory, each with its path.
fn list(directory: &str, context: &Context<'_>) -> Result<Vec<(String, Entry)>, Errno> {
    let entries = context.files.list(directory)?.into_iter();
    let path = |entry: &Entry| alloc::format!("{directory}/{}", entry.name);
    Ok(entries.map(|entry| (path(&entry), entry)).collect())
}

fn show(
    entries: &[(String, Entry)],
    options: &[char],
    context: &mut Context<'_>,
) -> Result<(), fmt::Error> {
    if options.contains(&'l') {
        for (path, entry) in entries {
            let (mode, links) = match entry.mode {
                None => ("drwxr-xr-x", 2),
                Some(Mode::ReadOnly) => ("-r--r--r--", 1),
                Some(Mode::ReadWrite) => ("-rw-r--r--", 1),
                Some(Mode::WriteOnly) => ("--w-------", 1),
            };
            // As stat says on Linux: a page for a file of sysfs, nothing elsewhere. Nobody
            // keeps times here.
            let sysfs = path.starts_with("/sys/") && entry.mode.is_some();
            let (size, name) = (if sysfs { 4096 } else { 0 }, &entry.name);
            let mut out = context.io.out();
            writeln!(out, "{mode} {links} root root {size:4} Jan  1  1970 {name}")?;
        }
        return Ok(());
    }
    let names: Vec<&str> = entries.iter().map(|(_, e)| e.name.as_str()).collect();
    let width = if context.io.is_terminal() && !options.contains(&'1') {
        context.io.host().columns()
    } else {
        1
    };
    columns::write(&names, width, &mut context.io.out())
}
