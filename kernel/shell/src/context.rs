//! What a command is given.

use alloc::boxed::Box;
use alloc::string::String;

use crate::commands::Command;
use crate::files::{Files, normalise};
use crate::io::Io;

/// Everything that a command can see.
#[derive(Debug)]
pub struct Context<'s> {
    /// Input and outputs.
    pub io: Io<'s>,
    /// The control files.
    pub files: &'s Files<'s>,
    /// All commands.
    pub commands: &'s [Box<dyn Command + 's>],
    /// The working directory; a command may change it.
    pub directory: String,
}

impl Context<'_> {
    /// The path from the root to what a person calls `path`.
    #[must_use]
    pub fn absolute(&self, path: &str) -> String {
        normalise(&self.directory, path)
    }
}
