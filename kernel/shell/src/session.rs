//! A person at a terminal.

use core::fmt::{self, Write};

use crate::editor::{Editor, Event};
use crate::io::Host;
use crate::run::Shell;

/// What the shell says when it waits for a line.
#[doc(alias = "PS1")]
pub const PROMPT: &str = "tailfold# ";

/// A shell with a line editor in front of it: bytes of a terminal in.
#[derive(Debug)]
pub struct Session<'a> {
    shell: Shell<'a>,
    editor: Editor,
}

impl<'a> Session<'a> {
    /// A session; nothing is on the screen yet.
    #[must_use]
    pub const fn new(shell: Shell<'a>) -> Self {
        Self {
            shell,
            editor: Editor::new(PROMPT),
        }
    }

    /// The shell, for scripts and for what is not typed.
    pub fn shell(&mut self) -> &mut Shell<'a> {
        &mut self.shell
    }

    /// Shows the prompt.
    pub fn start(&mut self, host: &mut dyn Host) {
        self.editor.set_columns(host.columns());
        // A host's screen takes everything.
        let _ = self.editor.start(&mut Screen(host));
    }

    /// Takes one byte. A line that it completes is run before this returns.
    pub fn feed(&mut self, byte: u8, host: &mut dyn Host) {
        let screen = &mut Screen(host);
        match self.editor.feed(byte, screen) {
            Ok(None) | Err(fmt::Error) => return,
            Ok(Some(Event::Complete)) => {
                let found = self.shell.complete(&self.editor.before_cursor());
                let _ = self.editor.complete(&found, screen);
                return;
            }
            Ok(Some(Event::Line(line))) => {
                self.shell.run_line(&line, host);
            }
            Ok(Some(Event::Interrupt)) => {}
            // This shell is all there is to go back to.
            Ok(Some(Event::EndOfInput)) => host.print("\nUse \"poweroff\" to leave.\n"),
        }
        self.start(host);
    }
}

struct Screen<'h>(&'h mut dyn Host);

impl Write for Screen<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.print(text);
        Ok(())
    }
}
