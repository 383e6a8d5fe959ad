//! Memory types: caches switched on, the PAT, and what the MTRRs say of RAM (Intel SDM volume
//! 3, chapter 12; AMD APM volume 2, chapter 7).
//!
//! Firmware sets the MTRRs. Those of the boot CPU are never changed: RAM that they do not call
//! write-back is named, for it is slow by a factor of a hundred. Those of the others must be the
//! same (Intel SDM volume 3, 12.11.8), and are made so where they are not.
#![expect(unsafe_code, reason = "writes CR0 and MSRs, and empties the caches")]

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use mm::addr::{PAGE_SIZE, PfnRange};
use mm::memblock::RamRange;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags};
use x86_64::registers::model_specific::Msr;

use super::{cpu, percpu};
use crate::{log, warn};

/// MSR that gives the eight memory types which entries choose from (Intel SDM
/// volume 3, 12.12).
const IA32_PAT: u32 = 0x277;
/// Its value at reset with type 1 changed from write-through to write-combining:
/// what a framebuffer wants, and nothing here wants write-through. Linux does so.
const PAT_WITH_WC: u64 = 0x0007_0406_0007_0106;

// MTRRs (Intel SDM volume 3, 12.11).
const MTRR_CAP: u32 = 0xfe;
const CAP_HAS_FIXED: u64 = 1 << 8;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_PHYS_BASE0: u32 = 0x200;
/// The fixed ranges: MSR, and the bytes that each of its eight fields stands for.
const MTRR_FIXED: [(u32, u64); 11] = [
    (0x250, 64 << 10),
    (0x258, 16 << 10),
    (0x259, 16 << 10),
    (0x268, 4 << 10),
    (0x269, 4 << 10),
    (0x26a, 4 << 10),
    (0x26b, 4 << 10),
    (0x26c, 4 << 10),
    (0x26d, 4 << 10),
    (0x26e, 4 << 10),
    (0x26f, 4 << 10),
];
const FIXED_END: u64 = 1 << 20;
const ENABLE: u64 = 1 << 11;
const ENABLE_FIXED: u64 = 1 << 10;
const VALID: u64 = 1 << 11;
/// Most variable ranges that are read: no processor has more than ten.
const MAX_VARIABLE: usize = 32;

// AMD: memory from 4 GiB up to the second top of memory may be write-back whatever the MTRRs
// say (AMD APM volume 2, 7.9.2).
const AMD_SYSCFG: u32 = 0xc001_0010;
const AMD_TOM2_IS_ON: u64 = 1 << 21;
const AMD_TOM2_IS_WRITE_BACK: u64 = 1 << 22;
const AMD_TOP_MEM2: u32 = 0xc001_001d;

/// How a processor treats loads and stores, as an MTRR or the PAT gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryType(u8);

impl MemoryType {
    pub(crate) const UNCACHED: Self = Self(0);
    pub(crate) const WRITE_COMBINING: Self = Self(1);
    pub(crate) const WRITE_THROUGH: Self = Self(4);
    pub(crate) const WRITE_BACK: Self = Self(6);

    /// The type in the low bits of `value`.
    const fn of(value: u64) -> Self {
        Self((value & 7) as u8)
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "uncached",
            1 => "write-combining",
            4 => "write-through",
            5 => "write-protected",
            6 => "write-back",
            7 => "uncached unless combined",
            _ => "of a reserved type",
        })
    }
}

fn read(msr: u32) -> u64 {
    // SAFETY: whoever calls has seen in CPUID, or in a register that says so, that it exists
    // (H-2).
    unsafe { Msr::new(msr).read() }
}

/// Writes what the caches hold to memory, and empties them.
fn write_back_caches() {
    // SAFETY: slow, and nothing else: memory holds afterwards what it held for any reader (H-2).
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// The bits of CR0 that switch caches off, as they were found on the boot CPU.
static CACHES_WERE_OFF: AtomicU64 = AtomicU64::new(0);

const CACHES_OFF: Cr0Flags = Cr0Flags::CACHE_DISABLE.union(Cr0Flags::NOT_WRITE_THROUGH);

/// The MTRRs as they are in the processor. Nothing in it, if there are none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Registers {
    def_type: u64,
    fixed: Option<[u64; MTRR_FIXED.len()]>,
    /// Base and mask.
    variable: ArrayVec<(u64, u64), MAX_VARIABLE>,
}

