//! Putting a machine together.

use std::sync::{Arc, Mutex};

use mm::addr::{Order, PAGE_SIZE, PUD_SIZE, Pfn, VirtAddr};
use mm::page::{Memmap, STRUCT_PAGE_SIZE};

use super::{Cpu, FailPlans, Machine, Mapped, Shared};
use crate::fault;
use crate::host::HostError;
use crate::ram::Ram;
use crate::window::Window;

/// What one entry of the top-level table covers, and the size of the scratch window.
const SCRATCH: u64 = PUD_SIZE * 512;

/// Where memory maps other than the kernel's own are: in the half of the address space that a
/// process has not got. They are elsewhere.
const KERNEL: VirtAddr = Memmap::OTHER_MAPS;
const KERNEL_BYTES: u64 = 4 << 40;

/// How a [`Machine`] is put together. See [`Machine::builder`].
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    ram: u64,
    cpus: usize,
    echo: bool,
}

impl Builder {
    pub(super) const fn new() -> Self {
        Self {
            ram: 1 << 30,
            cpus: 1,
            echo: false,
        }
    }

    /// Physical addresses end here, 1 GiB if not said. The host gives memory for what is
    /// touched.
    #[must_use]
    pub const fn ram(mut self, bytes: u64) -> Self {
        self.ram = bytes;
        self
    }

    /// Number of CPUs, 1 if not said. Each is a thread when it does something.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        assert!(cpus > 0, "a machine needs a CPU");
        self.cpus = cpus;
        self
    }

    /// Whether the kernel log goes to standard error as it is written.
    #[must_use]
    pub const fn echo(mut self, yes: bool) -> Self {
        self.echo = yes;
        self
    }

    /// Switches it on. Frame 0 is its top-level page table, empty.
    ///
    /// # Errors
    /// [`HostError`] if the host does not give memory or address space.
    pub fn build(self) -> Result<Machine, HostError> {
        let frames = self.ram.div_ceil(PAGE_SIZE);
        let largest = (Order::MAX.pages() * STRUCT_PAGE_SIZE).next_power_of_two();
        let memmap = (frames * STRUCT_PAGE_SIZE).next_multiple_of(largest);
        let shared = Arc::new(Shared {
            ram: Ram::new(frames * PAGE_SIZE)?,
            root: Pfn::new(0),
            vmemmap: Mapped::new(Window::reserve(memmap, largest)?),
            scratch: Mapped::new(Window::reserve(SCRATCH, SCRATCH)?),
            kernel: Mapped::new(Window::elsewhere(KERNEL.range(KERNEL_BYTES), SCRATCH)?),
            cpus: (0..self.cpus).map(|_| Cpu::new()).collect(),
            failures: FailPlans::default(),
            lines: Mutex::default(),
            echo: self.echo,
        });
        fault::register(&shared);
        Ok(Machine(shared))
    }
}
