//! The shell on this machine: terminal, control files, and the commands that are the
//! kernel's own. Editing, parsing and the rest of the commands are in the crate `shell`.

mod commands;
mod files;
mod terminal;

use shell::{Host as _, Session, Shell};

use crate::log;
use terminal::Terminal;

/// Runs `script`, if there is one, and then whatever is typed, for ever.
pub(crate) fn run(script: Option<&str>) -> ! {
    let mut terminal = Terminal::new();
    let mut shell = Shell::new(files::all());
    commands::add_to(&mut shell);
    if let Some(text) = script {
        let status = shell.run_script(text, &mut terminal);
        log!("script: the last command ended with status {status}");
    }
    let mut session = Session::new(shell);
    session.start(&mut terminal);
    loop {
        match terminal.read() {
            Some(byte) => session.feed(byte, &mut terminal),
            None => terminal.idle(),
        }
    }
}
