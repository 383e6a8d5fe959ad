//! What can go wrong, each with a status of its own.

use std::path::PathBuf;
use std::time::Duration;

use crate::size::Size;

/// Why a command did not do what it was asked to. [`Error::status`] is what the
/// program ends with; `--help` lists them ([`STATUSES`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In-kernel cases failed.
    #[error("{failed} of {total} self-tests failed: {}", names.join(", "))]
    TestsFailed {
        /// Number of cases that failed.
        failed: usize,
        /// Number of cases.
        total: usize,
        /// Their names, `suite:case`.
        names: Vec<String>,
    },
    /// A soak did not end as it began.
    #[error("the soak failed: {reason}")]
    SoakFailed {
        /// What the kernel found, or what it did not say.
        reason: String,
    },
    /// Two kernels do different things, and nobody says why.
    #[error("{} lines differ without a reason; it goes with the line in the script", lines.len())]
    Unlike {
        /// Script, line number, line, and how it differs.
        lines: Vec<String>,
    },
    /// There is no Linux to compare with.
    #[error("skipped: no Linux to compare with: {reason}")]
    NoLinux {
        /// Why Debian's packages cannot be had.
        reason: String,
    },
    /// A guest has come to no prompt.
    #[error("{name} has come to no prompt: {why}{}", said(last))]
    NoShell {
        /// Whose shell.
        name: &'static str,
        /// Why.
        why: String,
        /// Its last words.
        last: String,
    },
    /// The kernel panicked.
    #[error("the kernel stopped: {reason}")]
    Panicked {
        /// What follows `Bail out!`.
        reason: String,
    },
    /// The kernel ended before it had written all that its plan promised, or what
    /// it wrote contradicts itself.
    #[error("the kernel ended without a complete KTAP plan: {}", problems.join("; "))]
    IncompletePlan {
        /// What is missing or contradictory.
        problems: Vec<String>,
    },
    /// The guest took too long.
    #[error("no verdict after {} s; the kernel's last words: {last}", limit.as_secs())]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// Last line on serial.
        last: String,
    },
    /// Our kernel never said a word.
    #[error(
        "the image does not boot: not a word from the kernel in {} s{}",
        waited.as_secs_f32().ceil(),
        firmware.as_ref().map(|said| format!("; the firmware said: {said}")).unwrap_or_default()
    )]
    DoesNotBoot {
        /// How long it had.
        waited: Duration,
        /// Last line of the firmware on serial.
        firmware: Option<String>,
    },
    /// The guest talks without end.
    #[error("the guest wrote more than {0} to its serial port")]
    TooMuchOutput(Size),
    /// There is no QEMU.
    #[error(
        "cannot start {program}: {reason}; install the package qemu-system-x86 (scripts/setup.sh does)"
    )]
    NoQemu {
        /// Program that was looked for.
        program: String,
        /// Why it cannot run.
        reason: std::io::Error,
    },
    /// Bochs does not start, or its screen.
    #[error(
        "cannot start {program}: {reason}; install the packages bochs, bochs-x, bochsbios, vgabios \
         and xvfb (scripts/setup.sh does)"
    )]
    NoBochs {
        /// Program that was looked for.
        program: &'static str,
        /// Why it cannot run.
        reason: std::io::Error,
    },
    /// There is no UEFI firmware.
    #[error(
        "no UEFI firmware at {}; install the package ovmf (scripts/setup.sh does), \
         or name the files in TAILFOLD_OVMF_CODE and TAILFOLD_OVMF_VARS",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoFirmware {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// QEMU itself failed, or the guest was reset.
    #[error(
        "QEMU ended with {status} and not with the kernel's verdict{}",
        said(stderr)
    )]
    Qemu {
        /// How it ended.
        status: String,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// Building failed.
    #[error("building {what} failed{}", said(detail))]
    Build {
        /// What was built.
        what: &'static str,
        /// Last lines of the output that were not shown yet.
        detail: String,
    },
    /// A device is refused.
    #[error("{device}: {reason}")]
    Refused {
        /// The device, as given.
        device: String,
        /// Why, and what would be right.
        reason: String,
    },
    /// What was read back differs from what was written.
    #[error(
        "{device}: byte {offset} reads back differently: the device does not keep what is written to it"
    )]
    Differs {
        /// The device.
        device: String,
        /// First byte that differs.
        offset: u64,
    },
    /// An option has no meaning here.
    #[error("{0}")]
    Usage(String),
    /// The system refuses something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the file's name.
        doing: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Exit statuses and their meaning, for `--help`.
pub const STATUSES: &str = "\
Exit status:
   0  all is well; for `test`: every self-test passed and the plan is complete
   1  the system refused something (files, permissions)
   2  the command line makes no sense
   3  self-tests failed, or the soak did
   4  the kernel panicked
   5  the kernel ended without a complete KTAP plan, or a benchmark without its figures
   6  time-out, or output without end
   7  the image does not boot: not a word from the kernel
   8  QEMU is missing
   9  the UEFI firmware is missing
  10  QEMU failed, or the guest was reset
  11  building the kernel or the boot loader failed
  12  the device was refused, or does not keep what is written to it
  13  compare-linux: a line does something else on Linux, and no reason is given
  14  compare-linux, bench-linux: skipped, since Debian's packages cannot be had
  15  compare-linux, bench-linux: a guest has come to no prompt";

impl Error {
    /// The program's exit status, as [`STATUSES`] lists.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Io { .. } => 1,
            Self::Usage(_) => 2,
            Self::TestsFailed { .. } | Self::SoakFailed { .. } => 3,
            Self::Panicked { .. } => 4,
            Self::IncompletePlan { .. } => 5,
            Self::TimedOut { .. } | Self::TooMuchOutput(_) => 6,
            Self::DoesNotBoot { .. } => 7,
            Self::NoQemu { .. } | Self::NoBochs { .. } => 8,
            Self::NoFirmware { .. } => 9,
            Self::Qemu { .. } => 10,
            Self::Build { .. } => 11,
            Self::Refused { .. } | Self::Differs { .. } => 12,
            Self::Unlike { .. } => 13,
            Self::NoLinux { .. } => 14,
            Self::NoShell { .. } => 15,
        }
    }

    /// For `map_err`: what was being done, with the file's name.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

fn said(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
