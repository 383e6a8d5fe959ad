//! Stacks of the boot CPU, each above a guard page.
//!
//! They lie in the kernel image, so that exceptions can be handled before there
//! is an allocator. The guard page is part of the type; building the kernel's
//! page tables leaves it out ([`guards`]).

use core::cell::UnsafeCell;
use core::ops::Range;

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
// uses a stack at a time.
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

/// The guard page of every stack, with the stack's name.
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
    guards()
        .into_iter()
        .find(|(_, guard)| guard.contains(&at))
        .map(|(name, _)| name)
}
