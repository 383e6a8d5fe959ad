//! RAM: a memfd, mapped once as a whole, which is the direct map.

use std::os::fd::{AsFd, OwnedFd};

use mm::addr::{PMD_SIZE, PhysAddr};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::host::HostError;
use crate::window::Window;

/// The memory of the machine.
#[derive(Debug)]
pub(crate) struct Ram {
    fd: OwnedFd,
    /// At a multiple of 2 MiB, so that the host can use pages of that size.
    direct: Window,
    bytes: u64,
}

impl Ram {
    /// `bytes` of RAM. The host gives frames when they are first touched.
    pub(crate) fn new(bytes: u64) -> Result<Self, HostError> {
        let fd = memfd_create(c"tailfold", MemfdFlags::CLOEXEC)
            .map_err(HostError::of("memfd_create for RAM"))?;
        ftruncate(&fd, bytes).map_err(HostError::of("ftruncate of RAM"))?;
        let direct = Window::reserve(bytes, PMD_SIZE)?;
        direct.map(direct.range().start.as_u64(), bytes, fd.as_fd(), 0, true)?;
        Ok(Self { fd, direct, bytes })
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
        self.direct.range().start.as_u64() + at.as_u64()
    }

    /// Has the host put each 2 MiB of the `bytes` from `at` on, which were all touched, on
    /// a page of that size.
    pub(crate) fn collapse(&self, at: PhysAddr, bytes: u64) -> Result<(), HostError> {
        self.direct.collapse(self.direct(at, bytes), bytes)
    }
}
