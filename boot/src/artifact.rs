//! The kernel and the disk images: built when they are needed, by cargo.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use crate::error::Error;
use crate::partition;
use crate::progress::BootLoaderProgress;
use crate::workspace::{TARGET, Workspace};

/// The environment variable that says which struct pages the kernel is built with.
const LAYOUT: &str = "TAILFOLD_LAYOUT";

/// How the kernel is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// Optimised, with every debug assertion and page check: to run and to test.
    #[default]
    Checked,
    /// Optimised, without them.
    Release,
    /// The same, compiled as one piece, which takes longer: to measure.
    Bench,
}

impl Profile {
    /// Its name in `Cargo.toml`, which is also its directory's in `target/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checked => "kernel-checked",
            Self::Release => "release",
            Self::Bench => "kernel-bench",
        }
    }
}

/// Which kernel to compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Build<'a> {
    /// How.
    pub profile: Profile,
    /// The layout of its struct pages, as `order-64`; `None` leaves it to the environment's
    /// `TAILFOLD_LAYOUT`.
    pub layout: Option<&'a str>,
}

impl From<Profile> for Build<'_> {
    fn from(profile: Profile) -> Self {
        Self {
            profile,
            layout: None,
        }
    }
}

/// The two ways a PC starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Firmware {
    /// Boot sector, MBR; `SeaBIOS` in QEMU.
    #[default]
    Bios,
    /// EFI system partition, GPT; OVMF in QEMU.
    Uefi,
}

impl Firmware {
    /// `bios` or `uefi`, as in file names and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// What stands above the command line in the file `ramdisk`, for the person who
/// edits it on the stick.
const RAMDISK_HEADER: &str = "\
# Tailfold's kernel command line: words in Linux's spelling, on any number of lines.
# Behind # is comment. The kernel names words that it does not know, and goes on.
# Behind a line \"--- script\": commands that the shell runs at boot.
";

/// The default command line: some pages of both sizes, so that the report has
/// something to show, and the self-tests.
pub const DEFAULT_COMMAND_LINE: &str = "\
hugetlb_free_vmemmap=on
hugepagesz=1G hugepages=2
hugepagesz=2M hugepages=128
selftest=on
init=shell";

/// The text of the file `ramdisk` for `command_line`.
#[must_use]
pub fn ramdisk_text(command_line: &str) -> String {
    format!("{RAMDISK_HEADER}{command_line}\n")
}

/// Disk images of one kernel, one for each [`Firmware`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Images {
    /// Raw disk with an MBR.
    pub bios: PathBuf,
    /// Raw disk with a GPT.
    pub uefi: PathBuf,
}

impl Images {
    /// Where the images of kind `stem` are: `tailfold` for those that people take away.
    #[must_use]
    pub fn at(workspace: &Workspace, stem: &str) -> Self {
        let path = |firmware: Firmware| {
            workspace
                .target()
                .join(format!("{stem}-{}.img", firmware.name()))
        };
        Self {
            bios: path(Firmware::Bios),
            uefi: path(Firmware::Uefi),
        }
    }

    /// The one for `firmware`.
    #[must_use]
    pub fn get(&self, firmware: Firmware) -> &Path {
        match firmware {
            Firmware::Bios => &self.bios,
            Firmware::Uefi => &self.uefi,
        }
    }
}

/// What goes into an image beside kernel and boot loader.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The text of the file `ramdisk`, from which the kernel takes its command line
    /// if QEMU gives it none; see [`ramdisk_text`].
    pub ramdisk: String,
    /// Least size of the framebuffer in pixels, width and height.
    pub framebuffer: Option<(u32, u32)>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            ramdisk: ramdisk_text(DEFAULT_COMMAND_LINE),
            framebuffer: None,
        }
    }
}

