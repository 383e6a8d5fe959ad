//! What each command does.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::accel::{self, Accelerator};
use crate::artifact::{self, Build, Firmware, Images, Profile};
use crate::cli::{
    Accel, BenchOptions, Cli, Command, Emulator, ImageOptions, MachineOptions, RunOptions,
    SoakOptions, TestOptions,
};
use crate::error::Error;
use crate::firmware::Ovmf;
use crate::ktap::Status;
use crate::machine::{Bus, Machine, Serial};
use crate::qemu::{self, End, Ended, Options};
use crate::screen::{self, Shot, When};
use crate::size::Size;
use crate::workspace::Workspace;
use crate::{bochs, compare, photo, ramdisk, usb, verdict};

/// Longest time of `run` where nobody sits at a terminal to end it.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Longest time of `test`.
const TEST_LIMIT: Duration = Duration::from_secs(900);

/// Longest time of `bench`.
const BENCH_LIMIT: Duration = Duration::from_secs(1800);

/// What a soak may take on top of its time and half of it, for a guest's clock goes slow
/// on a busy host: boot, the last audits.
const SOAK_SLACK: Duration = Duration::from_secs(300);

/// RAM of `run`, `test` and `soak`: enough for a 1 GiB folio on either node.
const MEMORY: Size = Size::mib(8192);

/// RAM of `bench`: as in the measurement of Linux that it is compared with.
const BENCH_MEMORY: Size = Size::mib(8192);

/// Does what the command line says.
///
/// # Errors
/// All of [`Error`].
pub fn execute(cli: Cli) -> Result<(), Error> {
    match cli.command {
        None => run(&cli.run),
        Some(Command::Run(options)) => run(&options),
        Some(Command::Test(options)) => test(&options),
        Some(Command::Image(options)) => image(&options),
        Some(Command::Bench(options)) => bench(&options),
        Some(Command::Soak(options)) => soak(&options),
        Some(Command::CompareLinux(options)) => compare::command::compare(&options),
        Some(Command::BenchLinux(options)) => compare::bench::bench(&options),
        Some(Command::Cmdline(options)) => ramdisk::command(&options),
        Some(Command::Report(options)) => photo::command(&options),
        Some(Command::Usb(options)) => usb::command(&options),
    }
}

