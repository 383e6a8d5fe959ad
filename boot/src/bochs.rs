//! Bochs, the second opinion on the processor: it checks what QEMU's translator lets pass, as
//! bits of descriptors, reserved bits and the rules of each mode switch.
//!
//! It has no `fw_cfg`, so the command line is the file `ramdisk` of an image of its own, and no
//! device that ends it, so it is ended when the kernel has come to its verdict. Its configuration
//! is a file (Bochs user manual, "The configuration file bochsrc").

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::artifact::{self, Contents, Firmware, Images};
use crate::error::Error;
use crate::machine::Machine;
use crate::qemu::{End, Ended, Guest, Options, SerialFrom};
use crate::size::Size;
use crate::verdict;
use crate::workspace::Workspace;

/// The program.
pub const BOCHS: &str = "bochs";
/// The program that is its screen where there is none.
const X_SERVER: &str = "Xvfb";

/// What `--cpu max` means: the model with most of what the kernel can use, x2APIC included.
const LARGEST_MODEL: &str = "corei7_skylake_x";
/// RAM of a Bochs machine at most, and unless something is said.
pub const MAX_MEMORY: Size = Size::mib(2048);
/// Processors at most.
const MAX_CPUS: u32 = 8;

/// A cylinder of the disk in bytes: 16 heads of 63 sectors.
const CYLINDER: u64 = 16 * 63 * 512;

