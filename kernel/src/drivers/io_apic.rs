//! I/O APICs, which turn devices' lines into interrupts (Intel 82093AA data sheet; Intel SDM
//! volume 3, 11.1). No device interrupts this kernel, so all their lines are masked: a level
//! line that firmware has left open would come again and again once interrupts are on.
#![expect(unsafe_code, reason = "reads and writes device registers")]

use core::ptr;

use mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use mm::machine::Memory as _;
use mm::paging::{self, Level, MapError, PteFlags};

use crate::arch::x86_64::layout;
use crate::metal::Metal;
use crate::warn;

/// Offsets of the register that selects, and of the one that is selected.
const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;

/// Version, and above it the number of the last line.
const VERSION: u32 = 0x01;
/// The first line's entry, two registers each, the lower half first.
const ENTRIES: u32 = 0x10;

const MASKED: u32 = 1 << 16;
const DELIVERY: u32 = 7 << 8;
/// A system management interrupt: firmware's own business.
const SMI: u32 = 2 << 8;

const PAGE: usize = 4096;

/// One of them, mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoApic(usize);

impl IoApic {
    /// Maps the registers of the `n`th I/O APIC, at physical address `at`.
    ///
    /// # Errors
    /// [`MapError`].
    fn map(n: usize, at: u32, frame: &mut dyn FnMut() -> Option<Pfn>) -> Result<Self, MapError> {
        let page = Self::page(n) as u64;
        let flags = PteFlags::KERNEL | PteFlags::NO_CACHE | PteFlags::WRITE_THROUGH;
        let pfn = Pfn::new(u64::from(at) / PAGE_SIZE);
        let mapped = paging::map(
            &Metal,
            Metal.root(),
            VirtAddr::new(page),
            pfn,
            Level::Pte,
            flags,
            &mut || frame(),
        );
        mapped.map(|()| Self::at(n, at))
    }

    /// The `n`th, which [`mask_all`] has mapped, at physical address `at`.
    pub(crate) fn at(n: usize, at: u32) -> Self {
        Self(Self::page(n) + at as usize % PAGE)
    }

    const fn page(n: usize) -> usize {
        layout::IO_APICS + n * PAGE
    }

    pub(crate) fn read(self, register: u32) -> u32 {
        let select = ptr::with_exposed_provenance_mut::<u32>(self.0 + SELECT);
        // SAFETY: the page is the device's, mapped uncached by `map`; no memory changes, and
        // only the boot CPU comes here (H-4).
        unsafe { select.write_volatile(register) };
        let window = ptr::with_exposed_provenance::<u32>(self.0 + WINDOW);
        // SAFETY: as above (H-4).
        unsafe { window.read_volatile() }
    }

    pub(crate) fn write(self, register: u32, value: u32) {
        let select = ptr::with_exposed_provenance_mut::<u32>(self.0 + SELECT);
        // SAFETY: as in `read` (H-4).
        unsafe { select.write_volatile(register) };
        let window = ptr::with_exposed_provenance_mut::<u32>(self.0 + WINDOW);
        // SAFETY: as in `read`; what a line then sends has a handler, as all vectors do (H-4).
        unsafe { window.write_volatile(value) };
    }

    /// Registers with the lower half of each line's entry; none where no device answers.
    pub(crate) fn lines(self) -> impl Iterator<Item = u32> {
        let version = self.read(VERSION);
        let count = match version {
            u32::MAX => 0,
            _ => (version >> 16 & 0xff) + 1,
        };
        (0..count).map(|line| ENTRIES + 2 * line)
    }

    /// Masks all lines but those that interrupt firmware.
    #[doc(alias = "clear_IO_APIC")]
    pub(crate) fn mask(self) {
        for register in self.lines() {
            let entry = self.read(register);
            if entry & DELIVERY != SMI {
                self.write(register, entry | MASKED);
            }
        }
    }

    /// Whether a line that does not interrupt firmware is open.
    pub(crate) fn has_open_line(self) -> bool {
        self.lines()
            .map(|register| self.read(register))
            .any(|entry| entry & MASKED == 0 && entry & DELIVERY != SMI)
    }
}

/// Maps the I/O APICs at the physical addresses `all`, with tables of `frame`, and masks their
/// lines. One that cannot be mapped is named, and stays as it is.
pub(crate) fn mask_all(all: &[u32], frame: &mut dyn FnMut() -> Option<Pfn>) {
    for (n, &at) in all.iter().enumerate() {
        match IoApic::map(n, at, frame) {
            Ok(device) => device.mask(),
            Err(why) => warn!("IO-APIC at {at:#x}: its lines are not masked: {why:?}"),
        }
    }
}
