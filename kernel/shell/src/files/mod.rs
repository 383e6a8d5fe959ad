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

mod file;
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

pub use file::{ControlFile, Entry, Mode, Node, OpenFile};
pub use number::{kstrtoul, sysctl_bool, sysctl_ulong};
pub use path::normalise;

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

    /// Opens the file at `path` for writing, as root does on Linux.
    ///
    /// # Errors
    /// [`Errno::EISDIR`]; [`Errno::EACCES`] if it cannot be written, or if it is not there and
    /// none can be made; what [`Files::resolve`] says for a path of `/proc`, and if there is
    /// not even the directory.
    pub fn open_for_writing(&self, path: &str) -> Result<OpenFile<'_>, Errno> {
        let is_proc = path.starts_with("/proc/");
        match self.resolve(path) {
            Ok(Node::Directory) => Err(Errno::EISDIR),
            // Root may open any file of /proc; writing it is what fails. Those of sysctl
            // and sysfs check their mode whoever asks.
            Ok(Node::File(file)) => {
                let anyhow = is_proc && !path.starts_with("/proc/sys/");
                let opens = anyhow || file.mode().writes();
                opens.then_some(file).ok_or(Errno::EACCES)
            }
            Err(Errno::ENOENT) if !is_proc => {
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
