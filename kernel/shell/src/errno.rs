//! What can go wrong with a file, by Linux's names.

use core::fmt;

/// An error of a file operation. Its text is what `strerror` of glibc says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "errno")]
pub enum Errno {
    /// Operation not permitted.
    EPERM,
    /// No such file or directory.
    ENOENT,
    /// Interrupted: output takes no more, because of Ctrl-C or because a pipe is full.
    EINTR,
    /// There is no such memory.
    ENXIO,
    /// What Linux says of a write to a file of `/proc` that takes none.
    EIO,
    /// Not now.
    EAGAIN,
    /// No memory for it.
    ENOMEM,
    /// The file is not to be read, or not to be written; or files cannot be made there.
    EACCES,
    /// Somebody else uses it.
    EBUSY,
    /// A part of the path is a file.
    ENOTDIR,
    /// A directory where a file is needed.
    EISDIR,
    /// The value is none that the file takes.
    EINVAL,
    /// A pipe took no more.
    ENOSPC,
    /// The number does not fit.
    ERANGE,
    /// The machine cannot do it.
    EOPNOTSUPP,
    /// The frame is known to be broken.
    EHWPOISON,
}

impl Errno {
    /// Linux's number of it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::EPERM => 1,
            Self::ENOENT => 2,
            Self::EINTR => 4,
            Self::EIO => 5,
            Self::ENXIO => 6,
            Self::EAGAIN => 11,
            Self::ENOMEM => 12,
            Self::EACCES => 13,
            Self::EBUSY => 16,
            Self::ENOTDIR => 20,
            Self::EISDIR => 21,
            Self::EINVAL => 22,
            Self::ENOSPC => 28,
            Self::ERANGE => 34,
            Self::EOPNOTSUPP => 95,
            Self::EHWPOISON => 133,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EPERM => "Operation not permitted",
            Self::ENOENT => "No such file or directory",
            Self::EINTR => "Interrupted system call",
            Self::EIO => "Input/output error",
            Self::ENXIO => "No such device or address",
            Self::EAGAIN => "Resource temporarily unavailable",
            Self::ENOMEM => "Cannot allocate memory",
            Self::EACCES => "Permission denied",
            Self::EBUSY => "Device or resource busy",
            Self::ENOTDIR => "Not a directory",
            Self::EISDIR => "Is a directory",
            Self::EINVAL => "Invalid argument",
            Self::ENOSPC => "No space left on device",
            Self::ERANGE => "Numerical result out of range",
            Self::EOPNOTSUPP => "Operation not supported",
            Self::EHWPOISON => "Memory page has hardware error",
        })
    }
}

impl core::error::Error for Errno {}

/// Output fails only when it is to end, so that `?` works on `write!` in a file.
impl From<fmt::Error> for Errno {
    fn from(_: fmt::Error) -> Self {
        Self::EINTR
    }
}
