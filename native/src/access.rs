//! Loads and stores at addresses given by `mm`, one instruction each, and the table of
//! those that may fault.
//!
//! As on bare metal: no Rust reference to a struct page exists (INV-1), the compiler can
//! neither move nor split nor merge an access, and loads and stores are acquires and
//! releases by themselves.
#![expect(
    unsafe_code,
    reason = "loads and stores at addresses given by `mm`, and a table between linker symbols"
)]

use core::arch::asm;

use mm::addr::VirtAddr;
use mm::machine::{Fault, Probe};

/// An entry; both fields are distances in bytes from the field itself.
#[repr(C)]
#[doc(alias = "exception_table_entry")]
struct ExEntry {
    insn: i32,
    fixup: i32,
}

unsafe extern "C" {
    // The linker makes these for a section whose name is a C identifier.
    static __start_tailfold_native_ex: [ExEntry; 0];
    static __stop_tailfold_native_ex: [ExEntry; 0];
}

// The section exists even in a program that uses no probe, or the symbols would not.
core::arch::global_asm!(
    ".pushsection tailfold_native_ex, \"aR\", @progbits",
    ".popsection"
);

fn table() -> &'static [ExEntry] {
    let start = &raw const __start_tailfold_native_ex;
    let stop = &raw const __stop_tailfold_native_ex;
    let bytes = stop.addr() - start.addr();
    // SAFETY: the linker puts the symbols around the section, which holds nothing
    // but entries and is never written (H-6).
    unsafe { core::slice::from_raw_parts(start.cast(), bytes / size_of::<ExEntry>()) }
}

fn target(field: &i32) -> u64 {
    (core::ptr::from_ref(field).addr() as u64).wrapping_add_signed(i64::from(*field))
}

/// Where to go on if the instruction at `rip` faults; `None` if it may not.
#[doc(alias = "search_exception_tables")]
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    let entry = table().iter().find(|entry| target(&entry.insn) == rip)?;
    Some(target(&entry.fixup))
}

/// An instruction that loads from `[at]`.
macro_rules! load {
    ($at:expr, $type:ty, $instruction:literal) => {{
        let value: $type;
        // SAFETY: the caller promises that the address is mapped memory of this kind, or
        // will be when the fault is handled; no reference is made (INV-1). Not `pure`,
        // so the compiler keeps it in its place.
        unsafe {
            asm!($instruction, at = in(reg) $at, value = lateout(reg) value,
                 options(nostack, preserves_flags));
        }
        value
    }};
}

/// An instruction that stores `value` to `[at]`.
macro_rules! store {
    ($at:expr, $value:expr, $instruction:literal) => {{
        // SAFETY: as for `load`, and the memory belongs to whoever calls (INV-5).
        unsafe {
            asm!($instruction, at = in(reg) $at, value = in(reg) $value,
                 options(nostack, preserves_flags));
        }
    }};
}

/// A locked compare-and-exchange on `[at]`.
macro_rules! compare_exchange {
    ($at:expr, $current:expr, $new:expr, $instruction:literal) => {{
        let mut found = $current;
        // SAFETY: as for `store` (INV-1).
        unsafe {
            asm!($instruction, in("rdi") $at, inout("rax") found, in("rcx") $new,
                 options(nostack));
        }
        if found == $current { Ok(found) } else { Err(found) }
    }};
}

#[inline(always)]
pub(crate) fn load64(at: u64) -> u64 {
    load!(at, u64, "mov {value}, [{at}]")
}

#[inline(always)]
pub(crate) fn load32(at: u64) -> u32 {
    load!(at, u32, "mov {value:e}, [{at}]")
}

#[inline(always)]
pub(crate) fn store64(at: u64, value: u64) {
    store!(at, value, "mov [{at}], {value}");
}

#[inline(always)]
pub(crate) fn store32(at: u64, value: u32) {
    store!(at, value, "mov [{at}], {value:e}");
}

