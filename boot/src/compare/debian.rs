//! Debian's kernels and busybox, fetched by apt, which checks signatures and hashes. Nothing
//! is installed.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use wait_timeout::ChildExt;

use crate::error::Error;
use crate::workspace::Workspace;

/// The package that names the newest kernel of a suite.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// The suite whose kernel is the one to compare with: Debian 13's newest.
const BACKPORTS: &str = "trixie-backports";

/// Keys of all Debian archives, in the names that Debian has given the file.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// The package with a shell and commands in one file without libraries.
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Longest time for a question to apt, or to unpack a package.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// Longest time for a download.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// How long lists of packages are good for.
const LISTS_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Packages that may stand between [`KERNEL_PACKAGE`] and the one with the kernel.
const LONGEST_CHAIN: usize = 5;

/// Which Linux.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Source {
    /// The newest of Debian 13's backports, whatever Debian the host has.
    #[default]
    Backports,
    /// The newest of the host's own Debian.
    Host,
    /// A package that the host's apt knows.
    Package(String),
    /// A kernel that is there.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_package =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        match text {
            "backports" => Ok(Self::Backports),
            "host" => Ok(Self::Host),
            _ if text.contains('/') => Ok(Self::File(text.into())),
            _ if text.starts_with("linux-") && text.chars().all(is_package) => {
                Ok(Self::Package(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is none of backports, host, a package such as {KERNEL_PACKAGE}, and a kernel's file with a / in its path"
            )),
        }
    }
}

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

/// Looks up the kernel that `source` says and busybox, and fetches and unpacks those
/// versions below `target/`, unless they are there.
///
/// # Errors
/// [`Error::NoLinux`] if Debian's packages cannot be had, whatever the reason;
/// [`Error::Usage`] for a file that is no kernel; [`Error::Io`] for `target/`.
pub fn fetch(workspace: &Workspace, source: &Source) -> Result<Parts, Error> {
    let host = Apt::default();
    let (apt, name) = match source {
        Source::Backports => (Apt::backports(workspace)?, KERNEL_PACKAGE),
        Source::Host => (Apt::default(), KERNEL_PACKAGE),
        Source::Package(name) => (Apt::default(), &**name),
        Source::File(file) => {
            return Ok(Parts {
                package: file_version(file)?,
                kernel: file.clone(),
                busybox: host.busybox(workspace)?,
            });
        }
    };
    let package = resolve(name, |name| apt.show(name))?;
    Ok(Parts {
        kernel: apt.unpacked(workspace, &package, "vmlinuz*")?,
        busybox: host.busybox(workspace)?,
        package,
    })
}

/// A kernel's version, as its image says it
/// (Linux's Documentation/arch/x86/boot.rst, `kernel_version`).
fn file_version(file: &Path) -> Result<Package, Error> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(Error::io(format!("reading {shown}")))?;
    let version = image_version(&bytes).ok_or_else(|| {
        Error::Usage(format!(
            "--linux {shown}: this is no kernel of Linux for x86; give a vmlinuz or a bzImage"
        ))
    })?;
    let name = file.file_name().unwrap_or_default();
    Ok(Package {
        name: name.to_string_lossy().into_owned(),
        version,
    })
}