fn run(options: &RunOptions) -> Result<(), Error> {
    let workspace = Workspace::find()?;
    if options.machine.emulator == Emulator::Bochs {
        if options.gdb || options.screenshot.is_some() {
            return Err(Error::Usage(
                "--gdb and --screenshot are QEMU's; leave out --emulator bochs".to_owned(),
            ));
        }
        let profile = options.kernel.profile();
        let line = options.machine.append.as_deref();
        let line = line.unwrap_or(artifact::DEFAULT_COMMAND_LINE);
        let ended = in_bochs(&workspace, &options.machine, profile, line, options.display)?;
        return ended.map_or(Ok(()), |ended| verdict::run(&ended));
    }
    let mut machine = prepare(
        &workspace,
        &options.machine,
        options.kernel.profile(),
        (MEMORY, 2),
    )?;
    machine.display = options.display;
    machine.gdb = options.gdb;
    if let Some(file) = &options.screenshot {
        return screenshot(&workspace, &mut machine, options, file);
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let log = match &options.machine.log {
        Some(log) => log.clone(),
        None => workspace.target().join("tailfold.log"),
    };
    let interactive = terminal && machine.serial == Serial::Stdout;
    if interactive {
        // QEMU itself is on the terminal, and writes the log.
        machine.serial = Serial::Terminal { log: log.clone() };
    }
    let arguments = machine.arguments()?;
    if options.machine.dry_run {
        println!("{} {arguments}", accel::qemu().display());
        return Ok(());
    }
    if machine.serial == Serial::None && !options.display {
        return Err(Error::Usage(
            "--like-pc has no serial port: add --display to see the screen, \
             or --screenshot FILE to save it"
                .to_owned(),
        ));
    }
    if interactive {
        eprintln!("starting QEMU: Ctrl-A X leaves it, Ctrl-A C is its monitor");
        let status = qemu::run_on_terminal(&arguments, options.machine.limit(None))?;
        return left_by_a_person(status, &log);
    }
    let watched = options.display || options.gdb;
    let ended = qemu::run(
        &arguments,
        &Options {
            limit: options
                .machine
                .limit(if watched { None } else { Some(RUN_LIMIT) }),
            first_word: (!watched).then_some(qemu::FIRST_WORD_LIMIT),
            at_verdict: !watched && options.machine.timeout.is_none(),
            echo: true,
            log: Some(&log),
        },
    )?;
    match ended.end {
        End::Status(status) if watched => left_by_a_person(status, &log),
        End::Verdict => {
            eprintln!(
                "ended at the kernel's verdict, as nobody is at a terminal; --timeout lets it stay"
            );
            verdict::run(&ended)
        }
        _ => verdict::run(&ended),
    }
}

/// What it means that QEMU, with a person before it, ended with `status`.
fn left_by_a_person(status: std::process::ExitStatus, log: &Path) -> Result<(), Error> {
    match status.code() {
        Some(0 | verdict::PASS) => Ok(()),
        _ => {
            let serial = std::fs::read(log).unwrap_or_default();
            verdict::run(&qemu::Ended {
                end: End::Status(status),
                serial: qemu::plain(&serial),
                stderr: String::new(),
                took: Duration::ZERO,
            })
        }
    }
}

fn screenshot(
    workspace: &Workspace,
    machine: &mut Machine,
    options: &RunOptions,
    file: &Path,
) -> Result<(), Error> {
    let socket = workspace
        .target_dir("qmp")?
        .join(std::process::id().to_string());
    machine.qmp = Some(socket);
    let arguments = machine.arguments()?;
    if options.machine.dry_run {
        println!("{} {arguments}", accel::qemu().display());
        return Ok(());
    }
    let shot = Shot {
        file,
        limit: options.machine.limit(Some(RUN_LIMIT)).unwrap_or(RUN_LIMIT),
        when: if machine.serial == Serial::None {
            When::Still(screen::STILL)
        } else {
            When::Verdict
        },
        log: options.machine.log.as_deref(),
    };
    screen::shoot(machine, &shot)?;
    eprintln!("the screen is in {}", file.display());
    Ok(())
}

fn test(options: &TestOptions) -> Result<(), Error> {
    let workspace = Workspace::find()?;
    if options.machine.emulator == Emulator::Bochs {
        let profile = options.kernel.profile();
        let usual = format!("selftest={} init=poweroff", options.selftest);
        let line = options.machine.append.as_deref().unwrap_or(&usual);
        let ended = in_bochs(&workspace, &options.machine, profile, line, false)?;
        return ended.map_or(Ok(()), |ended| tested(options, &ended));
    }
    let mut machine = prepare(
        &workspace,
        &options.machine,
        options.kernel.profile(),
        (MEMORY, 2),
    )?;
    machine
        .command_line
        .get_or_insert_with(|| format!("selftest={} init=poweroff", options.selftest));
    let arguments = machine.arguments()?;
    if options.machine.dry_run {
        println!("{} {arguments}", accel::qemu().display());
        return Ok(());
    }
    let serial = machine.serial != Serial::None;
    let ended = qemu::run(
        &arguments,
        &Options {
            limit: options.machine.limit(Some(TEST_LIMIT)),
            first_word: serial.then_some(qemu::FIRST_WORD_LIMIT),
            at_verdict: false,
            echo: true,
            log: options.machine.log.as_deref(),
        },
    )?;
    if !serial {
        // Nothing to read: the status is all there is, and is said to be.
        let status = verdict::finished(&ended)?;
        eprintln!("no serial port, no KTAP: judged by the exit status alone");
        return verdict::passed(status);
    }
    tested(options, &ended)
}

/// Judges a guest that was to run its self-tests, or to list them.
fn tested(options: &TestOptions, ended: &Ended) -> Result<(), Error> {
    if options.selftest == "list" {
        eprintln!("{} self-tests", verdict::list(ended)?);
        return Ok(());
    }
    let report = verdict::tests(ended)?;
    eprintln!(
        "{} self-tests passed, {} skipped, in {} s",
        report.count(Status::Passed),
        report.count(Status::Skipped),
        ended.took.as_secs()
    );
    Ok(())
}

/// Longest time of a guest in Bochs, which takes five times as long as QEMU.
const BOCHS_LIMIT: Duration = Duration::from_secs(3600);

/// Boots the machine of `options` in Bochs with the command line `line`, on a screen in a window
/// if `display`, until its verdict. `None` for a dry run, which prints the configuration.
fn in_bochs(
    workspace: &Workspace,
    options: &MachineOptions,
    profile: Profile,
    line: &str,
    display: bool,
) -> Result<Option<Ended>, Error> {
    if options.image.is_some() {
        return Err(Error::Usage(
            "--image goes with QEMU: in Bochs the command line is part of the image; `cargo run -- image` writes one"
                .to_owned(),
        ));
    }
    if line.chars().any(char::is_control) && line != artifact::DEFAULT_COMMAND_LINE {
        return Err(Error::Usage(
            "the kernel command line must be one line without control characters".to_owned(),
        ));
    }
    let firmware = options.firmware.chosen().unwrap_or(Firmware::Bios);
    let mut machine = Machine::new(PathBuf::new(), firmware);
    machine.memory = options.memory.unwrap_or(bochs::MAX_MEMORY);
    machine.nodes = options.nodes.unwrap_or(1);
    machine.shape = options.numa.clone().unwrap_or_default();
    machine.smp = options.smp;
    machine.cpu.clone_from(&options.cpu);
    machine.icount = options.icount;
    machine.screen = options.resolution;
    machine.display = display;
    if options.like_pc {
        machine.serial = Serial::None;
    }
    bochs::check(&machine)?;
    if options.dry_run {
        print!("{}", bochs::configuration(&machine, Path::new("."), 40));
        return Ok(None);
    }
    let layout = options.layout.as_deref();
    let kernel = artifact::kernel(workspace, Build { profile, layout })?;
    machine.disk = bochs::image(workspace, &kernel, line, "run")?;
    let ended = bochs::run(
        workspace,
        &machine,
        "run",
        &Options {
            limit: options.limit(Some(BOCHS_LIMIT)),
            first_word: Some(qemu::FIRST_WORD_LIMIT),
            at_verdict: options.timeout.is_none() && !display,
            echo: true,
            log: options.log.as_deref(),
        },
    )?;
    Ok(Some(ended))
}

fn bench(options: &BenchOptions) -> Result<(), Error> {
    only_qemu(&options.machine, "bench")?;
    let workspace = Workspace::find()?;
    let what = match &options.groups {
        Some(groups) if groups.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            return Err(Error::Usage(
                "groups of benchmarks are separated by commas, without blanks".to_owned(),
            ));
        }
        Some(groups) => groups.clone(),
        None if options.time => "time".to_owned(),
        None => "instructions".to_owned(),
    };
    let (time, mut options) = (options.time, options.machine.clone());
    options.icount = !time;
    let mut machine = prepare(&workspace, &options, Profile::Bench, (BENCH_MEMORY, 1))?;
    machine
        .command_line
        .get_or_insert_with(|| format!("selftest=off init=bench bench={what}"));
    let arguments = machine.arguments()?;
    if options.dry_run {
        println!("{} {arguments}", accel::qemu().display());
        return Ok(());
    }
    let started = Instant::now();
    verdict::measured(
        &machine,
        &Options {
            limit: options.limit(Some(BENCH_LIMIT)),
            first_word: (machine.serial != Serial::None).then_some(qemu::FIRST_WORD_LIMIT),
            at_verdict: false,
            echo: true,
            log: options.log.as_deref(),
        },
    )?;
    eprintln!("measured in {} s", started.elapsed().as_secs());
    Ok(())
}

