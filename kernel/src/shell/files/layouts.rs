//! `/sys/kernel/debug/layouts`: what each layout can do and what it costs. Not in Linux.

use shell::Files;

pub(super) fn add_to(files: &mut Files<'static>) {
    files.read_only("/sys/kernel/debug/layouts", |_, out| {
        Ok(lab::layouts::write_table(out)?)
    });
}
