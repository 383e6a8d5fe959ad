//! What can go wrong with a file, by Linux's names.

use core::fmt;

/// An error of a file operation. Its text is what `strerror` of glibc says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[doc(alias = "errno")]
pub enum Errno {
    /// Operation not permitted.
    #[error("Operation not permitted")]
    EPERM,
    /// No such file or directory.
    #[error("No such file or directory")]
    ENOENT,
    /// Interrupted: output takes no more, because of Ctrl-C or because a pipe is full.
    #[error("Interrupted system call")]
    EINTR,
    /// There is no such memory.
    #[error("No such device or address")]
    ENXIO,
    /// What Linux says of a write to a file of `/proc` that takes none.
    #[error("Input/output error")]
    EIO,
    /// Not now.
    #[error("Resource temporarily unavailable")]
    EAGAIN,
    /// No memory for it.
    #[error("Cannot allocate memory")]
    ENOMEM,
    /// The file is not to be read, or not to be written; or files cannot be made there.
    #[error("Permission denied")]
    EACCES,
    /// Somebody else uses it.
    #[error("Device or resource busy")]
    EBUSY,
    /// A part of the path is a file.
    #[error("Not a directory")]
    ENOTDIR,
    /// A directory where a file is needed.
    #[error("Is a directory")]
    EISDIR,
    /// The value is none that the file takes.
    #[error("Invalid argument")]
    EINVAL,
    /// A pipe took no more.
    #[error("No space left on device")]
    ENOSPC,
    /// The number does not fit.
    #[error("Numerical result out of range")]
    ERANGE,
    /// The machine cannot do it.
    #[error("Operation not supported")]
    EOPNOTSUPP,
    /// The frame is known to be broken.
    #[error("Memory page has hardware error")]
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

/// Output fails only when it is to end, so that `?` works on `write!` in a file.
impl From<fmt::Error> for Errno {
    fn from(_: fmt::Error) -> Self {
        Self::EINTR
    }
}
