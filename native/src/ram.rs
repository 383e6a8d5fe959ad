//! RAM: a memfd, mapped once as a whole, which is the direct map.
#![expect(unsafe_code, reason = "maps a file")]

use std::os::fd::OwnedFd;
use std::ptr;

use mm::addr::PhysAddr;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

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
    pub(crate) const fn of(what: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |why| Self::Call { what, why }
    }
}

/// `bytes` as the size of something in this process.
pub(crate) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a 64-bit process")
}

/// The memory of the machine.
#[derive(Debug)]
pub(crate) struct Ram {
    fd: OwnedFd,
    base: u64,
    bytes: u64,
}

impl Ram {
    /// `bytes` of RAM. The host gives frames when they are first touched, 512 at once if
    /// `huge` and it can.
    pub(crate) fn new(bytes: u64, huge: bool) -> Result<Self, HostError> {
        let fd = memfd_create(c"tailfold", MemfdFlags::CLOEXEC)
            .map_err(HostError::of("memfd_create for RAM"))?;
        ftruncate(&fd, bytes).map_err(HostError::of("ftruncate of RAM"))?;
        // SAFETY: a new mapping at an address that the host chooses.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                size(bytes),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )
        };
        let base = base.map_err(HostError::of("mmap of RAM"))?.addr() as u64;
        if huge {
            let at = ptr::with_exposed_provenance_mut(size(base));
            // SAFETY: our own new mapping, whose content the advice does not change. A host
            // without huge pages refuses, and does without.
            let _ = unsafe { madvise(at, size(bytes), Advice::LinuxHugepage) };
        }
        Ok(Self { fd, base, bytes })
    }

    pub(crate) const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Where `len` bytes from `at` on are in the direct map.
    ///
    /// # Panics
    /// If they are no RAM: the host's memory behind it is ours, too.
    #[inline]
    #[doc(alias = "phys_to_virt")]
    pub(crate) fn direct(&self, at: PhysAddr, len: u64) -> u64 {
        assert!(
            at.as_u64() + len <= self.bytes,
            "{at:?} is not RAM, which ends at {:#x}",
            self.bytes
        );
        self.base + at.as_u64()
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing uses it any more.
        let unmapped = unsafe {
            munmap(
                ptr::with_exposed_provenance_mut(size(self.base)),
                size(self.bytes),
            )
        };
        debug_assert!(unmapped.is_ok());
    }
}
