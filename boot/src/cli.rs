//! The command line of the host tool.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::artifact::{Firmware, Profile};
use crate::compare::debian::Source;
use crate::error::STATUSES;
use crate::machine::NumaShape;
use crate::size::Size;

/// Build the Tailfold kernel and boot it in QEMU.
///
/// Without a command: `run`. On a terminal, Ctrl-A X leaves QEMU.
#[derive(Debug, Parser)]
#[command(name = "boot", bin_name = "cargo run --", version, after_help = STATUSES)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: RunOptions,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot and stay, to look at (the default)
    #[command(after_help = STATUSES)]
    Run(RunOptions),
    /// Boot once, run the self-tests and judge them (`cargo test` boots many machines)
    #[command(after_help = STATUSES)]
    Test(TestOptions),
    /// Write disk images, for a stick or for another emulator
    #[command(after_help = STATUSES)]
    Image(ImageOptions),
    /// Measure costs in instructions: an optimised kernel, time that counts instructions
    #[command(after_help = STATUSES)]
    Bench(BenchOptions),
    /// Churn on all processors for a while, with audits, and judge how it ends
    #[command(after_help = STATUSES)]
    Soak(SoakOptions),
    /// Type scripts at Linux and at Tailfold, and show what comes of each line
    #[command(after_help = STATUSES)]
    CompareLinux(CompareOptions),
    /// Measure what Linux's huge pages cost, in instructions, beside Tailfold's; writes Markdown
    #[command(after_help = STATUSES)]
    BenchLinux(BenchLinuxOptions),
    /// Show or set the command line and the script of an image or a stick
    #[command(after_help = STATUSES)]
    Cmdline(CmdlineOptions),
    /// Read the kernel's report off a photograph of its screen
    #[command(after_help = STATUSES)]
    Report(ReportOptions),
    /// Write an image to a USB stick: shows the device, asks, writes, reads back
    #[command(after_help = STATUSES)]
    Usb(UsbOptions),
}

/// Which firmware.
#[derive(Debug, Clone, Copy, Args)]
pub struct FirmwareOptions {
    /// Boot by BIOS (the default, but for sticks)
    #[arg(long)]
    pub bios: bool,
    /// Boot by UEFI (needs the package ovmf)
    #[arg(long, conflicts_with = "bios")]
    pub uefi: bool,
}

impl FirmwareOptions {
    /// The one that was asked for.
    #[must_use]
    pub const fn chosen(self) -> Option<Firmware> {
        match (self.bios, self.uefi) {
            (true, _) => Some(Firmware::Bios),
            (_, true) => Some(Firmware::Uefi),
            _ => None,
        }
    }
}

/// Who executes the instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Accel {
    /// KVM if a probe guest runs with it, or else software emulation
    #[default]
    Auto,
    /// Software emulation
    Tcg,
    /// Linux's hardware virtualisation
    Kvm,
}

/// Which program is the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Emulator {
    /// QEMU
    #[default]
    Qemu,
    /// Bochs (needs the packages bochs-x, vgabios and xvfb): BIOS, one node, 2G and 8 processors at most
    Bochs,
}

/// The machine, for `run`, `test` and `bench`.
#[derive(Debug, Clone, Args)]
pub struct MachineOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub firmware: FirmwareOptions,
    /// RAM of all nodes together, 8G if not given: 512M, 512G (only what is touched costs the host)
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u32,
    /// NUMA nodes, which share RAM and processors evenly; 2 if not given, for `bench` 1
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// NUMA nodes that are no even shares, as cpus=0/memory=512M,cpus=1-2/memory=1G: node by node;
    /// to1=31 is the distance to node 1, one for each two nodes
    #[arg(long, value_name = "SHAPE", conflicts_with_all = ["nodes", "memory"])]
    pub numa: Option<NumaShape>,
    /// QEMU's processor, with properties; qemu64 has no 1 GiB pages
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub cpu: String,
    /// Who executes the guest's instructions
    #[arg(long, value_enum, default_value_t)]
    pub accel: Accel,
    /// The program that is the machine, for `run` and `test`
    #[arg(long, value_enum, default_value_t)]
    pub emulator: Emulator,
    /// Another QEMU than the one in the path; or name it in the environment's TAILFOLD_QEMU
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// The whole kernel command line, in place of the image's
    #[arg(long, short = 'a', value_name = "TEXT")]
    pub append: Option<String>,
    /// Let guest time count instructions: slower, and the same every time
    #[arg(long)]
    pub icount: bool,
    /// End the guest after this long, 0: never. Not given: `run` 600 unless at a terminal, `test` 900,
    /// `bench` 1800, `soak` half as long again as it takes and 300
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Write the serial port's output to a file, too
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Print the QEMU command, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// As a PC: UEFI (or --bios), from a USB stick, no serial port: the kernel's words are on the screen
    #[arg(long)]
    pub like_pc: bool,
    /// Boot this raw disk image, and build nothing
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// The kernel's struct pages: an encoding and a size, as order-64 (docs/layouts.md)
    #[arg(long, value_name = "LAYOUT", value_parser = layout)]
    pub layout: Option<String>,
    /// Size of the screen (with --uefi; the boot loader for BIOS takes 1280x720 or less)
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = resolution)]
    pub resolution: Option<(u32, u32)>,
}

