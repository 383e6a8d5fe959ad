//! Where things lie in the 48-bit address space. As Linux lays it out with four
//! levels (`Documentation/arch/x86/x86_64/mm.rst`), without randomisation.
//!
//! ```text
//! ffff_8880_0000_0000  direct map of physical memory, also while the loader's
//!                      page tables are still in use
//! ffff_c900_0000_0000  devices: the framebuffer
//! ffff_c980_0000_0000  devices: the local APIC, the I/O APICs
//! ffff_c988_0000_0000  stacks of all CPUs but the first, with their guard pages
//! ffff_d000_0000_0000  room for self-tests
//! ffff_ea00_0000_0000  vmemmap (crate `mm`)
//! ffff_ffff_8000_0000  kernel image with its stacks and their guard pages
//! ```

/// First byte of the direct map: physical address 0.
#[doc(alias = "PAGE_OFFSET")]
pub(crate) const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;

/// Length of the direct map's part of the address space in bytes: 64 TiB.
pub(crate) const DIRECT_MAP_BYTES: u64 = 1 << 46;

/// Where the framebuffer is mapped, if there is one.
#[doc(alias = "VMALLOC_START")]
pub(crate) const FRAMEBUFFER: u64 = 0xffff_c900_0000_0000;

/// Where the registers of each CPU's local APIC are mapped.
#[doc(alias = "FIX_APIC_BASE")]
pub(crate) const LAPIC: usize = 0xffff_c980_0000_0000;

/// Where the registers of the I/O APICs are mapped, a page each.
#[doc(alias = "FIX_IO_APIC_BASE_0")]
pub(crate) const IO_APICS: usize = LAPIC + 4096;

/// Where the stacks of all CPUs but the first are mapped.
pub(crate) const STACKS: u64 = 0xffff_c988_0000_0000;

/// Where the kernel image starts.
#[doc(alias = "__START_KERNEL_map")]
pub(crate) const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;

/// 512 GiB in which self-tests map things.
pub(crate) const SCRATCH: u64 = 0xffff_d000_0000_0000;
