//! The commands that are this kernel's own.

mod audit;
mod memfill;
mod mmap;
mod pages;
mod power;
mod run;

use core::fmt::{self, Write as _};

use shell::{BUFFER_MAX, Context, Errno, Shell};

use crate::console;

/// Adds them all.
pub(super) fn add_to(shell: &mut Shell<'_>) {
    shell.add(audit::Audit);
    shell.add(memfill::MemFill::default());
    mmap::add_to(shell);
    shell.add(pages::KPageFlags);
    shell.add(pages::PtDump);
    shell.add(pages::Vmemmap);
    shell.add(power::PowerOff);
    shell.add(power::Reboot);
    shell.add(run::Bench);
    shell.add(run::SelfTest);
}

/// Runs `work`, whose lines go to the console, and sees to it that they go where the line of the
/// command says.
fn printed<R>(context: &mut Context<'_>, work: impl FnOnce() -> R) -> Result<R, fmt::Error> {
    if context.io.is_terminal() {
        return Ok(work());
    }
    // One byte more than fits: what is cut here is found to be too much there.
    match console::captured(BUFFER_MAX + 1, work) {
        Ok((result, text)) => {
            context.io.out().write_str(&text)?;
            Ok(result)
        }
        Err(_) => {
            writeln!(context.io.err(), "sh: {}", Errno::ENOMEM)?;
            Err(fmt::Error)
        }
    }
}
