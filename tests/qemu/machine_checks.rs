//! Machine checks, made by QEMU: one that the kernel can go on from, which breaks a frame, and
//! one that it cannot.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::qemu::{End, Guest, Options};
use boot::screen::Qmp;
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::Bench;
use crate::machines::machine;
use crate::slots::Slot;

const LIMIT: Duration = Duration::from_secs(120);

/// A free frame of a machine of 512 MiB.
const FRAME: u64 = 0x18000;

/// Valid, not corrected, enabled, with MISC and ADDR, signaled: scrubbed memory that nobody has
/// used yet (Intel SDM volume 3, 16.9.3.1).
const ACTION_OPTIONAL: u64 = 0xbd00_0000_0000_00cf;
/// The same with the processor's context corrupt.
const FATAL: u64 = 0xbf00_0000_0000_00cf;

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test(
        "machine_check::breaks_a_frame_then_ends",
        move || run(&bench),
    )]
}

fn run(bench: &Bench) -> Result<(), Failed> {
    let _slot = Slot::take();
    let socket = bench.socket("mce")?;
    let firmware = Firmware::Bios;
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    machine.memory = Size::mib(512);
    machine.smp = 2;
    machine.qmp = Some(socket.clone());
    machine.command_line = Some("selftest=off init=shell".to_owned());
    let log = bench.log("machine_check")?;
    let options = Options {
        limit: Some(LIMIT),
        log: Some(&log),
        ..Options::default()
    };
    let mut guest = Guest::start(&machine.arguments()?, &options)?;
    wait(&mut guest, "tailfold# ")?;
    let mut qmp = Qmp::connect(&socket)?;
    let mut inject = |status: u64| {
        // CPU, bank, status, global status (MCIP and RIPV), address, misc (a page, physical).
        let address = FRAME << 12;
        let line = format!("mce 0 9 {status:#x} 0x5 {address:#x} 0x8c");
        qmp.call("human-monitor-command", &json!({ "command-line": line }))
    };
    inject(ACTION_OPTIONAL)?;
    wait(
        &mut guest,
        "mce: [Hardware Error]: CPU 0, bank 9: not corrected, not used yet, memory controller, \
         status 0xbd000000000000cf, address 0x18000000",
    )?;
    wait(&mut guest, "Memory failure: 0x18000: ")?;
    inject(FATAL)?;
    let ended = guest.wait(&options)?;
    let _ = std::fs::remove_file(&socket);
    let End::Status(status) = ended.end else {
        return Err(format!("it did not end: {:?}\n{}", ended.end, ended.serial).into());
    };
    if status.code() != Some(verdict::FAIL) {
        return Err(format!("QEMU's status is {status}\n{}", ended.serial).into());
    }
    for text in [
        "Kernel panic - not syncing: #MC machine check: a bank says that this CPU cannot go on",
        "mce: [Hardware Error]: CPU 0, bank 9: not corrected, memory controller",
        "CPU: 1 stopped at 0xffffffff",
    ] {
        if !ended.serial.contains(text) {
            return Err(format!("`{text}` is not in the log\n{}", ended.serial).into());
        }
    }
    Ok(())
}

/// Waits until the guest has said `text`.
pub(crate) fn wait(guest: &mut Guest, text: &str) -> Result<(), Failed> {
    while !guest.serial().contains(text) {
        if guest.has_ended()? || guest.elapsed() > LIMIT {
            return Err(format!("`{text}` is not in the log\n{}", guest.serial()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
