//! The control files: a registry of paths, and what is behind them.
//!
//! A file is a path and what reading and writing it does; directories follow from the
//! paths. A part of a path in braces stands for any of a set of numbers, so that one item
//! is a file of every node or every page size:
//!
//! ```
//! use core::fmt::Write;
//! let mut files = shell::Files::new();
//! files.parameter("node", |each| (0..2).for_each(each));
//! files.read_only("/sys/devices/system/node/node{node}/cpulist", |at, out| {
//!     Ok(writeln!(out, "{}", at[0])?)
//! });
//! let names: Vec<_> = files.list("/sys/devices/system/node").unwrap();
//! assert_eq!(names[1].name, "node1");
//! ```

mod item;
mod number;
mod path;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::errno::Errno;
use item::Item;
use path::Part;

pub use number::{kstrtoul, sysctl_ulong};
pub use path::normalise;

/// Who may do what with a file: the bits that `ls -l` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "umode_t")]
pub enum Mode {
    /// 0444.
    ReadOnly,
    /// 0644.
    ReadWrite,
    /// 0200.
    WriteOnly,
}

impl Mode {
    /// Whether it can be read.
    #[must_use]
    pub const fn reads(self) -> bool {
        !matches!(self, Self::WriteOnly)
    }

    /// Whether it can be written.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::ReadOnly)
    }
}

/// One control file, or one for each value of the parameters in its path.
///
/// `at` is the values of the parameters, in the order of the path.
pub trait ControlFile {
    /// The path, from the root; a parameter is its name in braces, at most one between two
    /// slashes.
    fn path(&self) -> &str;

    /// What can be done with it.
    fn mode(&self) -> Mode;

    /// Writes what is in it now to `out`.
    ///
    /// # Errors
    /// What `read` of this file returns on Linux.
    #[doc(alias = "seq_file")]
    fn read(&self, at: &[u64], out: &mut dyn fmt::Write) -> Result<(), Errno>;

    /// Takes the bytes of one `write`, with the line break that `echo` adds.
    ///
    /// # Errors
    /// What `write` to this file returns on Linux.
    fn write(&self, at: &[u64], text: &str) -> Result<(), Errno>;
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[doc(alias = "dirent")]
pub struct Entry {
    /// The name.
    pub name: String,
    /// How the file can be used; `None` if it is a directory.
    pub mode: Option<Mode>,
}

/// What a path leads to.
pub enum Node<'f> {
    /// A directory.
    Directory,
    /// A file.
    File(OpenFile<'f>),
}

/// A file, found.
pub struct OpenFile<'f> {
    file: &'f dyn ControlFile,
    at: Vec<u64>,
}

impl OpenFile<'_> {
    /// What can be done with it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.file.mode()
    }

    /// See [`ControlFile::read`].
    ///
    /// # Errors
    /// [`Errno::EACCES`] if it cannot be read, else what the file says.
    pub fn read(&self, out: &mut dyn fmt::Write) -> Result<(), Errno> {
        if !self.mode().reads() {
            return Err(Errno::EACCES);
        }
        self.file.read(&self.at, out)
    }

    /// See [`ControlFile::write`].
    ///
    /// # Errors
    /// [`Errno::EIO`] if it cannot be written, else what the file says.
    pub fn write(&self, text: &str) -> Result<(), Errno> {
        if !self.mode().writes() {
            return Err(Errno::EIO);
        }
        self.file.write(&self.at, text)
    }
}

/// Calls its argument with each value of a parameter.
type Values<'a> = Box<dyn Fn(&mut dyn FnMut(u64)) + 'a>;

struct Registered<'a> {
    parts: Vec<Part>,
    file: Box<dyn ControlFile + 'a>,
}

/// All control files.
pub struct Files<'a> {
    parameters: Vec<(&'static str, Values<'a>)>,
    files: Vec<Registered<'a>>,
}

impl<'a> Files<'a> {
    /// Only `/dev/null`.
    #[must_use]
    pub fn new() -> Self {
        let mut files = Self {
            parameters: Vec::new(),
            files: Vec::new(),
        };
        files.read_write("/dev/null", |_, _| Ok(()), |_, _| Ok(()));
        files
    }

    /// Says which values `{name}` in a path stands for: `values` calls its argument with
    /// each. To be called before files are added whose paths use it.
    pub fn parameter(&mut self, name: &'static str, values: impl Fn(&mut dyn FnMut(u64)) + 'a) {
        self.parameters.push((name, Box::new(values)));
    }

    /// Adds a file, or a family of files.
    ///
    /// # Panics
    /// If its path is not one: it does not start at the root, or names a parameter that
    /// nobody declared.
    pub fn add(&mut self, file: impl ControlFile + 'a) {
        let parts = path::parse(file.path(), |name| {
            self.parameters.iter().position(|&(known, _)| known == name)
        });
        let Some(parts) = parts else {
            panic!("files: {} is no path of known parameters", file.path());
        };
        let file = Box::new(file);
        self.files.push(Registered { parts, file });
    }

    /// Adds a file of mode 0444.
    ///
    /// # Panics
    /// As [`Files::add`].
    #[doc(alias = "DEVICE_ATTR_RO")]
    pub fn read_only(
        &mut self,
        path: &'static str,
        show: impl Fn(&[u64], &mut dyn fmt::Write) -> Result<(), Errno> + 'a,
    ) {
        let refuse = |_: &[u64], _: &str| Err(Errno::EIO);
        self.add(Item::new(path, Mode::ReadOnly, show, refuse));
    }