/// Compiles the kernel; gives the path of the ELF file.
///
/// # Errors
/// [`Error::Build`]; the compiler's messages are on stderr by then.
pub fn kernel<'a>(workspace: &Workspace, build: impl Into<Build<'a>>) -> Result<PathBuf, Error> {
    let Build { profile, layout } = build.into();
    let mut command = workspace.cargo();
    command.args(["build", "--package=kernel", "--target", TARGET, "--profile"]);
    command.arg(profile.name());
    if let Some(layout) = layout {
        // A directory of their own, so that the usual kernel is not built again each time.
        let dir = workspace.target_dir("layouts")?;
        command.env(LAYOUT, layout).arg("--target-dir").arg(dir);
    }
    if !workspace.has_bare_metal_core()? {
        command.args([
            "-Zbuild-std=core,alloc",
            "-Zbuild-std-features=compiler-builtins-mem",
        ]);
    }
    let found = compile(command, "the kernel", "kernel")?;
    let Some(layout) = layout else {
        return Ok(found);
    };
    // The next layout's kernel has the same name.
    let kept = found.with_file_name(format!("kernel-{layout}"));
    std::fs::copy(&found, &kept).map_err(Error::io(format!("writing {}", kept.display())))?;
    Ok(kept)
}

/// Compiles the program `name` of `boot/preloader`; gives the path of the EFI application.
///
/// # Errors
/// [`Error::Build`]; the compiler's messages are on stderr by then.
pub fn efi_program(workspace: &Workspace, name: &str) -> Result<PathBuf, Error> {
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--package=preloader", "--bin", name]);
    // `core` too, as for the boot loader: no toolchain that this builds with has to bring it.
    command.args([
        "--target=x86_64-unknown-uefi",
        "-Zbuild-std=core",
        "-Zbuild-std-features=compiler-builtins-mem",
    ]);
    compile(command, "the preloader", name)
}

/// Runs `command`, a `cargo build` of `what`, for the path of the executable `name`.
fn compile(mut command: Command, what: &'static str, name: &str) -> Result<PathBuf, Error> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io("starting cargo"))?;
    let found = executable(&mut child, name);
    finish(&mut child, what, String::new())?;
    found.ok_or_else(|| Error::Build {
        what,
        detail: "cargo names no executable".to_owned(),
    })
}

/// Writes the images of `kernel` with `contents` to `images`. The boot loader is compiled first, if this is the first time:
/// that takes minutes, and the progress is shown.
///
/// # Errors
/// [`Error::Build`], or [`Error::Io`] if the files cannot be written.
pub fn write_images(
    workspace: &Workspace,
    kernel: &Path,
    contents: &Contents,
    images: &Images,
) -> Result<(), Error> {
    let imager = imager(workspace)?;
    let preloader = efi_program(workspace, "preloader")?;
    // Written beside and renamed: a guest may be running from the old one.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Threads of one process may each write images.
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let scratch = workspace.target_dir("images")?;
    let scratch = scratch.join(format!("{}-{call}", std::process::id()));
    std::fs::create_dir_all(&scratch)
        .map_err(Error::io(format!("making {}", scratch.display())))?;
    let result = strip(workspace, kernel, &scratch).and_then(|kernel| {
        write_images_in(&scratch, [&imager, &preloader], &kernel, contents, images)
    });
    // Nothing depends on it: `cargo clean` removes what is left.
    let _ = std::fs::remove_dir_all(&scratch);
    result
}

/// Builds a kernel and the images `stem` of it.
///
/// # Errors
/// As [`kernel`] and [`write_images`]; [`Error::Usage`] for a
/// command line of more than one line.
pub fn build_images<'a>(
    workspace: &Workspace,
    build: impl Into<Build<'a>>,
    command_line: Option<&str>,
    framebuffer: Option<(u32, u32)>,
    stem: &str,
) -> Result<Images, Error> {
    let mut contents = Contents {
        framebuffer,
        ..Contents::default()
    };
    if let Some(text) = command_line {
        if text.contains(|c: char| c.is_control()) {
            return Err(Error::Usage(
                "the kernel command line must be one line without control characters".to_owned(),
            ));
        }
        contents.ramdisk = ramdisk_text(text);
    }
    let kernel = kernel(workspace, build)?;
    let images = Images::at(workspace, stem);
    write_images(workspace, &kernel, &contents, &images)?;
    Ok(images)
}

/// Where the kernel says which commit it is of, and how many bytes it has for it.
const COMMIT_SECTION: &str = ".tailfold.commit";
const COMMIT_BYTES: usize = 32;

