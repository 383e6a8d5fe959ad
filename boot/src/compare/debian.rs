//! Debian's kernel and busybox, fetched by apt, which checks their hashes. Nothing is
//! installed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use wait_timeout::ChildExt;

use crate::error::Error;
use crate::workspace::Workspace;

/// The package that names the newest kernel of the distribution.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// The package with a shell and commands in one file without libraries.
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Longest time for a question to apt, or to unpack a package.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// Longest time for a download.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Packages that may stand between [`KERNEL_PACKAGE`] and the one with the kernel.
const LONGEST_CHAIN: usize = 4;

/// What Linux is booted from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The kernel, as its boot protocol wants it.
    pub kernel: PathBuf,
    /// The statically linked busybox.
    pub busybox: PathBuf,
    /// The kernel's package and its version.
    pub package: Package,
}

/// A package in one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
}

impl Package {
    /// Major and minor version, such as 6 and 1.
    #[must_use]
    pub fn linux_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// Looks up the newest kernel (of `kernel_package`, if given) and busybox, and fetches
/// and unpacks those versions below `target/`, unless they are there.
///
/// # Errors
/// [`Error::NoLinux`] if Debian's packages cannot be had, whatever the reason;
/// [`Error::Io`] for `target/`.
pub fn fetch(workspace: &Workspace, kernel_package: Option<&str>) -> Result<Parts, Error> {
    let kernel = resolve(kernel_package.unwrap_or(KERNEL_PACKAGE), show)?;
    let busybox = resolve(BUSYBOX_PACKAGE, show)?;
    Ok(Parts {
        kernel: unpacked(workspace, &kernel, "vmlinuz-*")?,
        busybox: unpacked(workspace, &busybox, "busybox")?,
        package: kernel,
    })
}

/// What apt knows of the newest version of a package.
fn show(name: &str) -> Result<String, Error> {
    let mut command = Command::new("apt-cache");
    run(command.args(["show", "--no-all-versions", name]), ASK_LIMIT)
}

/// The package itself, or the `linux-image-` package that it stands for, by what `show`
/// says of packages.
fn resolve(name: &str, show: impl Fn(&str) -> Result<String, Error>) -> Result<Package, Error> {
    let mut name = name.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let (version, behind) = parse_record(&show(&name)?);
        match (behind, version) {
            (Some(behind), _) => name = behind,
            (None, Some(version)) => return Ok(Package { name, version }),
            (None, None) => break,
        }
    }
    Err(no_linux(format!("apt knows no usable package {name}")))
}

/// The version in a record of `apt-cache show`, and the kernel's own package if the
/// record is of one that only names it.
fn parse_record(record: &str) -> (Option<String>, Option<String>) {
    let field = |name: &str| {
        record
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let is_kernel = |name: &&str| name.starts_with("linux-image-");
    let behind = field("Depends")
        .into_iter()
        .flat_map(|depends| depends.split([',', '|']))
        .filter_map(|dependency| dependency.split_whitespace().next())
        .find(is_kernel);
    (
        field("Version").map(str::to_owned),
        behind.map(str::to_owned),
    )
}

/// The one file of `package` that `pattern` names, in a directory of that version.
fn unpacked(workspace: &Workspace, package: &Package, pattern: &str) -> Result<PathBuf, Error> {
    let Package { name, version } = package;
    // A version may have characters that a file name had better not.
    let directory = format!("linux/{name}_{}", version.replace([':', '/', '~'], "_"));
    let directory = workspace.target_dir(&directory)?;
    let marker = directory.join("file");
    if let Ok(path) = std::fs::read_to_string(&marker).map(|name| directory.join(name))
        && path.is_file()
    {
        return Ok(path);
    }
    eprintln!("fetching {name} {version}");
    run(
        Command::new("apt-get")
            .args(["download", &format!("{name}={version}")])
            .current_dir(&directory),
        DOWNLOAD_LIMIT,
    )?;
    let archive = the_file(&directory, &|name| name.ends_with(".deb"))
        .ok_or_else(|| no_linux(format!("apt-get download {name} left no .deb")))?;
    // The kernel's modules, which are most of the package, stay packed.
    run(
        Command::new("sh")
            .args([
                "-c",
                "dpkg-deb --fsys-tarfile \"$0\" | tar -x --transform='s,.*/,,' --wildcards \"*/$1\"",
            ])
            .arg(&archive)
            .arg(format!("bin/{pattern}").replace("bin/vmlinuz", "boot/vmlinuz"))
            .current_dir(&directory),
        ASK_LIMIT,
    )?;
    let stem = pattern.trim_end_matches('*');
    let file = the_file(&directory, &|name| {
        name.starts_with(stem) && !name.ends_with(".deb")
    })
    .ok_or_else(|| no_linux(format!("{name} has no {pattern}")))?;
    let doing = |path: &Path| Error::io(format!("writing {}", path.display()));
    std::fs::remove_file(&archive).map_err(doing(&archive))?;
    let file_name = file.file_name().unwrap_or_default().as_encoded_bytes();
    std::fs::write(&marker, file_name).map_err(doing(&marker))?;
    Ok(file)
}

/// The file in `directory` whose name `wanted` likes.
fn the_file(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_str().is_some_and(wanted))
        .map(|entry| entry.path())
}