    /// Adds a file of mode 0644.
    ///
    /// # Panics
    /// As [`Files::add`].
    #[doc(alias = "DEVICE_ATTR_RW")]
    pub fn read_write(
        &mut self,
        path: &'static str,
        show: impl Fn(&[u64], &mut dyn fmt::Write) -> Result<(), Errno> + 'a,
        store: impl Fn(&[u64], &str) -> Result<(), Errno> + 'a,
    ) {
        self.add(Item::new(path, Mode::ReadWrite, show, store));
    }

    /// Adds a file of mode 0200.
    ///
    /// # Panics
    /// As [`Files::add`].
    #[doc(alias = "DEVICE_ATTR_WO")]
    pub fn write_only(
        &mut self,
        path: &'static str,
        store: impl Fn(&[u64], &str) -> Result<(), Errno> + 'a,
    ) {
        let refuse = |_: &[u64], _: &mut dyn fmt::Write| Err(Errno::EACCES);
        self.add(Item::new(path, Mode::WriteOnly, refuse, store));
    }

    /// Every file as registered, in that order.
    pub fn iter(&self) -> impl Iterator<Item = &dyn ControlFile> {
        self.files.iter().map(|registered| &*registered.file as _)
    }

    /// What is at `path`, which starts at the root.
    ///
    /// # Errors
    /// [`Errno::ENOENT`], or [`Errno::ENOTDIR`] if the path goes on behind a file.
    pub fn resolve(&self, path: &str) -> Result<Node<'_>, Errno> {
        let names: Vec<&str> = path::names(path).collect();
        let mut found = if names.is_empty() {
            Ok(Node::Directory)
        } else {
            Err(Errno::ENOENT)
        };
        for Registered { parts, file } in &self.files {
            let mut at = Vec::new();
            let same = (parts.iter().zip(&names))
                .take_while(|(part, name)| self.part_matches(part, name, &mut at))
                .count();
            let whole = same == parts.len();
            if whole && names.len() == same && !path.ends_with('/') {
                let file = &**file;
                return Ok(Node::File(OpenFile { file, at }));
            } else if whole {
                found = Err(Errno::ENOTDIR);
            } else if same == names.len() {
                found = Ok(Node::Directory);
            }
        }
        found
    }

    fn part_matches(&self, part: &Part, name: &str, at: &mut Vec<u64>) -> bool {
        match part {
            Part::Name(own) => own == name,
            Part::Numbered {
                prefix,
                suffix,
                parameter,
            } => {
                let number = path::number_in(name, prefix, suffix);
                let mut found = false;
                (self.parameters[*parameter].1)(&mut |value| found |= Some(value) == number);
                at.extend(number.filter(|_| found));
                found
            }
        }
    }

    /// The names in the directory at `path`, in order.
    ///
    /// # Errors
    /// [`Errno::ENOENT`], or [`Errno::ENOTDIR`] if it is a file.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, Errno> {
        if let Node::File(_) = self.resolve(path)? {
            return Err(Errno::ENOTDIR);
        }
        let names: Vec<&str> = path::names(path).collect();
        let mut entries: BTreeMap<String, Option<Mode>> = BTreeMap::new();
        for Registered { parts, file } in &self.files {
            let Some((part, below)) = parts.get(names.len()..).and_then(<[Part]>::split_first)
            else {
                continue;
            };
            let mut at = Vec::new();
            let mut above = parts.iter().zip(&names);
            if !above.all(|(part, name)| self.part_matches(part, name, &mut at)) {
                continue;
            }
            let mode = below.is_empty().then(|| file.mode());
            match part {
                Part::Name(name) => {
                    entries.insert(name.to_owned(), mode);
                }
                Part::Numbered {
                    prefix,
                    suffix,
                    parameter,
                } => (self.parameters[*parameter].1)(&mut |value| {
                    entries.insert(alloc::format!("{prefix}{value}{suffix}"), mode);
                }),
            }
        }
        let entries = entries.into_iter();
        Ok(entries.map(|(name, mode)| Entry { name, mode }).collect())
    }

    /// Opens the file at `path` for writing.
    ///
    /// # Errors
    /// [`Errno::EISDIR`]; [`Errno::EACCES`] if it cannot be written, or if there is no such
    /// file, because none can be made; [`Errno::ENOENT`] if there is not even the directory.
    pub fn open_for_writing(&self, path: &str) -> Result<OpenFile<'_>, Errno> {
        match self.resolve(path) {
            Ok(Node::Directory) => Err(Errno::EISDIR),
            // Root may open any file of /proc; writing it is what fails. Those of sysctl
            // and sysfs check their mode whoever asks.
            Ok(Node::File(file)) if file.mode().writes() || opens_anyhow(path) => Ok(file),
            Ok(Node::File(_)) => Err(Errno::EACCES),
            Err(Errno::ENOENT) => {
                let (directory, _) = path.rsplit_once('/').unwrap_or(("", path));
                match self.resolve(directory) {
                    Ok(Node::Directory) => Err(Errno::EACCES),
                    Ok(Node::File(_)) => Err(Errno::ENOTDIR),
                    Err(e) => Err(e),
                }
            }
            Err(e) => Err(e),
        }
    }
}

fn opens_anyhow(path: &str) -> bool {
    path.starts_with("/proc/") && !path.starts_with("/proc/sys/")
}

impl Default for Files<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.files.iter().map(|registered| registered.file.path()))
            .finish()
    }
}

impl fmt::Debug for OpenFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenFile")
            .field(&self.file.path())
            .field(&self.at)
            .finish()
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("Directory"),
            Self::File(file) => file.fmt(f),
        }
    }
}
