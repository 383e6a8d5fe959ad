//! Who executes the guest's instructions: the processor, or QEMU.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use wait_timeout::ChildExt;

use crate::error::Error;
use crate::payload::{End, boot_sector};
use crate::workspace::Workspace;

/// The program, if nobody names another.
pub const QEMU: &str = "qemu-system-x86_64";
/// The environment variable that names another.
pub const QEMU_VARIABLE: &str = "TAILFOLD_QEMU";

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// The QEMU to start: what [`use_qemu`] was given, else what the environment's `TAILFOLD_QEMU`
/// names, else the one in the path.
#[must_use]
pub fn qemu() -> &'static Path {
    CHOSEN.get_or_init(|| {
        let named = std::env::var_os(QEMU_VARIABLE).filter(|name| !name.is_empty());
        named.map_or_else(|| PathBuf::from(QEMU), PathBuf::from)
    })
}

/// Makes `program` what [`qemu`] returns, if it is given and this is the first call of either.
pub fn use_qemu(program: Option<&Path>) {
    if let Some(program) = program {
        let _ = CHOSEN.set(program.to_owned());
    }
}

/// How long the probe may take. `SeaBIOS` and the payload need less than a second.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// An accelerator of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// Software emulation.
    Tcg,
    /// Hardware virtualisation by Linux.
    Kvm,
}

impl Accelerator {
    /// QEMU's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }

    /// KVM if a guest boots with it, or else software emulation; and why. A
    /// `/dev/kvm` alone proves nothing: it may be there and run no ordinary guest.
    /// The answer is remembered until the host boots again.
    ///
    /// # Errors
    /// [`Error::NoQemu`], [`Error::Io`].
    pub fn choose(workspace: &Workspace) -> Result<(Self, String), Error> {
        let device = Path::new("/dev/kvm");
        if !device.exists() {
            return Ok((Self::Tcg, "there is no /dev/kvm".to_owned()));
        }
        let dir = workspace.target_dir("probe")?;
        let memory = dir.join("kvm");
        let boot_id =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        // Another program may come to another answer.
        let memory = match qemu().to_str() {
            Some(QEMU) => memory,
            _ => memory.with_extension("other"),
        };
        if memory.extension().is_some() {
            let _ = std::fs::remove_file(&memory);
        }
        if let Some(result) = std::fs::read_to_string(&memory)
            .ok()
            .filter(|_| !boot_id.is_empty())
            .and_then(|text| remembered(&text, &boot_id))
        {
            return Ok(result);
        }
        let result = match probe(&dir)? {
            None => (Self::Kvm, "a probe guest ran".to_owned()),
            Some(why) => (Self::Tcg, format!("/dev/kvm is there, but {why}")),
        };
        // Not remembering costs a second next time, and nothing else.
        let _ = std::fs::write(
            &memory,
            format!("{}\n{}\n{}\n", boot_id.trim(), result.0.name(), result.1),
        );
        Ok(result)
    }
}

fn remembered(text: &str, boot_id: &str) -> Option<(Accelerator, String)> {
    let mut lines = text.lines();
    if lines.next()? != boot_id.trim() {
        return None;
    }
    let accelerator = match lines.next()? {
        "kvm" => Accelerator::Kvm,
        "tcg" => Accelerator::Tcg,
        _ => return None,
    };
    Some((accelerator, lines.next()?.to_owned()))
}

/// Boots a guest with KVM; tells why that did not work, if it did not.
fn probe(dir: &Path) -> Result<Option<String>, Error> {
    let disk = dir.join("sector.img");
    std::fs::write(&disk, boot_sector("", End::Exit(0x10)))
        .map_err(Error::io(format!("writing {}", disk.display())))?;
    let mut drive = std::ffi::OsString::from("format=raw,snapshot=on,file=");
    drive.push(&disk);
    let mut child = Command::new(qemu())
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args([
            "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "64M",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-drive")
        .arg(drive)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(no_qemu)?;
    let status = child
        .wait_timeout(PROBE_LIMIT)
        .map_err(Error::io("waiting for the probe"))?;
    Ok(match status {
        Some(status) if status.code() == Some(33) => None,
        Some(status) => Some(format!("a probe guest ended with {status}")),
        None => {
            // It may just have ended by itself; either way it is gone after this.
            let _ = child.kill();
            let _ = child.wait();
            Some(format!(
                "a probe guest did nothing for {} s",
                PROBE_LIMIT.as_secs()
            ))
        }
    })
}

/// The error for a QEMU that does not start.
pub(crate) fn no_qemu(reason: std::io::Error) -> Error {
    Error::NoQemu {
        program: qemu().display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::{Accelerator, remembered};

    #[test]
    fn remembers_until_the_host_boots() {
        let text = "id-1\ntcg\nno luck\n";
        assert_eq!(
            remembered(text, "id-1\n"),
            Some((Accelerator::Tcg, "no luck".to_owned()))
        );
        assert_eq!(remembered(text, "id-2\n"), None);
        assert_eq!(remembered("id-1\nwhp\nx\n", "id-1"), None);
        assert_eq!(remembered("id-1\n", "id-1"), None);
    }
}
