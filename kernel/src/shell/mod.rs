//! The shell on this machine: terminal, control files, and the commands that are the
//! kernel's own. Editing, parsing and the rest of the commands are in the crate `shell`.

mod commands;
mod files;
mod terminal;

use shell::{Host as _, Session, Shell};

use crate::log;
use terminal::Terminal;

/// What is said where nothing can be typed.
const NO_KEYBOARD: &str = "\
No keyboard answers (USB keyboards are not driven): commands come from the serial port, from
script= on the command line, or from the stick's script: cargo run -- cmdline STICK
";

/// Stays for ever with what is on the screen, and lets a person turn its pages.
pub(crate) fn stay() -> ! {
    let mut terminal = Terminal::new();
    loop {
        if terminal.read().is_none() {
            terminal.idle();
        }
    }
}

/// Runs `script`, if there is one, and then whatever is typed, for ever.
pub(crate) fn run(script: Option<&str>) -> ! {
    let mut terminal = Terminal::new();
    let mut shell = Shell::new(files::all());
    commands::add_to(&mut shell);
    if let Some(text) = script {
        let status = shell.run_script(text, &mut terminal);
        log!("script: the last command ended with status {status}");
    }
    if !terminal.has_keyboard() {
        terminal.print(NO_KEYBOARD);
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
