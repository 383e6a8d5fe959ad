//! A range of the process's address space that is ours to map RAM in.
#![expect(unsafe_code, reason = "maps over what is mapped")]

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use mm::addr::{VirtAddr, VirtRange};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::host::{HostError, size};

/// How often the host is asked for a large page while it says that a frame is busy.
const COLLAPSE_TRIES: u32 = 100;

/// Address space that is kept from everybody else: without rights where no RAM is mapped.
#[derive(Debug)]
pub(crate) struct Window {
    /// As `mm` knows it.
    range: VirtRange,
    /// What to subtract from an address of `mm`'s for the process's: 0, but for the kernel's
    /// half, which a process has not got.
    bias: u64,
}

fn pointer(at: u64) -> *mut core::ffi::c_void {
    ptr::with_exposed_provenance_mut(size(at))
}

impl Window {
    /// `bytes` at a multiple of `align`, a power of two.
    pub(crate) fn reserve(bytes: u64, align: u64) -> Result<Self, HostError> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let all = bytes + align;
        // SAFETY: a new mapping at an address that the host chooses (N-1).
        let got = unsafe { mmap_anonymous(ptr::null_mut(), size(all), ProtFlags::empty(), flags) };
        let got = got
            .map_err(HostError::of("mmap to reserve address space"))?
            .addr() as u64;
        let start = got.next_multiple_of(align);
        for (from, to) in [(got, start), (start + bytes, got + all)] {
            if from < to {
                // SAFETY: the part of our own new mapping that is not wanted (N-1).
                let unmapped = unsafe { munmap(pointer(from), size(to - from)) };
                unmapped.map_err(HostError::of("munmap beside reserved address space"))?;
            }
        }
        let range = VirtAddr::new(start).range(bytes);
        Ok(Self { range, bias: 0 })
    }

    /// `range`, whose addresses are not the process's, somewhere else.
    pub(crate) fn elsewhere(range: VirtRange, align: u64) -> Result<Self, HostError> {
        let there = Self::reserve(range.bytes(), align)?;
        let bias = range
            .start
            .as_u64()
            .wrapping_sub(there.range.start.as_u64());
        // One window instead of the other: the mapping goes when this one does.
        std::mem::forget(there);
        Ok(Self { range, bias })
    }

    /// The process's address of `at`, an address of `mm`'s.
    #[inline]
    pub(crate) const fn host(&self, at: u64) -> u64 {
        at.wrapping_sub(self.bias)
    }

    /// The address of `mm`'s that is the process's `host`, if that is in this window.
    pub(crate) fn guest(&self, host: u64) -> Option<u64> {
        Some(host.wrapping_add(self.bias)).filter(|at| self.contains(*at))
    }

    pub(crate) const fn range(&self) -> VirtRange {
        self.range
    }

    pub(crate) fn contains(&self, at: u64) -> bool {
        (self.range.start.as_u64()..self.range.end.as_u64()).contains(&at)
    }

    fn check(&self, at: u64, bytes: u64) {
        let inside = self.contains(at) && bytes <= self.range.end.as_u64() - at;
        assert!(
            inside,
            "{at:#x} and {bytes} bytes are not in {:?}",
            self.range
        );
    }

    /// Maps `bytes` of `fd` from `offset` on at `at`, in place of what is there.
    pub(crate) fn map(
        &self,
        at: u64,
        bytes: u64,
        fd: BorrowedFd<'_>,
        offset: u64,
        writable: bool,
    ) -> Result<(), HostError> {
        self.check(at, bytes);
        let mut rights = ProtFlags::READ;
        rights.set(ProtFlags::WRITE, writable);
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: inside our own range, of which nobody holds a reference (INV-1).
        let mapped = unsafe {
            mmap(
                pointer(self.host(at)),
                size(bytes),
                rights,
                flags,
                fd.as_fd(),
                offset,
            )
        };
        mapped
            .map(|_| ())
            .map_err(HostError::of("mmap of RAM by a page table"))
    }

    /// Has the host put each 2 MiB of the `bytes` at `at`, which were all touched, on a page
    /// of that size, whatever it is set to do by itself.
    pub(crate) fn collapse(&self, at: u64, bytes: u64) -> Result<(), HostError> {
        self.check(at, bytes);
        let mut refused = Errno::AGAIN;
        for _ in 0..COLLAPSE_TRIES {
            // SAFETY: inside our own range; frames change places, not what is in them (N-1).
            let done =
                unsafe { libc::madvise(pointer(self.host(at)), size(bytes), libc::MADV_COLLAPSE) };
            if done == 0 {
                return Ok(());
            }
            let why = std::io::Error::last_os_error();
            refused = Errno::from_io_error(&why).unwrap_or(Errno::INVAL);
            if refused != Errno::AGAIN {
                break;
            }
        }
        Err(HostError::of("madvise(MADV_COLLAPSE) for pages of 2 MiB")(
            refused,
        ))
    }

    /// Takes all rights from `bytes` at `at`.
    pub(crate) fn hide(&self, at: u64, bytes: u64) -> Result<(), HostError> {
        self.check(at, bytes);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: as for `map` (N-1).
        let hidden = unsafe {
            mmap_anonymous(
                pointer(self.host(at)),
                size(bytes),
                ProtFlags::empty(),
                flags,
            )
        };
        hidden
            .map(|_| ())
            .map_err(HostError::of("mmap over what is no longer mapped"))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let bytes = self.range.bytes();
        // SAFETY: our own range, and nothing uses it any more (N-1).
        let unmapped =
            unsafe { munmap(pointer(self.host(self.range.start.as_u64())), size(bytes)) };
        debug_assert!(unmapped.is_ok());
    }
}