/// Those of the boot CPU.
static BOOT: Once<Registers> = Once::new();

impl Registers {
    fn read() -> Self {
        let mut all = Self::default();
        if !cpu::features().mtrr {
            return all;
        }
        let cap = read(MTRR_CAP);
        all.def_type = read(MTRR_DEF_TYPE);
        if cap & CAP_HAS_FIXED != 0 {
            all.fixed = Some(MTRR_FIXED.map(|(msr, _)| read(msr)));
        }
        let ranges = u32::try_from(cap & 0xff).unwrap_or(0);
        for base in (MTRR_PHYS_BASE0..).step_by(2).take(ranges as usize) {
            if all.variable.try_push((read(base), read(base + 1))).is_err() {
                break;
            }
        }
        all
    }

    /// Loads them into this CPU, which has as many, with its MTRRs off meanwhile. The caches
    /// are off and empty.
    #[doc(alias = "set_mtrr_state")]
    fn write(&self) {
        let write = |msr: u32, value: u64| {
            // SAFETY: the register exists here as on the boot CPU, from which the value is. No
            // line and no translation of before outlives `enable`, and memory has then the
            // types that it has for the boot CPU (H-2).
            unsafe { Msr::new(msr).write(value) };
        };
        write(MTRR_DEF_TYPE, self.def_type & !ENABLE);
        for (value, (msr, _)) in self.fixed.into_iter().flatten().zip(MTRR_FIXED) {
            write(msr, value);
        }
        for (msr, (base, mask)) in (MTRR_PHYS_BASE0..).step_by(2).zip(&self.variable) {
            write(msr, *base);
            write(msr + 1, *mask);
        }
        write(MTRR_DEF_TYPE, self.def_type);
    }
}

/// Loads the PAT on this CPU, if it has one, and switches the caches on: CR0.CD and CR0.NW are
/// as firmware has left them, and nobody promises that they are clear. Interrupts are off.
///
/// The MTRRs of another CPU than the boot CPU are made the boot CPU's.
///
/// In the order of Intel SDM volume 3, 12.12.4, which is that of 12.11.8: no line and no
/// translation of before may be used after the types have changed. CD without NW is the mode in
/// which caches are coherent and fill nothing (12.5.1); NW without CD is a #GP.
#[doc(alias = "cache_cpu_init")]
#[doc(alias = "pat_cpu_init")]
pub(crate) fn enable() {
    let found = Cr0::read();
    let registers = Registers::read();
    if percpu::cpu() == 0 {
        CACHES_WERE_OFF.store((found & CACHES_OFF).bits(), Ordering::Relaxed);
        BOOT.call_once(|| registers.clone());
    }
    // SAFETY: caches that fill nothing are slow and as right as others (H-2).
    unsafe { Cr0::write((found | Cr0Flags::CACHE_DISABLE) - Cr0Flags::NOT_WRITE_THROUGH) };
    write_back_caches();
    cpu::flush_tlb();
    if cpu::features().pat {
        // SAFETY: the MSR exists, and all types in the value are valid. On the boot CPU no entry
        // in use selects type 1; on another those of the framebuffer do, which it has not
        // touched, and no line or translation of them outlives the next two steps (H-2).
        unsafe { Msr::new(IA32_PAT).write(PAT_WITH_WC) };
    }
    if let Some(wanted) = BOOT.get().filter(|boot| **boot != registers) {
        wanted.write();
        percpu::this().mtrrs_set.store(true, Ordering::Relaxed);
    }
    write_back_caches();
    cpu::flush_tlb();
    // SAFETY: CR0 as it was found, with caches (H-2).
    unsafe { Cr0::write(found - CACHES_OFF) };
}

/// The eight memory types that entries choose from, a byte each; 0 without PAT.
pub(crate) fn pat() -> u64 {
    if cpu::features().pat {
        read(IA32_PAT)
    } else {
        0
    }
}

