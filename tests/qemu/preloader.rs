//! What the preloader does for PCs with UEFI: 5-level paging is taken back before the kernel, and a
//! machine without NX gets a sentence.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::{self, Firmware};
use boot::qemu::{Guest, Options};
use boot::screen::Qmp;
use boot::size::Size;
use boot::{partition, verdict};
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::Bench;
use crate::boots::{end, hint};
use crate::machine_checks::wait;
use crate::machines::machine;
use crate::slots::Slot;

const LIMIT: Duration = Duration::from_secs(120);

type Test = fn(&Bench) -> Result<(), Failed>;

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let tests: [(_, Test); 2] = [
        ("takes_five_levels_back", five_levels),
        ("says_that_there_is_no_nx", no_nx),
    ];
    tests
        .map(|(name, test)| {
            let bench = Arc::clone(bench);
            Trial::test(format!("preloader::{name}"), move || test(&bench))
        })
        .into()
}

/// Firmware that walks 5 levels of tables, made by a program before the preloader. One processor:
/// OVMF starts others with the CR4 that it saw before that, and one of them would fail in it.
fn five_levels(bench: &Bench) -> Result<(), Failed> {
    let firmware = Firmware::Uefi;
    let image = bench.workspace.target().join("tests-five-levels.img");
    std::fs::copy(bench.images.get(firmware), &image)?;
    let program = artifact::efi_program(&bench.workspace, "five-levels")?;
    partition::put_first(&image, &program, "next.efi")?;
    let mut machine = machine(bench, &image, firmware);
    machine.memory = Size::mib(6144);
    machine.command_line = Some("selftest=paging:* init=poweroff".to_owned());
    let log = bench.log("preloader::five_levels")?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    verdict::tests(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    let made = "five-levels: paging has 5 levels: true";
    if !ended.serial.contains(made) {
        return Err(format!("`{made}` is not in the log\n{hint}").into());
    }
    Ok(())
}

/// The sentence stays until a key comes, and the firmware goes on.
fn no_nx(bench: &Bench) -> Result<(), Failed> {
    let _slot = Slot::take();
    let socket = bench.socket("nx")?;
    let firmware = Firmware::Uefi;
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    machine.cpu = "max,-nx".to_owned();
    machine.qmp = Some(socket.clone());
    let log = bench.log("preloader::no_nx")?;
    let options = Options {
        limit: Some(LIMIT),
        log: Some(&log),
        ..Options::default()
    };
    let mut guest = Guest::start(&machine.arguments()?, &options)?;
    wait(&mut guest, "Tailfold cannot start: the processor has no NX")?;
    wait(&mut guest, "Press a key")?;
    let line = json!({ "command-line": "sendkey spc" });
    Qmp::connect(&socket)?.call("human-monitor-command", &line)?;
    let came_back = wait(&mut guest, "BdsDxe: failed to start Boot");
    let _ = std::fs::remove_file(&socket);
    came_back
}
