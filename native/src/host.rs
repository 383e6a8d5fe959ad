//! What the host may refuse.

/// What the host did not give.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A system call failed.
    #[error("{what}: {why}")]
    Call {
        /// What it was for.
        what: &'static str,
        /// The error.
        why: rustix::io::Errno,
    },
    /// More mappings are needed than the host allows a process.
    #[error(
        "needs {needed} mappings, but a process may have {allowed}: as root, `echo {needed} > {}`, or describe less memory",
        crate::limits::MAX_MAP_COUNT
    )]
    TooManyMappings {
        /// Mappings.
        needed: u64,
        /// What the file says.
        allowed: u64,
    },
}

impl HostError {
    /// Returns what makes an error of `what`, a call that failed, and of its reason.
    pub const fn of(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |why| Self::Call { what, why }
    }
}

/// Returns `bytes` as the size of something in this process.
pub fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a 64-bit process")
}