/// A variable range: the addresses whose bits under `mask` are those of `base`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variable {
    /// First address, a multiple of the length.
    pub(crate) base: u64,
    /// The bits that count, and no others.
    pub(crate) mask: u64,
    /// The type.
    pub(crate) kind: MemoryType,
}

/// What the MTRRs of a CPU say.
#[derive(Clone, Debug)]
pub(crate) struct Mtrrs {
    /// For addresses that nothing below names; also all there is while MTRRs are off.
    pub(crate) default: MemoryType,
    /// The types of the first MiB, if the fixed ranges count.
    pub(crate) fixed: Option<[u64; MTRR_FIXED.len()]>,
    /// Ranges that count.
    pub(crate) variable: ArrayVec<Variable, MAX_VARIABLE>,
    /// Up to here, from 4 GiB on, memory is write-back if no variable range names it.
    pub(crate) write_back_below: u64,
    /// Bits of a physical address.
    pub(crate) phys_bits: u8,
}

impl Mtrrs {
    /// Reads those of this CPU; `None` if it has none.
    #[doc(alias = "get_mtrr_state")]
    pub(crate) fn read() -> Option<Self> {
        let features = cpu::features();
        if !features.mtrr {
            return None;
        }
        let registers = Registers::read();
        let mut all = Self {
            default: MemoryType::of(registers.def_type),
            fixed: None,
            variable: ArrayVec::new(),
            write_back_below: 0,
            phys_bits: features.phys_bits,
        };
        if registers.def_type & ENABLE == 0 {
            // Then all memory is uncached (12.11.2.1).
            all.default = MemoryType::UNCACHED;
            return Some(all);
        }
        if registers.def_type & ENABLE_FIXED != 0 {
            all.fixed = registers.fixed;
        }
        let address = ((1 << features.phys_bits) - 1) & !(PAGE_SIZE - 1);
        for &(base, mask) in &registers.variable {
            if mask & VALID != 0 {
                all.variable.push(Variable {
                    base: base & address,
                    mask: mask & address,
                    kind: MemoryType::of(base),
                });
            }
        }
        if features.amd {
            let syscfg = read(AMD_SYSCFG);
            let both = AMD_TOM2_IS_ON | AMD_TOM2_IS_WRITE_BACK;
            if syscfg & both == both {
                all.write_back_below = read(AMD_TOP_MEM2) & address;
            }
        }
        Some(all)
    }

    /// The type of the page at `at`, and up to where (the next multiple of a page at least) it
    /// is the same. Ranges that overlap: uncached beats all, write-through beats write-back
    /// (Intel SDM volume 3, 12.11.4.1); anything else is undefined, and counts as uncached here.
    #[doc(alias = "mtrr_type_lookup")]
    pub(crate) fn type_at(&self, at: u64) -> (MemoryType, u64) {
        if let Some(fixed) = self.fixed.filter(|_| at < FIXED_END) {
            let mut start = 0;
            for (value, (_, bytes)) in fixed.iter().zip(MTRR_FIXED) {
                let field = (at - start) / bytes;
                if field < 8 {
                    return (
                        MemoryType::of(value >> (field * 8)),
                        start + (field + 1) * bytes,
                    );
                }
                start += 8 * bytes;
            }
        }
        const FOUR_GIB: u64 = 1 << 32;
        let mut until = 1 << self.phys_bits;
        let mut end_at = |border: u64| {
            if border > at {
                until = border.min(until);
            }
        };
        end_at(FIXED_END);
        end_at(FOUR_GIB);
        end_at(self.write_back_below);
        let mut found: Option<MemoryType> = None;
        for range in &self.variable {
            // The lowest bit of the mask is the length, as long as the mask has no gap: then
            // borders lie at multiples of it only.
            let length = 1 << range.mask.trailing_zeros().min(63);
            end_at(at / length * length + length);
            if at & range.mask == range.base & range.mask {
                found = Some(match found {
                    None => range.kind,
                    Some(other) if other == range.kind => other,
                    Some(other) => both(other, range.kind),
                });
            }
        }
        let by_default = if (FOUR_GIB..self.write_back_below).contains(&at) {
            MemoryType::WRITE_BACK
        } else {
            self.default
        };
        (found.unwrap_or(by_default), until)
    }
}