impl MachineOptions {
    /// The time-out: what was given, or `default`.
    #[must_use]
    pub fn limit(&self, default: Option<Duration>) -> Option<Duration> {
        match self.timeout {
            None => default,
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
        }
    }
}

/// The form of a layout's name; the kernel's build knows the names.
fn layout(text: &str) -> Result<String, String> {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    match text.rsplit_once('-') {
        Some((encoding, size)) if plain(encoding) && size.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("want an encoding and a size in bytes, as mask-64".to_owned()),
    }
}

/// Which kernel, for all but `bench`.
#[derive(Debug, Clone, Copy, Args)]
pub struct KernelOptions {
    /// The kernel without debug assertions and page checks
    #[arg(long)]
    pub release: bool,
}

impl KernelOptions {
    /// How to compile.
    #[must_use]
    pub const fn profile(self) -> Profile {
        if self.release {
            Profile::Release
        } else {
            Profile::Checked
        }
    }
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub machine: MachineOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
    /// Show the guest's screen in a window (needs the package qemu-system-gui)
    #[arg(long)]
    pub display: bool,
    /// Wait for a debugger on port 1234 before the first instruction
    #[arg(long)]
    pub gdb: bool,
    /// Save the screen as PNG when the kernel has come to its verdict, then end
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
}

/// Options of `test`.
#[derive(Debug, Clone, Args)]
pub struct TestOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub machine: MachineOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
    /// Self-tests to run, as `suite:case` with * and ?, separated by commas; `list` names all
    #[arg(value_name = "GLOB", default_value = "on", conflicts_with = "append")]
    pub selftest: String,
}

/// Options of `image`.
#[derive(Debug, Clone, Args)]
pub struct ImageOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
    /// The default command line that goes into the images' file `ramdisk`
    #[arg(long, short = 'a', value_name = "TEXT")]
    pub append: Option<String>,
    /// Least screen size that the boot loader asks UEFI for; else the screen's own
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = resolution)]
    pub resolution: Option<(u32, u32)>,
}

/// Options of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub machine: MachineOptions,
    /// Ratios of times instead: full flushes against single ones, readers beside churn
    #[arg(long, conflicts_with_all = ["icount", "append"])]
    pub time: bool,
    /// Groups of benchmarks, separated by commas, with * and ?; `list` names them all. Without
    /// it, all that count instructions
    #[arg(value_name = "GLOB", conflicts_with = "append")]
    pub groups: Option<String>,
}