fn soak(options: &SoakOptions) -> Result<(), Error> {
    only_qemu(&options.machine, "soak")?;
    let workspace = Workspace::find()?;
    let profile = options.kernel.profile();
    let mut machine = prepare(&workspace, &options.machine, profile, (MEMORY, 2))?;
    let seconds = options.minutes.as_secs();
    let seed = options.seed.unwrap_or_else(fresh_seed);
    machine
        .command_line
        .get_or_insert_with(|| format!("selftest=off init=soak soak={seconds}s soak_seed={seed}"));
    let arguments = machine.arguments()?;
    if options.machine.dry_run {
        println!("{} {arguments}", accel::qemu().display());
        return Ok(());
    }
    let ended = qemu::run(
        &arguments,
        &Options {
            limit: options
                .machine
                .limit(Some(options.minutes * 3 / 2 + SOAK_SLACK)),
            first_word: (machine.serial != Serial::None).then_some(qemu::FIRST_WORD_LIMIT),
            at_verdict: false,
            echo: true,
            log: options.machine.log.as_deref(),
        },
    )?;
    verdict::soak(&ended)?;
    eprintln!(
        "soaked for {} s of {} s; the same choices again: --seed {seed}",
        seconds,
        ended.took.as_secs()
    );
    Ok(())
}