fn both(one: MemoryType, other: MemoryType) -> MemoryType {
    let cached = [MemoryType::WRITE_BACK, MemoryType::WRITE_THROUGH];
    if cached.contains(&one) && cached.contains(&other) {
        MemoryType::WRITE_THROUGH
    } else {
        MemoryType::UNCACHED
    }
}

/// A number that is the same on two CPUs if all that decides about memory types is.
pub(crate) fn fingerprint() -> u64 {
    // FNV-1a over the registers (Fowler, Noll, Vo).
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |value: u64| sum = (sum ^ value).wrapping_mul(0x100_0000_01b3);
    add(pat());
    add((Cr0::read() & CACHES_OFF).bits());
    let registers = Registers::read();
    add(registers.def_type);
    registers.fixed.into_iter().flatten().for_each(&mut add);
    for (base, mask) in registers.variable {
        add(base);
        add(mask);
    }
    sum
}

/// Says how many of the first `online` CPUs came with other MTRRs than the boot CPU's.
pub(crate) fn report_differences(online: usize) {
    let set = |cpu: &usize| percpu::area(*cpu).mtrrs_set.load(Ordering::Relaxed);
    let different = (1..online).filter(set).count();
    if different > 0 {
        log!("mtrr: {different} CPUs came with other MTRRs than CPU 0, and have the same now");
    }
}

/// Calls `each` with the first byte, the one behind the last, and the type of every part of
/// `range` that is not write-back.
fn for_each_odd(mtrrs: &Mtrrs, range: PfnRange, mut each: impl FnMut(u64, u64, MemoryType)) {
    let end = range.end.phys().as_u64();
    let mut at = range.start.phys().as_u64();
    while at < end {
        let (kind, until) = mtrrs.type_at(at);
        let until = until.min(end);
        if kind != MemoryType::WRITE_BACK {
            each(at, until, kind);
        }
        at = until;
    }
}

/// Bytes of `range` that are not write-back.
pub(crate) fn odd_bytes(range: PfnRange) -> u64 {
    let mut bytes = 0;
    if let Some(mtrrs) = Mtrrs::read() {
        for_each_odd(&mtrrs, range, |from, until, _| bytes += until - from);
    }
    bytes
}

/// Says in one line what was found, and names RAM that is not write-back. `screen`: whether
/// there is a framebuffer.
#[doc(alias = "mtrr_bp_init")]
pub(crate) fn report(ram: &[RamRange], screen: bool) {
    let off = Cr0Flags::from_bits_truncate(CACHES_WERE_OFF.load(Ordering::Relaxed));
    let caches = match (
        off.contains(Cr0Flags::CACHE_DISABLE),
        off.contains(Cr0Flags::NOT_WRITE_THROUGH),
    ) {
        (false, false) => "caches on",
        (true, false) => "caches on, firmware left CD set",
        (true, true) => "caches on, firmware left CD and NW set",
        (false, true) => "caches on, firmware left NW set",
    };
    let screen = match (screen, cpu::features().pat) {
        (false, _) => "no screen",
        (true, true) => "screen write-combining",
        (true, false) => "screen as its MTRR says",
    };
    let Some(mtrrs) = Mtrrs::read() else {
        log!("x86/mtrr: {caches}; no MTRRs; {screen}, local APIC uncached");
        return;
    };
    let mut odd = 0_u64;
    for range in ram.iter().map(|ram| ram.range) {
        for_each_odd(&mtrrs, range, |from, until, kind| {
            odd += until - from;
            warn!(
                "x86/mtrr: RAM [mem {from:#018x}-{:#018x}] is {kind}: firmware should make it write-back",
                until - 1
            );
        });
    }
    log!(
        "x86/mtrr: {caches}; default {}, {} variable ranges, fixed ranges {}; RAM write-back but for {} KiB; {screen}, local APIC uncached",
        mtrrs.default,
        mtrrs.variable.len(),
        if mtrrs.fixed.is_some() { "on" } else { "off" },
        odd >> 10,
    );
}