#[inline]
pub(crate) fn compare_exchange32(at: u64, current: u32, new: u32) -> Result<u32, u32> {
    compare_exchange!(at, current, new, "lock cmpxchg [rdi], ecx")
}

#[inline]
pub(crate) fn compare_exchange64(at: u64, current: u64, new: u64) -> Result<u64, u64> {
    compare_exchange!(at, current, new, "lock cmpxchg [rdi], rcx")
}

#[inline]
pub(crate) fn fetch_add32(at: u64, delta: u32) -> u32 {
    let mut value = delta;
    // SAFETY: as for `store` (INV-1).
    unsafe {
        asm!("lock xadd [rdi], eax", in("rdi") at, inout("eax") value, options(nostack));
    }
    value
}

/// Copies `words` times 8 bytes.
pub(crate) fn copy(to: u64, from: u64, words: u64) {
    // SAFETY: RAM that is the caller's to copy (INV-5); no reference is made (INV-1); the
    // direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsq",
             inout("rdi") to => _, inout("rsi") from => _, inout("rcx") words => _,
             options(nostack, preserves_flags));
    }
}

/// Stores `value` `words` times.
pub(crate) fn fill(to: u64, value: u64, words: u64) {
    // SAFETY: as for `copy` (INV-5).
    unsafe {
        asm!("rep stosq",
             inout("rdi") to => _, inout("rcx") words => _, in("rax") value,
             options(nostack, preserves_flags));
    }
}

/// In R10 behind an instruction that did not fault; no error code has these bits.
const NO_FAULT: u64 = u64::MAX;

/// Runs one listed instruction on `[rdi]` with `eax`, and ECX if given; EAX
/// afterwards. The handler leaves the error code in R10 and the address in R11.
macro_rules! try_instruction {
    ($at:expr, $eax:expr, $instruction:literal) => {
        try_instruction!($at, $eax, 0_u32, $instruction)
    };
    ($at:expr, $eax:expr, $ecx:expr, $instruction:literal) => {{
        let (code, cr2): (u64, u64);
        let mut eax: u32 = $eax;
        // SAFETY: a fault of the listed instruction is fixed up. Without one it
        // does to the 4 bytes what the caller's `Probe` says; no reference to them
        // is made (INV-1).
        unsafe {
            asm!(
                "2:", $instruction, "3:",
                ".pushsection tailfold_native_ex, \"aR\", @progbits",
                ".balign 4",
                ".long 2b - .",
                ".long 3b - .",
                ".popsection",
                in("rdi") $at,
                in("ecx") $ecx,
                inout("eax") eax,
                inout("r10") NO_FAULT => code,
                inout("r11") 0_u64 => cr2,
                options(nostack),
            );
        }
        if code == NO_FAULT {
            Ok(eax)
        } else {
            Err(Fault { at: VirtAddr::new(cr2), code })
        }
    }};
}

/// Stores `new` to the 4 bytes at `at` if they are `current`; what they were.
pub(crate) fn try_compare_exchange(at: u64, current: u32, new: u32) -> Result<u32, Fault> {
    try_instruction!(at, current, new, "lock cmpxchg [rdi], ecx")
}

/// Touches the 4 bytes at `at` as `how` says. `XaddOne` adds one, `Bts` sets bit 0,
/// the others leave the value as it is.
pub(crate) fn probe(at: u64, how: Probe) -> Result<(), Fault> {
    let found = try_instruction!(at, 0, "mov eax, [rdi]")?;
    match how {
        Probe::Load => Ok(found),
        Probe::Store => try_instruction!(at, found, "mov [rdi], eax"),
        Probe::CmpxchgFailing => try_instruction!(at, !found, "lock cmpxchg [rdi], eax"),
        Probe::XaddZero => try_instruction!(at, 0, "lock xadd [rdi], eax"),
        Probe::XaddOne => try_instruction!(at, 1, "lock xadd [rdi], eax"),
        Probe::Bts => try_instruction!(at, 0, "lock bts dword ptr [rdi], 0"),
    }
    .map(|_| ())
}
