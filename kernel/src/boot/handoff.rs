//! What the boot loader says, copied out of its memory before that goes away.

use bootloader_api::BootInfo;
use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::memblock::{Kind, MapBuilder, Region};
use spin::Mutex;

use crate::arch::x86_64::layout;

/// How the loader is to start us: the kernel, physical memory and the framebuffer
/// at the addresses that they will keep.
pub(crate) static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    // Tables of fixed size are moved about on it.
    config.kernel_stack_size = 512 * 1024;
    config.mappings.kernel_base = Mapping::FixedAddress(layout::KERNEL_IMAGE);
    config.mappings.physical_memory = Some(Mapping::FixedAddress(layout::DIRECT_MAP));
    config.mappings.framebuffer = Mapping::FixedAddress(layout::FRAMEBUFFER);
    config
};

/// What kind of memory a region is, as far as the kernel cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// Free RAM.
    Free,
    /// RAM that holds something: the loader's page tables and our image, or the
    /// firmware's tables and data.
    Taken,
    /// No RAM, or not to be touched.
    Other,
}

fn classify(kind: MemoryRegionKind) -> Memory {
    match kind {
        MemoryRegionKind::Usable => Memory::Free,
        MemoryRegionKind::Bootloader => Memory::Taken,
        // E820: 3 ACPI tables, 4 ACPI non-volatile storage.
        MemoryRegionKind::UnknownBios(3 | 4) => Memory::Taken,
        // UEFI: 1 to 7 are RAM in use by the firmware or its loader, 9 and 10 as
        // E820's 3 and 4. 8 is broken, 11 and up are devices.
        MemoryRegionKind::UnknownUefi(1..=7 | 9 | 10) => Memory::Taken,
        _ => Memory::Other,
    }
}

// Too large for the loader's stack. Taken once each, at boot.
static MAP: Mutex<MapBuilder> = Mutex::new(MapBuilder::new());
static REACHABLE: Mutex<MapBuilder> = Mutex::new(MapBuilder::new());

/// The memory map, and what else the kernel has to know of it.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// The map as the firmware gives it, free or not.
    pub(crate) map: &'static MapBuilder,
    /// Whatever is RAM, free or not, as "usable": what the direct map covers.
    pub(crate) reachable: &'static MapBuilder,
    /// `BIOS` or `UEFI`, by whose names the loader gives to kinds of memory.
    pub(crate) firmware: &'static str,
    /// Where ACPI starts.
    pub(crate) rsdp: Option<u64>,
}

impl Handoff {
    /// Copies what is needed. Called once.
    ///
    /// # Panics
    /// If the loader did not map things where [`CONFIG`] says.
    pub(crate) fn take(info: &BootInfo) -> Self {
        let direct = info.physical_memory_offset.into_option();
        assert_eq!(
            direct,
            Some(layout::DIRECT_MAP),
            "the loader mapped physical memory elsewhere"
        );
        let mut map = MAP.lock();
        let mut reachable = REACHABLE.lock();
        let mut firmware = "firmware of an unknown kind";
        for &MemoryRegion { start, end, kind } in info.memory_regions.iter() {
            let length = end.saturating_sub(start);
            let region = |kind| Region {
                start,
                length,
                kind,
            };
            match kind {
                MemoryRegionKind::UnknownBios(_) => firmware = "BIOS",
                MemoryRegionKind::UnknownUefi(_) => firmware = "UEFI",
                _ => {}
            }
            let memory = classify(kind);
            map.add(region(match memory {
                Memory::Free => Kind::Usable,
                Memory::Taken | Memory::Other => Kind::Reserved,
            }));
            if memory != Memory::Other {
                reachable.add(region(Kind::Usable));
            }
        }
        Self {
            map: spin::MutexGuard::leak(map),
            reachable: spin::MutexGuard::leak(reachable),
            firmware,
            rsdp: info.rsdp_addr.into_option(),
        }
    }

    /// Whether firmware tables may lie there: in a region that the firmware lists,
    /// or in the BIOS area below 1 MiB, which some leave out.
    pub(crate) fn has_memory(&self, at: u64, bytes: usize) -> bool {
        const BIOS: core::ops::Range<u64> = 0xe_0000..0x10_0000;
        let Some(end) = at.checked_add(bytes as u64) else {
            return false;
        };
        let listed = self
            .map
            .regions()
            .any(|r| r.start <= at && end - r.start <= r.length);
        (listed && end <= layout::DIRECT_MAP_BYTES) || (BIOS.start <= at && end <= BIOS.end)
    }
}

/// The bytes of the loader's ramdisk file, if the image has one.
#[expect(unsafe_code, reason = "the loader gives an address and a length")]
pub(crate) fn ramdisk(info: &BootInfo) -> Option<&[u8]> {
    let start = info.ramdisk_addr.into_option()?;
    let start = core::ptr::with_exposed_provenance(usize::try_from(start).ok()?);
    let len = usize::try_from(info.ramdisk_len).ok()?;
    // SAFETY: the loader mapped the file there; it stays as long as `info`, which is
    // the loader's too (H-5).
    Some(unsafe { core::slice::from_raw_parts(start, len) })
}
