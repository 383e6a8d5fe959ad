//! The file `ramdisk` as an editor leaves it that replaces files: the loader for BIOS does not find
//! it, the kernel says so, and `cmdline` mends it.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::{ramdisk, verdict};
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, hint};
use crate::machines::machine;

const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a directory entry, and the byte with the mark for a lower-case name (Microsoft FAT
/// specification, "Byte offset 12"; Linux, `CASE_LOWER_BASE`).
const ENTRY: usize = 32;
const CASE_AT: usize = 12;
const LOWER_CASE: u8 = 0x08;
/// The attributes of an entry that holds a part of a long name.
const LONG_NAME: u8 = 0x0f;
const DELETED: u8 = 0xe5;

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test("ramdisk::replaced_then_mended", move || {
        run(&bench)
    })]
}

fn run(bench: &Bench) -> Result<(), Failed> {
    let dir = bench.workspace.target_dir("replaced")?;
    let image = dir.join("bios.img");
    std::fs::copy(bench.images.get(Firmware::Bios), &image)?;
    ramdisk::write(&image, "selftest=buddy:* init=poweroff\n")?;
    let serial = boot_it(bench, &image, "found")?;
    says(&serial, "Command line is from: ramdisk file")?;

    take_long_name_away(&image)?;
    // It is there, by its short name; whoever looks sees the same file.
    let text = ramdisk::read(&image)?;
    if text != "selftest=buddy:* init=poweroff\n" {
        return Err(format!("the file is {text:?}").into());
    }
    let mut machine = machine(bench, &image, Firmware::Bios);
    machine.command_line = None;
    let log = bench.log("ramdisk::missed")?;
    // Without its words the kernel goes to its shell, and stays.
    let ended = end(&machine, Duration::from_secs(45), &log)?;
    says(&ended.serial, "Command line is from: built-in default")?;
    says(
        &ended.serial,
        "the boot loader found no file `ramdisk`; under BIOS it misses",
    )?;

    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "-p", "boot", "--", "cmdline"])
        .arg(&image)
        .arg("selftest=buddy:* init=poweroff")
        .current_dir(bench.workspace.root())
        .output()?;
    if !status.status.success() {
        return Err(String::from_utf8_lossy(&status.stderr).into_owned().into());
    }
    let serial = boot_it(bench, &image, "mended")?;
    says(&serial, "Command line is from: ramdisk file")?;
    says(&serial, "ok 1 buddy")
}

fn boot_it(bench: &Bench, image: &Path, name: &str) -> Result<String, Failed> {
    let mut machine = machine(bench, image, Firmware::Bios);
    machine.command_line = None;
    let log = bench.log(&format!("ramdisk::{name}"))?;
    let ended = end(&machine, LIMIT, &log)?;
    verdict::tests(&ended).map_err(|error| format!("{error}\n{}", hint(&ended.serial, &log)))?;
    Ok(ended.serial)
}

fn says(serial: &str, text: &str) -> Result<(), Failed> {
    if serial.contains(text) {
        return Ok(());
    }
    Err(format!("`{text}` is not in the log:\n{serial}").into())
}

/// Deletes the parts of the long name `ramdisk`, and marks the short name as lower case.
fn take_long_name_away(image: &Path) -> Result<(), Failed> {
    let mut file = OpenOptions::new().read(true).write(true).open(image)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let short = (0..bytes.len() / ENTRY)
        .map(|n| n * ENTRY)
        .find(|&at| {
            bytes[at..].starts_with(b"RAMDISK    ") && bytes[at + 11] & LONG_NAME != LONG_NAME
        })
        .ok_or("no entry RAMDISK on the image")?;
    let long = short - ENTRY;
    if bytes[long + 11] != LONG_NAME {
        return Err("the entry has no long name to take away".into());
    }
    for (at, byte) in [(long, DELETED), (short + CASE_AT, LOWER_CASE)] {
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&[byte])?;
    }
    Ok(())
}
