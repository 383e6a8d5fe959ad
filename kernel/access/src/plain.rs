//! Accesses that do not fault, or whose faults somebody handles and has tried again.
//!
//! Every function has one contract: `at` is a multiple of the size of the access and mapped, or
//! will be when the fault is handled; no Rust object lies there, nor is there a reference to it
//! (INV-1); and what is written is the caller's (INV-5).
//!
//! The compiler can neither move nor split nor merge an access; loads and stores are acquires and
//! releases by themselves.
#![expect(unsafe_code, reason = "loads and stores at addresses given by `mm`")]

use core::arch::asm;

/// An instruction that loads from `[at]`.
macro_rules! load {
    ($at:expr, $type:ty, $instruction:literal) => {{
        let value: $type;
        // SAFETY: the caller's promise, and no reference is made (INV-1). Not `pure`, so the
        // compiler keeps it in its place.
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
        // SAFETY: as for `store` (INV-5).
        unsafe {
            asm!($instruction, in("rdi") $at, inout("rax") found, in("rcx") $new,
                 options(nostack));
        }
        if found == $current { Ok(found) } else { Err(found) }
    }};
}

/// The 8 bytes at `at`.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
#[must_use]
pub unsafe fn load64(at: u64) -> u64 {
    load!(at, u64, "mov {value}, [{at}]")
}

/// The 4 bytes at `at`.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
#[must_use]
pub unsafe fn load32(at: u64) -> u32 {
    load!(at, u32, "mov {value:e}, [{at}]")
}

/// Stores 8 bytes at `at`.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
pub unsafe fn store64(at: u64, value: u64) {
    store!(at, value, "mov [{at}], {value}");
}

/// Stores 4 bytes at `at`.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
pub unsafe fn store32(at: u64, value: u32) {
    store!(at, value, "mov [{at}], {value:e}");
}

/// Locked: stores `new` to the 4 bytes at `at` if they are `current`.
///
/// # Errors
/// What they are instead.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
pub unsafe fn compare_exchange32(at: u64, current: u32, new: u32) -> Result<u32, u32> {
    compare_exchange!(at, current, new, "lock cmpxchg [rdi], ecx")
}

/// Locked: stores `new` to the 8 bytes at `at` if they are `current`.
///
/// # Errors
/// What they are instead.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
pub unsafe fn compare_exchange64(at: u64, current: u64, new: u64) -> Result<u64, u64> {
    compare_exchange!(at, current, new, "lock cmpxchg [rdi], rcx")
}

/// Locked: adds `delta` to the 4 bytes at `at`; what they were.
///
/// # Safety
/// The contract at the head of this module, for `at`.
#[inline(always)]
pub unsafe fn fetch_add32(at: u64, delta: u32) -> u32 {
    let mut value = delta;
    // SAFETY: as for `store` (INV-5).
    unsafe {
        asm!("lock xadd [rdi], eax", in("rdi") at, inout("eax") value, options(nostack));
    }
    value
}

/// Copies `words` times 8 bytes.
///
/// # Safety
/// The contract at the head of this module, for `words` times 8 bytes at either address, which do not overlap.
pub unsafe fn copy(to: u64, from: u64, words: u64) {
    // SAFETY: RAM that is the caller's to copy (INV-5; the head of a frozen block); no
    // reference is made (INV-1); the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsq",
             inout("rdi") to => _, inout("rsi") from => _, inout("rcx") words => _,
             options(nostack, preserves_flags));
    }
}

/// Stores `value` `words` times.
///
/// # Safety
/// The contract at the head of this module, for `words` times 8 bytes.
pub unsafe fn fill(to: u64, value: u64, words: u64) {
    // SAFETY: as for `copy` (INV-5).
    unsafe {
        asm!("rep stosq",
             inout("rdi") to => _, inout("rcx") words => _, in("rax") value,
             options(nostack, preserves_flags));
    }
}
