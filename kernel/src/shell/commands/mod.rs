//! The commands that are this kernel's own.

mod audit;
mod memfill;
mod mmap;
mod pages;
mod power;
mod run;

use shell::Shell;

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