/// What only QEMU has, as the option that asks for it, and whether `machine` does.
fn only_qemu(machine: &Machine) -> [(&'static str, bool); 8] {
    [
        ("--uefi", machine.firmware == Firmware::Uefi),
        ("--nodes of more than 1", machine.nodes > 1),
        ("--numa", !machine.shape.0.is_empty()),
        ("--icount", machine.icount),
        ("--gdb", machine.gdb),
        ("--screenshot", machine.qmp.is_some()),
        ("--resolution", machine.screen.is_some()),
        ("--like-pc", machine.serial == crate::machine::Serial::None),
    ]
}

/// The model that `cpu` names.
fn model(cpu: &str) -> &str {
    if cpu == "max" { LARGEST_MODEL } else { cpu }
}

/// Refuses what Bochs cannot be.
///
/// # Errors
/// [`Error::Usage`], which names it and what would be right.
pub fn check(machine: &Machine) -> Result<(), Error> {
    if let Some((option, _)) = only_qemu(machine).iter().find(|(_, asked)| *asked) {
        return Err(Error::Usage(format!(
            "Bochs has no {option}; leave it out, or say --emulator qemu"
        )));
    }
    if !(1..=MAX_CPUS).contains(&machine.smp) {
        return Err(Error::Usage(format!(
            "--smp {}: Bochs has 1 to {MAX_CPUS} processors",
            machine.smp
        )));
    }
    if machine.memory > MAX_MEMORY || !machine.memory.bytes().is_multiple_of(1 << 20) {
        return Err(Error::Usage(format!(
            "--memory {}: Bochs has whole MiB, {MAX_MEMORY} at most",
            machine.memory
        )));
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if machine.cpu.is_empty() || !machine.cpu.chars().all(is_name) {
        return Err(Error::Usage(format!(
            "--cpu {}: want a model of Bochs, as corei7_skylake_x; `bochs --help cpu` lists them",
            machine.cpu
        )));
    }
    Ok(())
}

/// Bochs's configuration for `machine`, whose disk has `cylinders`, with its files in `dir`.
#[must_use]
pub fn configuration(machine: &Machine, dir: &Path, cylinders: u64) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    let memory = machine.memory.bytes() >> 20;
    let mut text = String::new();
    for line in [
        "display_library: x".to_owned(),
        "config_interface: textconfig".to_owned(),
        "romimage: file=$BXSHARE/BIOS-bochs-latest".to_owned(),
        "vgaromimage: file=/usr/share/vgabios/vgabios.bin".to_owned(),
        "vga: extension=vbe".to_owned(),
        "speaker: enabled=0".to_owned(),
        format!("memory: guest={memory}, host={memory}"),
        format!(
            "ata0-master: type=disk, path={}, mode=volatile, cylinders={cylinders}, heads=16, spt=63",
            file("disk.img")
        ),
        "boot: disk".to_owned(),
        format!("com1: enabled=1, mode=file, dev={}", file("serial")),
        format!("log: {}", file("bochs.log")),
        "panic: action=fatal".to_owned(),
        "error: action=report".to_owned(),
        "info: action=ignore".to_owned(),
        // The guest's clock counts its instructions, so that a run repeats.
        "clock: sync=none".to_owned(),
        format!(
            "cpu: model={}, count={}, ips=50000000, reset_on_triple_fault=0",
            model(&machine.cpu),
            machine.smp
        ),
    ] {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Writes an image of `kernel` whose command line is `line`, for a machine named `name`.
///
/// # Errors
/// As [`artifact::write_images`].
pub fn image(
    workspace: &Workspace,
    kernel: &Path,
    line: &str,
    name: &str,
) -> Result<PathBuf, Error> {
    let images = Images::at(workspace, &format!("bochs-{name}"));
    let contents = Contents {
        ramdisk: artifact::ramdisk_text(line),
        ..Contents::default()
    };
    artifact::write_images(workspace, kernel, &contents, &images)?;
    // Bochs boots by BIOS.
    let _ = std::fs::remove_file(&images.uefi);
    Ok(images.bios)
}

/// Starts `machine`. What it needs beside lies in a directory `name` of `target/bochs` until it
/// ends.
///
/// # Errors
/// [`Error::Usage`] for a machine that cannot be; [`Error::NoBochs`]; [`Error::Io`].
pub fn start(
    workspace: &Workspace,
    machine: &Machine,
    name: &str,
    options: &Options<'_>,
) -> Result<Guest, Error> {
    check(machine)?;
    let dir = workspace
        .target_dir("bochs")?
        .join(format!("{name}-{}", std::process::id()));
    let io = |doing: &str, path: &Path| Error::io(format!("{doing} {}", path.display()));
    std::fs::create_dir_all(&dir).map_err(io("making", &dir))?;
    let disk = dir.join("disk.img");
    std::fs::copy(&machine.disk, &disk).map_err(io("copying", &machine.disk))?;
    let opened = OpenOptions::new().write(true).open(&disk);
    let opened = opened.map_err(io("opening", &disk))?;
    let length = opened.metadata().map_err(io("measuring", &disk))?.len();
    let cylinders = length.div_ceil(CYLINDER);
    opened
        .set_len(cylinders * CYLINDER)
        .map_err(io("padding", &disk))?;
    let serial = dir.join("serial");
    let _ = std::fs::remove_file(&serial);
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &serial,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .map_err(|error| Error::io(format!("making {}", serial.display()))(error.into()))?;
    let rc = dir.join("bochsrc");
    std::fs::write(&rc, configuration(machine, &dir, cylinders)).map_err(io("writing", &rc))?;
    // Debian's has a debugger inside, which waits for a word before the first instruction.
    let go = dir.join("go");
    std::fs::write(&go, "continue\n").map_err(io("writing", &go))?;

    let mut command = Command::new(BOCHS);
    command.arg("-q").arg("-f").arg(&rc).arg("-rc").arg(&go);
    let screen = if std::env::var_os("DISPLAY").is_some() && machine.display {
        None
    } else {
        let screen = Screen::start()?;
        command.env("DISPLAY", &screen.display);
        Some(screen)
    };
    let aside = Aside {
        dir,
        _screen: screen,
    };
    Guest::launch(
        command,
        no_bochs,
        SerialFrom::Fifo(serial),
        Some(Box::new(aside)),
        options,
    )
}

/// What [`start`] made for a guest, until it has ended.
#[derive(Debug)]
struct Aside {
    dir: PathBuf,
    _screen: Option<Screen>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Nothing depends on it: `cargo clean` removes what is left.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn no_bochs(reason: std::io::Error) -> Error {
    Error::NoBochs {
        program: BOCHS,
        reason,
    }
}

/// A screen that nobody sees.
#[derive(Debug)]
struct Screen {
    server: Child,
    display: String,
}

impl Screen {
    fn start() -> Result<Self, Error> {
        let no_server = |reason| Error::NoBochs {
            program: X_SERVER,
            reason,
        };
        let mut server = Command::new(X_SERVER)
            .args(["-displayfd", "1", "-screen", "0", "1280x1024x24"])
            .args(["-nolisten", "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(no_server)?;
        let mut number = String::new();
        if let Some(stdout) = server.stdout.take() {
            // It says its number when it is ready, or ends.
            let _ = BufReader::new(stdout).read_line(&mut number);
        }
        let screen = Self {
            server,
            display: format!(":{}", number.trim()),
        };
        if number.trim().is_empty() {
            return Err(no_server(std::io::Error::other("it names no display")));
        }
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The end of a Bochs guest as that of a QEMU guest would have been: the status is what the
/// kernel has said of itself, for there is no device to take it.
#[must_use]
pub fn as_status(mut ended: Ended) -> Ended {
    if ended.end == End::Verdict {
        let code = if verdict::is_good(&ended.serial) {
            verdict::PASS
        } else {
            verdict::FAIL
        };
        ended.end = End::Status(ExitStatus::from_raw(code << 8));
    }
    ended
}

/// Starts a machine and waits for its verdict.
///
/// # Errors
/// As [`start`] and [`Guest::wait`].
pub fn run(
    workspace: &Workspace,
    machine: &Machine,
    name: &str,
    options: &Options<'_>,
) -> Result<Ended, Error> {
    let guest = start(workspace, machine, name, options)?;
    Ok(as_status(guest.wait(options)?))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{check, configuration};
    use crate::artifact::Firmware;
    use crate::machine::Machine;
    use crate::size::Size;

    fn machine() -> Machine {
        Machine::new(PathBuf::from("/x/y.img"), Firmware::Bios)
    }

    #[test]
    fn the_configuration_says_what_was_asked() {
        let mut machine = machine();
        machine.smp = 4;
        machine.memory = Size::mib(512);
        let text = configuration(&machine, Path::new("/z"), 40);
        for line in [
            "memory: guest=512, host=512",
            "ata0-master: type=disk, path=/z/disk.img, mode=volatile, cylinders=40, heads=16, spt=63",
            "com1: enabled=1, mode=file, dev=/z/serial",
            "cpu: model=corei7_skylake_x, count=4, ips=50000000, reset_on_triple_fault=0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        machine.cpu = "ryzen".to_owned();
        assert!(configuration(&machine, Path::new("/z"), 40).contains("model=ryzen,"));
    }

    #[test]
    fn what_bochs_cannot_be_is_refused_by_name() {
        assert!(check(&machine()).is_ok());
        let refused = |change: fn(&mut Machine)| {
            let mut machine = machine();
            change(&mut machine);
            check(&machine).unwrap_err().to_string()
        };
        assert!(refused(|m| m.firmware = Firmware::Uefi).contains("--uefi"));
        assert!(refused(|m| m.nodes = 2).contains("--nodes"));
        assert!(refused(|m| m.smp = 9).contains("--smp 9"));
        assert!(refused(|m| m.smp = 0).contains("--smp 0"));
        assert!(refused(|m| m.memory = Size::mib(4096)).contains("--memory 4G"));
        assert!(refused(|m| m.icount = true).contains("--icount"));
        assert!(refused(|m| m.cpu = "max,+la57".to_owned()).contains("--cpu max,+la57"));
    }
}
