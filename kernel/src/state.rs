//! What lives as long as the kernel: set once at boot, read ever after.

use mm::addr::{NodeId, VirtAddr};
use mm::memblock::{EarlyFrames, MapBuilder, MemoryMap};
use mm::numa::Topology;
use mm::page::Memmap;
use mm::system::Mm;
use mm::vmemmap::RamRange;
use params::Options;
use spin::Once;
use suites::{Env, Kept};

use crate::arch::x86_64::layout;
use crate::boot::cmdline;
use crate::drivers::acpi::Madt;
use crate::metal::Metal;

/// The memory manager.
pub(crate) static MM: Mm = Mm::new(Memmap::new(Memmap::DEFAULT_BASE));

static OPTIONS: Once<Options<'static>> = Once::new();
static RAM: Once<MemoryMap> = Once::new();
static COMMAND_LINE: Once<&'static [u8]> = Once::new();
static BOOTED: Once<(&'static str, cmdline::Source)> = Once::new();
static SCRIPT: Once<&'static str> = Once::new();
static MAP: Once<&'static MapBuilder> = Once::new();
static MANAGED: Once<u64> = Once::new();
static TOPOLOGY: Once<Topology> = Once::new();
static MADT: Once<Madt> = Once::new();
static EARLY: Once<EarlyFrames<'static>> = Once::new();

/// Keeps what the command line says.
pub(crate) fn set_options(options: Options<'static>) -> &'static Options<'static> {
    OPTIONS.call_once(|| options)
}

/// What the command line says; nothing, until it has been read.
pub(crate) fn options() -> Options<'static> {
    OPTIONS.get().copied().unwrap_or_default()
}

/// Keeps the map of RAM.
pub(crate) fn set_ram(map: MemoryMap) -> &'static MemoryMap {
    RAM.call_once(|| map)
}

/// The RAM, sorted, each range on one node; none until the map is there.
pub(crate) fn ram() -> &'static [RamRange] {
    RAM.get().map_or(&[], MemoryMap::as_slice)
}

/// Keeps what kind of firmware there is, and where the command line came from.
pub(crate) fn set_booted(firmware: &'static str, source: cmdline::Source) {
    BOOTED.call_once(|| (firmware, source));
}

/// `BIOS` or `UEFI`, and where the command line came from, once both are known.
pub(crate) fn booted() -> Option<(&'static str, cmdline::Source)> {
    BOOTED.get().copied()
}

/// Keeps the command line itself.
pub(crate) fn set_command_line(line: &'static [u8]) {
    COMMAND_LINE.call_once(|| line);
}

/// The command line itself.
#[doc(alias = "saved_command_line")]
pub(crate) fn command_line() -> &'static [u8] {
    COMMAND_LINE.get().copied().unwrap_or_default()
}

/// Keeps the lines that the shell is to run at boot.
pub(crate) fn set_script(script: &'static str) {
    SCRIPT.call_once(|| script);
}

/// The lines that the shell is to run at boot, if there are any.
pub(crate) fn script() -> Option<&'static str> {
    SCRIPT.get().copied()
}

/// Keeps the firmware's memory map.
pub(crate) fn set_memory_map(map: &'static MapBuilder) {
    MAP.call_once(|| map);
}

/// The firmware's memory map.
///
/// # Panics
/// If it has not been read.
pub(crate) fn memory_map() -> &'static MapBuilder {
    MAP.get().expect("the memory map has been read")
}

/// Keeps how many pages the buddy allocators were given.
pub(crate) fn set_managed_pages(pages: u64) {
    MANAGED.call_once(|| pages);
}

/// How many pages the buddy allocators were given at boot.
#[doc(alias = "totalram_pages")]
pub(crate) fn managed_pages() -> u64 {
    MANAGED.get().copied().unwrap_or_default()
}

/// Keeps which node memory and CPUs belong to.
pub(crate) fn set_topology(topology: Topology) -> &'static Topology {
    TOPOLOGY.call_once(|| topology)
}

/// The machine's nodes.
///
/// # Panics
/// If the firmware's tables have not been read.
pub(crate) fn topology() -> &'static Topology {
    TOPOLOGY
        .get()
        .expect("the firmware's tables have been read")
}

/// The node of the `cpu`th CPU, whose APIC id is `apic_id`: node 0 until it is known.
pub(crate) fn node_of_cpu(apic_id: u32, cpu: usize) -> NodeId {
    TOPOLOGY
        .get()
        .map_or(NodeId::ZERO, |topology| topology.node_of_cpu(apic_id, cpu))
}

/// Keeps the firmware's list of CPUs.
pub(crate) fn set_madt(madt: Madt) -> &'static Madt {
    MADT.call_once(|| madt)
}

/// The firmware's list of CPUs.
///
/// # Panics
/// If it has not been read.
pub(crate) fn madt() -> &'static Madt {
    MADT.get().expect("the firmware's tables have been read")
}

/// Keeps the early allocator.
pub(crate) fn set_early(early: EarlyFrames<'static>) -> &'static EarlyFrames<'static> {
    EARLY.call_once(|| early)
}

/// The early allocator. It has nothing left once the buddy allocators run.
///
/// # Panics
/// If there is none yet.
pub(crate) fn early() -> &'static EarlyFrames<'static> {
    EARLY.get().expect("the memory map has been read")
}

/// What no self-test has made.
static KEPT: Kept = Kept::new();

/// What a self-test is given.
pub(crate) fn env() -> Env<'static, Metal> {
    Env {
        m: &Metal,
        mm: &MM,
        ram: ram(),
        scratch: VirtAddr::new(layout::SCRATCH),
        kept: &KEPT,
    }
}
