#![cfg_attr(not(test), no_std)]
//! A shell at the serial console, as an engineer at a Linux box knows it.
//!
//! It runs no programs: its commands are objects ([`Command`]), its files are control
//! files of the kernel ([`ControlFile`]). What it needs of the machine is [`Host`].
//! Nothing here touches hardware, so all of it is tested on any host.
//!
//! Words of errors are taken from where most people have seen them. The commands speak
//! like GNU coreutils and grep (`cat: /proc/nope: No such file or directory`,
//! `echo: write error: Invalid argument`), the shell itself like busybox's ash (`sh: foo: not
//! found`, `sh: can't create /sys/x: Permission denied`).
//!
//! A line break is `\n` in everything that is written; the terminal's driver puts a CR
//! before it, as Linux's does (`ONLCR`).

extern crate alloc;

mod columns;
mod commands;
mod complete;
mod context;
mod editor;
mod errno;
mod expand;
mod files;
mod glob;
mod io;
mod pattern;
mod run;
mod script;
mod session;
mod syntax;
mod typeahead;

pub use commands::{Command, builtins};
pub use context::Context;
pub use editor::{Candidate, Completion, Editor, Event, LINE_MAX};
pub use errno::Errno;
pub use files::{
    ControlFile, Entry, Files, Mode, Node, OpenFile, kstrtoul, normalise, sysctl_bool, sysctl_ulong,
};
pub use io::{BUFFER_MAX, Host, Io, Status};
pub use run::Shell;
pub use session::{PROMPT, Session};
pub use syntax::split_line;
pub use typeahead::TypeAhead;
