//! The stacks of each CPU, each above a guard page.
//!
//! Those of the boot CPU lie in the kernel image, so that exceptions can be handled
//! before there is an allocator. Their guard page is part of the type; building the
//! kernel's page tables leaves it out ([`guards`]). Those of other CPUs are mapped at
//! [`layout::STACKS`], in one piece a CPU, before the CPU is started.

use core::cell::UnsafeCell;
use core::ops::Range;

use super::layout;
use super::percpu::MAX_CPUS;

const PAGE: usize = 4096;

/// `N` bytes of stack above a guard page. `N` is a multiple of the page size.
#[repr(C, align(4096))]
pub(crate) struct Stack<const N: usize> {
    guard: UnsafeCell<[u8; PAGE]>,
    bytes: UnsafeCell<[u8; N]>,
}

#[expect(
    unsafe_code,
    reason = "a stack is written by the processor, through its own pointer"
)]
// SAFETY: no method gives access to the bytes, only their addresses, and one CPU
// uses a stack at a time (H-3).
unsafe impl<const N: usize> Sync for Stack<N> {}

impl<const N: usize> Stack<N> {
    const fn new() -> Self {
        assert!(N.is_multiple_of(PAGE), "a stack is made of whole pages");
        Self {
            guard: UnsafeCell::new([0; PAGE]),
            bytes: UnsafeCell::new([0; N]),
        }
    }

    /// The address behind its last byte, 16-byte aligned: where a stack pointer
    /// starts.
    pub(crate) fn top(&self) -> u64 {
        self.bytes.get() as u64 + N as u64
    }

    fn guard(&self) -> Range<u64> {
        let start = self.guard.get() as u64;
        start..start + PAGE as u64
    }
}

/// What the kernel runs on once its own page tables are in use.
pub(crate) static BOOT: Stack<{ 64 * PAGE }> = Stack::new();
/// Double faults: above all a stack that ran into its guard page.
pub(crate) static DOUBLE_FAULT: Stack<{ 6 * PAGE }> = Stack::new();
/// Non-maskable interrupts, which come at any instruction.
pub(crate) static NMI: Stack<{ 6 * PAGE }> = Stack::new();
/// Machine checks, likewise.
pub(crate) static MACHINE_CHECK: Stack<{ 6 * PAGE }> = Stack::new();
/// Debug exceptions, likewise.
pub(crate) static DEBUG: Stack<{ 6 * PAGE }> = Stack::new();

/// Where the stack pointer starts on each stack of one CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tops {
    /// What the CPU runs on.
    pub(crate) normal: u64,
    /// See [`DOUBLE_FAULT`].
    pub(crate) double_fault: u64,
    /// See [`NMI`].
    pub(crate) nmi: u64,
    /// See [`MACHINE_CHECK`].
    pub(crate) machine_check: u64,
    /// See [`DEBUG`].
    pub(crate) debug: u64,
}

/// The boot CPU's.
pub(crate) fn boot_tops() -> Tops {
    Tops {
        normal: BOOT.top(),
        double_fault: DOUBLE_FAULT.top(),
        nmi: NMI.top(),
        machine_check: MACHINE_CHECK.top(),
        debug: DEBUG.top(),
    }
}

const NAMES: [&str; 5] = ["normal", "double fault", "NMI", "machine check", "debug"];
/// Pages of each stack of another CPU than the boot CPU, in the order of [`NAMES`].
const SIZES: [u64; 5] = [32, 6, 6, 6, 6];
/// Address space for one CPU's stacks and their guard pages.
const CPU_BYTES: u64 = 64 * PAGE as u64;

/// The stacks of CPU `cpu`, not the boot CPU: name, and the addresses above the guard
/// page.
fn stacks_of(cpu: usize) -> [(&'static str, Range<u64>); 5] {
    let mut at = layout::STACKS + cpu as u64 * CPU_BYTES;
    core::array::from_fn(|n| {
        let start = at + PAGE as u64;
        at = start + SIZES[n] * PAGE as u64;
        (NAMES[n], start..at)
    })
}

/// Addresses of the pages to be mapped for the stacks of CPU `cpu`.
pub(crate) fn pages_of(cpu: usize) -> impl Iterator<Item = u64> {
    let stacks = stacks_of(cpu).into_iter();
    stacks.flat_map(|(_, range)| range.step_by(PAGE))
}

/// The stacks of CPU `cpu`, not the boot CPU.
pub(crate) fn tops_of(cpu: usize) -> Tops {
    let [normal, double_fault, nmi, machine_check, debug] =
        stacks_of(cpu).map(|(_, range)| range.end);
    Tops {
        normal,
        double_fault,
        nmi,
        machine_check,
        debug,
    }
}

/// The guard page of every stack of CPU `cpu`, with the stack's name.
pub(crate) fn guards_of(cpu: usize) -> [(&'static str, Range<u64>); 5] {
    if cpu == 0 {
        guards()
    } else {
        stacks_of(cpu).map(|(name, range)| (name, range.start - PAGE as u64..range.start))
    }
}

/// The guard page of every stack of the boot CPU, with the stack's name.
pub(crate) fn guards() -> [(&'static str, Range<u64>); 5] {
    [
        ("boot", BOOT.guard()),
        ("double fault", DOUBLE_FAULT.guard()),
        ("NMI", NMI.guard()),
        ("machine check", MACHINE_CHECK.guard()),
        ("debug", DEBUG.guard()),
    ]
}

/// The name of the stack whose guard page holds `at`, if one does.
pub(crate) fn overflowed(at: u64) -> Option<&'static str> {
    let cpu = match at.checked_sub(layout::STACKS) {
        // Checked for all addresses of the image when that is mapped: CPU 0's.
        Some(offset) if offset < MAX_CPUS as u64 * CPU_BYTES => {
            usize::try_from(offset / CPU_BYTES).unwrap_or(0)
        }
        _ => 0,
    };
    guards_of(cpu)
        .into_iter()
        .find(|(_, guard)| guard.contains(&at))
        .map(|(name, _)| name)
}