/// Options of `soak`.
#[derive(Debug, Clone, Args)]
pub struct SoakOptions {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub machine: MachineOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
    /// How long, such as 10 or 0.5
    #[arg(long, value_name = "N", default_value = "10", value_parser = minutes)]
    pub minutes: Duration,
    /// Where each processor's random choices begin; without it, each soak differs
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Options of `compare-linux`.
#[derive(Debug, Clone, Args)]
pub struct CompareOptions {
    /// Scripts: names of those in tests/compare, or files (all in tests/compare)
    #[arg(value_name = "SCRIPT")]
    pub scripts: Vec<String>,
    /// RAM of all nodes together, in place of what the script says
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Processors, in place of what the script says
    #[arg(long, value_name = "N")]
    pub smp: Option<u32>,
    /// NUMA nodes, in place of what the script says
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Who executes the guests' instructions
    #[arg(long, value_enum, default_value_t)]
    pub accel: Accel,
    /// Another QEMU than the one in the path; or name it in the environment's TAILFOLD_QEMU
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Which Linux: backports (the newest of Debian 13's backports), host (the newest of this
    /// machine's own Debian), a package that apt knows, or a kernel's file
    #[arg(long, value_name = "KIND|FILE", default_value = "backports")]
    pub linux: Source,
    /// Type at one side only, and compare nothing
    #[arg(long, value_enum, value_name = "SIDE")]
    pub only: Option<Only>,
    /// Boot this raw disk image for Tailfold, and build nothing
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Write the outcomes to a file, too
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
}

/// Options of `bench-linux`.
#[derive(Debug, Clone, Args)]
pub struct BenchLinuxOptions {
    /// Which Linux: as for `compare-linux`
    #[arg(long, value_name = "KIND|FILE", default_value = "backports")]
    pub linux: Source,
    /// Another QEMU than the one in the path; or name it in the environment's TAILFOLD_QEMU
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,
    /// Write the tables to a file, too
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// The real thing
    Linux,
    /// This project
    Tailfold,
}

/// Options of `cmdline`.
#[derive(Debug, Clone, Args)]
pub struct CmdlineOptions {
    /// An image, as target/tailfold-bios.img, or a stick, a whole disk such as /dev/sdb
    pub target: PathBuf,
    /// The command line that it is to have; without it, what it has is shown
    pub words: Option<String>,
    /// The commands that the shell runs at boot, a file of lines; `-` takes them away
    #[arg(long, value_name = "FILE", requires = "words")]
    pub script: Option<PathBuf>,
}

/// Options of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportOptions {
    /// Photographs or screenshots (PNG, JPEG) of the codes, or the texts that a reader of QR codes
    /// has found in them, in any order
    #[arg(required = true, value_name = "PICTURE|TEXT")]
    pub from: Vec<String>,
}

/// Options of `usb`.
#[derive(Debug, Clone, Args)]
pub struct UsbOptions {
    /// The stick, a whole disk such as /dev/sdb
    pub device: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub firmware: FirmwareOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the group's help")]
    pub kernel: KernelOptions,
    /// The default command line that goes onto the stick
    #[arg(long, short = 'a', value_name = "TEXT")]
    pub append: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

fn resolution(text: &str) -> Result<(u32, u32), String> {
    let wanted = || format!("`{text}` is no size in pixels; write it like 1024x768");
    let (width, height) = text.split_once('x').ok_or_else(wanted)?;
    match (width.parse(), height.parse()) {
        (Ok(width @ 1..), Ok(height @ 1..)) => Ok((width, height)),
        _ => Err(wanted()),
    }
}

/// The longest soak that the kernel takes: thirty days.
const LONGEST_SOAK: f64 = 30.0 * 24.0 * 60.0;

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok();
    minutes
        .filter(|minutes| (1.0 / 60.0..=LONGEST_SOAK).contains(minutes))
        .map(|minutes| Duration::from_secs_f64((minutes * 60.0).round()))
        .ok_or_else(|| {
            format!("`{text}` is no number of minutes from a second to thirty days; write it like 10 or 0.5")
        })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use std::time::Duration;

    use super::{Cli, Command, minutes, resolution};

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_no_name() {
        let cli = Cli::try_parse_from(["boot", "--uefi", "--memory", "4G"]).unwrap();
        assert!(cli.command.is_none());
        assert!(cli.run.machine.firmware.uefi);
        let cli = Cli::try_parse_from(["boot", "run", "--uefi"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Run(run)) if run.machine.firmware.uefi));
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            &["boot", "--uefi", "--bios"][..],
            &["boot", "--memory", "4 apples"],
            &["boot", "--resolution", "big"],
            &["boot", "test", "buddy:*", "--append", "x"],
            &["boot", "usb"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn minutes_may_be_parts_of_one() {
        assert_eq!(minutes("10"), Ok(Duration::from_secs(600)));
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        for text in ["", "0", "-1", "ten", "nan", "inf", "1e9", "43201"] {
            assert!(minutes(text).unwrap_err().contains(&format!("`{text}`")));
        }
        let cli = Cli::try_parse_from(["boot", "soak", "--smp", "4", "--seed", "7"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Soak(soak))
            if soak.minutes == Duration::from_secs(600) && soak.seed == Some(7)));
    }

    #[test]
    fn sizes_of_screens() {
        assert_eq!(resolution("1024x768"), Ok((1024, 768)));
        for text in ["", "x", "0x1", "1024", "1024x-1", "axb"] {
            assert!(resolution(text).unwrap_err().contains(&format!("`{text}`")));
        }
    }
}
