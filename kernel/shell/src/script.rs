//! Running a text.

use crate::editor::LINE_MAX;
use crate::io::{Host, Status};
use crate::run::Shell;
use crate::session::PROMPT;

impl Shell<'_> {
    /// Runs `text` line by line. Each is shown as if it had been typed, and then what comes
    /// of it. An error ends nothing but its line; Ctrl-C ends the whole. The status of the
    /// last command.
    pub fn run_script(&mut self, text: &str, host: &mut dyn Host) -> Status {
        for (number, line) in (1..).zip(text.lines()) {
            if line.len() > LINE_MAX {
                host.print(&alloc::format!(
                    "sh: line {number}: longer than {LINE_MAX} bytes, left out\n"
                ));
                continue;
            }
            // A text may hold what is not for a terminal.
            let shown = line.replace(|c: char| c.is_control() && c != '\t', "?");
            host.print(&alloc::format!("{PROMPT}{shown}\n"));
            if !self.run_line(line, host) {
                break;
            }
        }
        self.status()
    }
}