/// The commit that is checked out, with `-dirty` behind it if a file of it was changed; nothing
/// where git does not say. Images are marked with it.
#[must_use]
pub fn commit(workspace: &Workspace) -> String {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ])
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => String::new(),
    }
}

/// A copy of `kernel` in `scratch` that knows its commit, without what only debuggers read: four
/// fifths of it, which a loader would copy, at a speed that differs by machine.
fn strip(workspace: &Workspace, kernel: &Path, scratch: &Path) -> Result<PathBuf, Error> {
    let tool = workspace.llvm_tool("llvm-objcopy")?;
    let stripped = scratch.join("kernel");
    let mut name = commit(workspace).into_bytes();
    name.resize(COMMIT_BYTES, 0);
    let section = scratch.join("commit");
    std::fs::write(&section, name).map_err(Error::io(format!("writing {}", section.display())))?;
    let output = Command::new(&tool)
        .arg("--strip-all")
        .arg(format!(
            "--update-section={COMMIT_SECTION}={}",
            section.display()
        ))
        .args([kernel, &stripped])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("starting {}", tool.display())))?;
    if output.status.success() {
        return Ok(stripped);
    }
    Err(Error::Build {
        what: "the kernel without debug information",
        detail: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn write_images_in(
    scratch: &Path,
    [imager, preloader]: [&Path; 2],
    kernel: &Path,
    contents: &Contents,
    images: &Images,
) -> Result<(), Error> {
    let ramdisk = scratch.join("ramdisk");
    std::fs::write(&ramdisk, &contents.ramdisk)
        .map_err(Error::io(format!("writing {}", ramdisk.display())))?;
    let mut command = Command::new(imager);
    command
        .arg("--kernel")
        .arg(kernel)
        .arg("--ramdisk")
        .arg(&ramdisk);
    let parts = [
        ("--bios", scratch.join("bios"), &images.bios),
        ("--uefi", scratch.join("uefi"), &images.uefi),
    ];
    for (option, path, _) in &parts {
        command.arg(option).arg(path);
    }
    if let Some((width, height)) = contents.framebuffer {
        command.arg(format!("--width={width}"));
        command.arg(format!("--height={height}"));
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("starting {}", imager.display())))?;
    if !output.status.success() {
        return Err(Error::Build {
            what: "the disk images",
            detail: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    partition::put_first(&scratch.join("uefi"), preloader, "loader.efi")?;
    for (_, from, to) in &parts {
        std::fs::rename(from, to).map_err(Error::io(format!("writing {}", to.display())))?;
    }
    Ok(())
}

fn imager(workspace: &Workspace) -> Result<PathBuf, Error> {
    const WHAT: &str = "the boot loader";
    let mut child = workspace
        .cargo()
        // -vv: the stages are compiled inside a build script, whose words cargo
        // keeps to itself otherwise.
        .args(["build", "--package=imager", "-vv"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("starting cargo"))?;
    let stderr = child.stderr.take();
    let watcher = std::thread::spawn(move || {
        let mut progress = BootLoaderProgress::new();
        if let Some(stderr) = stderr {
            each_line(stderr, |line| progress.line(line));
        }
        progress.finish()
    });
    let found = executable(&mut child, "imager");
    let tail = watcher.join().unwrap_or_default();
    finish(&mut child, WHAT, tail)?;
    found.ok_or_else(|| Error::Build {
        what: WHAT,
        detail: "cargo names no executable".to_owned(),
    })
}

fn finish(child: &mut Child, what: &'static str, detail: String) -> Result<(), Error> {
    let status = child.wait().map_err(Error::io("waiting for cargo"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Build { what, detail })
    }
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<MessageTarget>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
}

/// Reads cargo's messages to the end, for the path of the executable `name`.
fn executable(child: &mut Child, name: &str) -> Option<PathBuf> {
    let mut found = None;
    each_line(child.stdout.take()?, |line| {
        if let Ok(message) = serde_json::from_str::<Message>(line)
            && message.target.is_some_and(|target| target.name == name)
            && message.executable.is_some()
        {
            found = message.executable;
        }
    });
    found
}

fn each_line(from: impl Read, mut line: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    // Not `lines()`: what is no UTF-8 must not end the reading, or the writer blocks.
    while from.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        line(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
}
