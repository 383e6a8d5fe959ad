//! What a control file is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::errno::Errno;

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
    pub(super) file: &'f dyn ControlFile,
    pub(super) at: Vec<u64>,
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
