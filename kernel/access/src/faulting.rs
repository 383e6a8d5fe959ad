//! Instructions that may fault, and where to go on if they do.
//!
//! The idea is Linux's (`Documentation/arch/x86/exception-tables.rst`): an entry
//! in a section of its own for each such instruction, with offsets relative to
//! the entry so that the loader need not relocate it. The handler of a fault asks
//! [`fixup`], leaves the error code in R10 and the address in R11, and goes on there.
#![expect(
    unsafe_code,
    reason = "reads a table between linker symbols, and faults on purpose"
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
    static __start_tailfold_ex_table: [ExEntry; 0];
    static __stop_tailfold_ex_table: [ExEntry; 0];
}

// The section exists even in a program that uses no probe, or the symbols would not.
core::arch::global_asm!(
    ".pushsection tailfold_ex_table, \"aR\", @progbits",
    ".popsection"
);

fn table() -> &'static [ExEntry] {
    let start = &raw const __start_tailfold_ex_table;
    let stop = &raw const __stop_tailfold_ex_table;
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
#[doc(alias = "fixup_exception")]
#[must_use]
pub fn fixup(rip: u64) -> Option<u64> {
    let entry = table().iter().find(|entry| target(&entry.insn) == rip)?;
    Some(target(&entry.fixup))
}

/// In R10 behind an instruction that did not fault; no error code has these bits.
const NO_FAULT: u64 = u64::MAX;

/// Runs one listed instruction on `[rdi]` with `eax`, and ECX if given; EAX
/// afterwards.
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
                ".pushsection tailfold_ex_table, \"aR\", @progbits",
                ".balign 4",
                ".long 2b - .",
                ".long 3b - .",
                ".popsection",
                in("rdi") $at.as_u64(),
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

/// Loads the 4 bytes at `at`.
///
/// # Errors
/// The fault, if the processor raised one.
pub fn try_load32(at: VirtAddr) -> Result<u32, Fault> {
    try_instruction!(at, 0, "mov eax, [rdi]")
}

/// Locked: stores `new` to the 4 bytes at `at` if they are `current`; else what they are,
/// as the inner error.
///
/// # Errors
/// The fault, if the processor raised one.
///
/// # Safety
/// No Rust object lies there, and what is written is the caller's (INV-5).
#[inline]
pub unsafe fn try_compare_exchange32(
    at: VirtAddr,
    current: u32,
    new: u32,
) -> Result<Result<u32, u32>, Fault> {
    let found = try_instruction!(at, current, new, "lock cmpxchg [rdi], ecx")?;
    Ok(if found == current {
        Ok(found)
    } else {
        Err(found)
    })
}

/// Touches the 4 bytes at `at` as `how` says. `XaddOne` adds one, `Bts` sets bit 0,
/// the others leave the value as it is.
///
/// # Errors
/// The fault, if the processor raised one.
///
/// # Safety
/// As for [`try_compare_exchange32`], where `how` writes and the page is writable.
pub unsafe fn probe(at: VirtAddr, how: Probe) -> Result<(), Fault> {
    let found = try_load32(at)?;
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