/// Refuses another emulator for `command`.
fn only_qemu(options: &MachineOptions, command: &str) -> Result<(), Error> {
    if options.emulator == Emulator::Qemu {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "`{command}` runs in QEMU: leave out --emulator bochs, which goes with `run` and `test`"
    )))
}

/// A seed that is unlikely to have been used before, short enough to be typed.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |now| {
        u64::from(now.subsec_nanos()) ^ now.as_secs() & 0xffff_ffff
    })
}

fn image(options: &ImageOptions) -> Result<(), Error> {
    let workspace = Workspace::find()?;
    let images = artifact::build_images(
        &workspace,
        options.kernel.profile(),
        options.append.as_deref(),
        options.resolution,
        "tailfold",
    )?;
    for (firmware, path) in [("BIOS", &images.bios), ("UEFI", &images.uefi)] {
        println!("{}: for {firmware}", path.display());
    }
    Ok(())
}

/// The machine of `options`, with its image built unless this is a dry run.
fn prepare(
    workspace: &Workspace,
    options: &MachineOptions,
    profile: Profile,
    (memory, nodes): (Size, u32),
) -> Result<Machine, Error> {
    let usual = if options.like_pc {
        Firmware::Uefi
    } else {
        Firmware::Bios
    };
    let firmware = options.firmware.chosen().unwrap_or(usual);
    let mut stem = match profile {
        Profile::Checked => "run",
        Profile::Release => "run-release",
        Profile::Bench => "run-bench",
    }
    .to_owned();
    let layout = options.layout.as_deref();
    if let Some(layout) = layout {
        stem = format!("{stem}-{layout}");
    }
    accel::use_qemu(options.qemu.as_deref());
    let mut machine = Machine::new(PathBuf::new(), firmware);
    // First what can be wrong at once, then what takes minutes.
    if firmware == Firmware::Uefi {
        machine.ovmf = match Ovmf::find() {
            Err(Error::NoFirmware { .. }) if options.dry_run => Ovmf::default(),
            found => found?,
        };
    }
    machine.memory = options.memory.unwrap_or(memory);
    machine.nodes = options.nodes.unwrap_or(nodes);
    machine.shape = options.numa.clone().unwrap_or_default();
    machine.smp = options.smp;
    machine.cpu.clone_from(&options.cpu);
    machine.icount = options.icount;
    machine.command_line.clone_from(&options.append);
    if options.like_pc {
        machine.bus = Bus::Usb;
        machine.serial = Serial::None;
    }
    machine.screen = options.resolution;
    machine.accelerator = accelerator(workspace, options)?;
    machine.arguments()?;
    machine.disk = match &options.image {
        Some(image) if image.is_file() || options.dry_run => image.clone(),
        Some(image) => {
            return Err(Error::Usage(format!(
                "--image {}: there is no such file",
                image.display()
            )));
        }
        None if options.dry_run => Images::at(workspace, &stem).get(firmware).to_owned(),
        None => artifact::build_images(workspace, Build { profile, layout }, None, None, &stem)?
            .get(firmware)
            .to_owned(),
    };
    Ok(machine)
}

fn accelerator(workspace: &Workspace, options: &MachineOptions) -> Result<Accelerator, Error> {
    let (accelerator, why) = match options.accel {
        Accel::Tcg => (Accelerator::Tcg, "as asked".to_owned()),
        Accel::Kvm => (Accelerator::Kvm, "as asked".to_owned()),
        Accel::Auto if options.icount => {
            (Accelerator::Tcg, "only it counts instructions".to_owned())
        }
        // A dry run starts nothing, a probe neither.
        Accel::Auto if options.dry_run => return Ok(Accelerator::Tcg),
        Accel::Auto => Accelerator::choose(workspace)?,
    };
    eprintln!(
        "{}: {why}",
        match accelerator {
            Accelerator::Tcg => "software emulation (tcg)",
            Accelerator::Kvm => "hardware virtualisation (kvm)",
        }
    );
    Ok(accelerator)
}