fn image_version(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let start = u16::from_le_bytes(bytes.get(0x20e..0x210)?.try_into().ok()?);
    let text = bytes.get(usize::from(start) + 0x200..)?;
    let text = text.split(|byte| *byte == 0 || *byte == b' ').next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// apt, with the host's lists of packages or with lists of its own.
#[derive(Debug, Default)]
struct Apt {
    /// Settings on top of the host's.
    settings: Option<PathBuf>,
}

impl Apt {
    /// apt with lists of Debian 13's backports and of nothing else, at the host's mirror. They
    /// are renewed once they are old.
    fn backports(workspace: &Workspace) -> Result<Self, Error> {
        let host = Self::default();
        let targets = run(
            host.command("apt-get").args([
                "indextargets",
                "--format",
                "$(RELEASE) $(REPO_URI)",
                "Created-By: Packages",
                "Origin: Debian",
            ]),
            ASK_LIMIT,
        )?;
        let mirror = mirror(&targets).ok_or_else(|| {
            no_linux(
                "apt knows no mirror of Debian, so there is no Linux of its backports; \
                 name one in /etc/apt/sources.list and run apt-get update"
                    .to_owned(),
            )
        })?;
        let keyring = KEYRINGS.into_iter().find(|file| Path::new(file).exists());
        let keyring = keyring.ok_or_else(|| {
            no_linux("there is no keyring of Debian's; install debian-archive-keyring".to_owned())
        })?;
        let directory = workspace.target_dir("linux/backports")?;
        workspace.target_dir("linux/backports/lists/partial")?;
        let sources = format!("deb [arch=amd64 signed-by={keyring}] {mirror} {BACKPORTS} main\n");
        let settings = directory.join("apt.conf");
        let marker = directory.join("updated");
        // The lists are those of these very sources, and young.
        let age = std::fs::metadata(&marker)
            .ok()
            .filter(|_| std::fs::read_to_string(&marker).is_ok_and(|text| text == sources))
            .and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
        };
        write(&directory.join("sources.list"), &sources)?;
        write(&settings, &settings_of(&directory))?;
        let apt = Self {
            settings: Some(settings),
        };
        if age.is_some_and(|age| age < LISTS_LIFE) {
            return Ok(apt);
        }
        match run(
            apt.command("apt-get").args(["-q", "update"]),
            DOWNLOAD_LIMIT,
        ) {
            Ok(_) => write(&marker, &sources)?,
            Err(why) if age.is_some() => {
                eprintln!("the lists of Debian's {BACKPORTS} are old and stay so: {why}");
            }
            Err(Error::NoLinux { reason }) => {
                return Err(no_linux(format!(
                    "Debian's {BACKPORTS} at {mirror} cannot be had, checked with {keyring} \
                     (--linux host takes the kernel of this machine's own Debian): {reason}"
                )));
            }
            Err(other) => return Err(other),
        }
        Ok(apt)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(settings) = &self.settings {
            command.arg("-c").arg(settings);
        }
        command
    }

    /// What apt knows of the newest version of a package.
    fn show(&self, name: &str) -> Result<String, Error> {
        let mut command = self.command("apt-cache");
        run(command.args(["show", "--no-all-versions", name]), ASK_LIMIT)
    }

    fn busybox(&self, workspace: &Workspace) -> Result<PathBuf, Error> {
        let package = resolve(BUSYBOX_PACKAGE, |name| self.show(name))?;
        self.unpacked(workspace, &package, "busybox")
    }

    /// The one program of `package` that `pattern` names, in a directory of that version.
    fn unpacked(
        &self,
        workspace: &Workspace,
        package: &Package,
        pattern: &str,
    ) -> Result<PathBuf, Error> {
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
            self.command("apt-get")
                .args(["download", &format!("{name}={version}")])
                .current_dir(&directory),
            DOWNLOAD_LIMIT,
        )?;
        let archive = the_file(&directory, &|name| name.ends_with(".deb"))
            .ok_or_else(|| no_linux(format!("apt-get download {name} left no .deb")))?;
        // The kernel is boot/vmlinuz-VERSION up to Linux 6.18, and then
        // usr/lib/modules/VERSION/vmlinuz. Its modules, which are most of the older package,
        // stay packed, and so do directories of documentation with a program's name.
        run(
            Command::new("sh")
                .args([
                    "-c",
                    "dpkg-deb --fsys-tarfile \"$0\" | tar -x --transform='s,.*/,,' \
                     --exclude='*/share/*' --wildcards \"*/$1\"",
                ])
                .arg(&archive)
                .arg(pattern)
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
}

/// The mirror of Debian among lines of a suite and an address; not that of security updates,
/// which has no backports.
fn mirror(targets: &str) -> Option<&str> {
    let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
    lines.find_map(|(suite, address)| (!suite.contains("security")).then_some(address))
}

/// apt's settings for lists of its own in `directory`: the host's sources, lists and installed
/// packages are left out, and so is what the host does after it has renewed its lists.
/// What the host says of proxies stays.
fn settings_of(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "#clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         APT::Update::Error-Mode \"any\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Dir::Etc::sourcelist \"{directory}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State::lists \"{directory}/lists\";\n\
         Dir::State::status \"/dev/null\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n"
    )
}

/// The package itself, or the package with a kernel that it stands for, by what `show`
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
/// record is of one that only names it: `linux-image-` does up to Linux 6.18, from then on
/// `linux-binary-`, which the former depends on.
fn parse_record(record: &str) -> (Option<String>, Option<String>) {
    let field = |name: &str| {
        record
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let is_kernel =
        |name: &&str| name.starts_with("linux-image-") || name.starts_with("linux-binary-");
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

    use std::path::Path;

    use super::{Package, Source, image_version, mirror, parse_record, resolve, run, settings_of};

    #[test]
    fn a_linux_is_named_in_four_ways() {
        let source = |text: &str| text.parse::<Source>();
        assert_eq!(source("backports"), Ok(Source::default()));
        assert_eq!(source("host"), Ok(Source::Host));
        let package = "linux-image-6.12-cloud-amd64";
        assert_eq!(source(package), Ok(Source::Package(package.to_owned())));
        assert_eq!(source("./bzImage"), Ok(Source::File("./bzImage".into())));
        for text in ["", "newest", "linux-image=1", "vmlinuz", "--help"] {
            assert!(
                source(text).unwrap_err().contains("backports, host"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_image_says_its_version() {
        let mut image = vec![0; 0x300];
        assert_eq!(image_version(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x50u16.to_le_bytes());
        let text = b"7.3.4+deb13 (a@b) #1\0";
        image[0x250..0x250 + text.len()].copy_from_slice(text);
        assert_eq!(image_version(&image).as_deref(), Some("7.3.4+deb13"));
        assert_eq!(image_version(&image[..0x205]), None);
    }

    #[test]
    fn backports_come_from_the_hosts_mirror() {
        let targets = "bookworm-security http://one/debian-security/\n\
            bookworm http://two/debian/\nbookworm-updates http://three/debian/\n";
        assert_eq!(mirror(targets), Some("http://two/debian/"));
        assert_eq!(mirror(""), None);
        let settings = settings_of(Path::new("/tree"));
        assert!(settings.contains("Dir::State::lists \"/tree/lists\";\n"));
        for line in settings.lines() {
            assert!(line.ends_with(';') && !line.starts_with(' '), "{line}");
        }
    }

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
        let empty = "Package: linux-image-7.3.4+deb13-cloud-amd64\nVersion: 7.3.4-1~bpo13+1\n\
            Depends: dracut | initramfs-tools, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), \
            linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)\n";
        let (_, behind) = parse_record(empty);
        assert_eq!(
            behind.as_deref(),
            Some("linux-binary-7.3.4+deb13-cloud-amd64")
        );
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
        assert_eq!(version("7.3.4-1~bpo13+1"), Some((7, 3)));
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