/// What `command` writes to stdout, if it ends well within `limit`.
fn run(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let shown = words.join(" ");
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| no_linux(format!("{shown}: {why}")))?;
    let outputs = [
        child.stdout.take().map(|from| thread::spawn(|| text(from))),
        child.stderr.take().map(|from| thread::spawn(|| text(from))),
    ];
    let status = child
        .wait_timeout(limit)
        .map_err(Error::io(format!("waiting for {shown}")))?;
    if status.is_none() {
        // It may just have ended by itself; either way it is gone after this.
        let _ = child.kill();
        let _ = child.wait();
        let seconds = limit.as_secs();
        return Err(no_linux(format!("{shown} took more than {seconds} s")));
    }
    let [output, errors] =
        outputs.map(|reader| reader.and_then(|r| r.join().ok()).unwrap_or_default());
    if status.is_some_and(|status| status.success()) {
        return Ok(output);
    }
    let why = errors.lines().find(|line| line.starts_with("E:"));
    let why = why.or_else(|| errors.lines().last());
    Err(no_linux(format!("{shown}: {}", why.unwrap_or("failed"))))
}

fn text(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read is what there is to show.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn no_linux(reason: String) -> Error {
    Error::NoLinux { reason }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Package, parse_record, resolve, run};

    #[test]
    fn a_package_may_stand_for_another() {
        let meta = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-base (>= 4), linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let (_, behind) = parse_record(meta);
        assert_eq!(behind.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        let real = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool\n";
        assert_eq!(parse_record(real), (Some("6.1.192-2".to_owned()), None));
        assert_eq!(parse_record(""), (None, None));
    }

    #[test]
    fn a_chain_of_packages_has_an_end() {
        let show = |name: &str| {
            Ok(match name {
                "a" => "Version: 9\nDepends: x, linux-image-b (= 8)\n",
                "linux-image-b" => "Version: 8\nDepends: kmod\n",
                "linux-image-loop" => "Version: 7\nDepends: linux-image-loop\n",
                _ => "",
            }
            .to_owned())
        };
        let package = resolve("a", show).unwrap();
        assert_eq!((&*package.name, &*package.version), ("linux-image-b", "8"));
        for name in ["linux-image-loop", "unknown"] {
            let why = resolve(name, show).unwrap_err().to_string();
            assert!(why.ends_with(&format!("no usable package {name}")), "{why}");
        }
    }

    #[test]
    fn versions_begin_with_two_numbers() {
        let version = |text: &str| {
            let (name, version) = (String::new(), text.to_owned());
            Package { name, version }.linux_version()
        };
        assert_eq!(version("6.1.192-2"), Some((6, 1)));
        assert_eq!(version("6.12.117-1~deb12u1"), Some((6, 12)));
        assert_eq!(version("new"), None);
    }

    #[test]
    fn what_cannot_be_had_is_said_in_time() {
        let limit = Duration::from_millis(200);
        let why = |command: &mut Command| run(command, limit).unwrap_err().to_string();
        assert!(why(&mut Command::new("no-such-program")).contains("no-such-program"));
        assert!(why(Command::new("sleep").arg("60")).contains("took more than"));
        let apt = "echo W: warned >&2; echo E: nowhere to be found >&2; exit 100";
        assert!(why(Command::new("sh").args(["-c", apt])).contains("nowhere to be found"));
    }
}
