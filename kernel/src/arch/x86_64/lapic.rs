//! The local APIC of each CPU: how CPUs interrupt and start each other (Intel SDM
//! volume 3, chapter 11).
//!
//! Its registers are memory at one address that means another APIC on each CPU, or
//! MSRs (x2APIC). Written here and not taken from a crate: docs/adr/0011-local-apic.md.
#![expect(unsafe_code, reason = "reads and writes device registers and MSRs")]

use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

use x86_64::registers::model_specific::Msr;

use super::{cpu, irq, layout};

/// Vector of calls from other CPUs ([`crate::smp::call`]).
#[doc(alias = "CALL_FUNCTION_VECTOR")]
pub(crate) const CALL_VECTOR: u8 = 0xfb;
/// Vector that only wakes a CPU up.
#[doc(alias = "RESCHEDULE_VECTOR")]
pub(crate) const WAKE_VECTOR: u8 = 0xfd;
/// Vector of the APIC's own errors.
#[doc(alias = "ERROR_APIC_VECTOR")]
pub(crate) const ERROR_VECTOR: u8 = 0xfe;
/// Vector of interrupts that were gone when the CPU looked.
#[doc(alias = "SPURIOUS_APIC_VECTOR")]
pub(crate) const SPURIOUS_VECTOR: u8 = 0xff;

/// `IA32_APIC_BASE`.
const APIC_BASE: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

// Register numbers: times 16 the offset in memory, plus 0x800 the MSR.
const ID: u32 = 0x02;
const TASK_PRIORITY: u32 = 0x08;
const END_OF_INTERRUPT: u32 = 0x0b;
const SPURIOUS: u32 = 0x0f;
const IN_SERVICE: u32 = 0x10;
const ERROR_STATUS: u32 = 0x28;
const COMMAND: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const LVT_CMCI: u32 = 0x2f;
const LVT_TIMER: u32 = 0x32;
const LVT_THERMAL: u32 = 0x33;
const LVT_PERFORMANCE: u32 = 0x34;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const LVT_ERROR: u32 = 0x37;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_DIVIDE: u32 = 0x3e;
const VERSION: u32 = 0x03;
// AMD's extension (AMD APM volume 2, chapter 16, "Extended APIC Feature Register" and
// "Extended Interrupt Local Vector Table"): how many more entries there are, and the first.
const EXTENDED_FEATURES: u32 = 0x40;
const LVT_EXTENDED: u32 = 0x50;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 4 << 8;
/// In the version register: there is [`EXTENDED_FEATURES`].
const HAS_EXTENSION: u32 = 1 << 31;
const DELIVERY_PENDING: u32 = 1 << 12;
const LEVEL_ASSERT: u32 = 1 << 14;

/// Polls until a command counts as sent.
const MAX_POLLS: u32 = 1_000_000;

/// How registers are reached. Set once by the boot CPU, before any other runs.
static MODE: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const XAPIC: u8 = 1;
const X2APIC: u8 = 2;

/// Highest APIC id that can be named without x2APIC.
pub(crate) const MAX_XAPIC_ID: u32 = 0xfe;

/// What one CPU sends another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ipi {
    /// An interrupt with this vector.
    Fixed(u8),
    /// One that cannot be switched off.
    Nmi,
    /// Reset, and wait for a [`Ipi::Startup`].
    Init,
    /// Start in real mode at this page of the first megabyte.
    Startup(u8),
}

fn read(register: u32) -> u32 {
    if MODE.load(Ordering::Relaxed) == X2APIC {
        // SAFETY: the register exists (checked by whoever calls) and x2APIC is on (H-4).
        let value = unsafe { Msr::new(0x800 + register).read() };
        #[expect(clippy::cast_possible_truncation, reason = "the upper half is zero")]
        return value as u32;
    }
    let at = ptr::with_exposed_provenance::<u32>(layout::LAPIC + register as usize * 16);
    // SAFETY: the page is this CPU's local APIC, mapped uncached by `map` before
    // `MODE` was set; a 4-byte register lies there (H-4).
    unsafe { at.read_volatile() }
}

fn write(register: u32, value: u32) {
    if MODE.load(Ordering::Relaxed) == X2APIC {
        // SAFETY: as in `read`; what the write does is up to whoever calls (H-4).
        unsafe { Msr::new(0x800 + register).write(u64::from(value)) };
        return;
    }
    let at = ptr::with_exposed_provenance_mut::<u32>(layout::LAPIC + register as usize * 16);
    // SAFETY: as in `read` (H-4).
    unsafe { at.write_volatile(value) };
}

/// Physical address of the registers, or `None` if they are MSRs. Decides which for
/// all CPUs. To be called by the boot CPU, which then maps the page at
/// [`layout::LAPIC`] before anything else here is used.
pub(crate) fn detect() -> Option<u64> {
    // SAFETY: every x86_64 processor has a local APIC and this MSR (H-4).
    let base = unsafe { Msr::new(APIC_BASE).read() };
    let mode = if cpu::features().x2apic {
        X2APIC
    } else {
        XAPIC
    };
    MODE.store(mode, Ordering::Relaxed);
    (mode == XAPIC).then_some(base & BASE_ADDRESS)
}

/// Whether [`detect`] has run: before, there is one CPU and nothing to send.
pub(crate) fn is_ready() -> bool {
    MODE.load(Ordering::Relaxed) != NONE
}

/// Whether registers are MSRs.
pub(crate) fn is_x2apic() -> bool {
    MODE.load(Ordering::Relaxed) == X2APIC
}

/// `xAPIC` or `x2APIC`: how registers are reached. Nothing before [`detect`].
pub(crate) fn mode_name() -> Option<&'static str> {
    match MODE.load(Ordering::Relaxed) {
        XAPIC => Some("xAPIC"),
        X2APIC => Some("x2APIC"),
        _ => None,
    }
}

/// How firmware has left this CPU's local APIC: `disabled`, `xAPIC` or `x2APIC`.
pub(crate) fn left_by_firmware() -> &'static str {
    // SAFETY: as in `detect` (H-4).
    let base = unsafe { Msr::new(APIC_BASE).read() };
    match (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0) {
        (false, _) => "disabled",
        (true, false) => "xAPIC",
        (true, true) => "x2APIC",
    }
}

/// Switches this CPU's local APIC on: fixed interrupts and NMIs from other CPUs come
/// through, timers and pins do not, but for the NMI pin of the boot CPU.
#[doc(alias = "setup_local_APIC")]
#[doc(alias = "__x2apic_enable")]
pub(crate) fn enable(boot_cpu: bool) {
    // SAFETY: as in `detect` (H-4).
    let base = unsafe { Msr::new(APIC_BASE).read() };
    let mut on = base;
    let wanted = if is_x2apic() { BASE_X2APIC } else { 0 };
    // One state at a time: from disabled to x2APIC in one write is a #GP (Intel SDM volume 3,
    // 11.12.1, figure 11-27). Firmware that has x2APIC on already stays there: the way back
    // leads through "disabled" only, and `detect` has chosen x2APIC then, since CPUID has it.
    for step in [BASE_ENABLE, wanted] {
        if on & step != step {
            on |= step;
            // SAFETY: the address stays; the APIC is switched on, to x2APIC only where the
            // processor has it (H-4).
            unsafe { Msr::new(APIC_BASE).write(on) };
        }
    }
    write(TASK_PRIORITY, 0);
    // Entries are masked while the software enable bit is clear; then they stay so.
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    let version = read(VERSION);
    let last = version >> 16 & 0xff;
    write(LVT_TIMER, MASKED);
    if last >= 4 {
        write(LVT_PERFORMANCE, MASKED);
    }
    if last >= 5 {
        write(LVT_THERMAL, MASKED);
    }
    // Corrected machine checks: the banks are read when there is time.
    if last >= 6 {
        write(LVT_CMCI, MASKED);
    }
    if version & HAS_EXTENSION != 0 {
        for entry in 0..read(EXTENDED_FEATURES) >> 16 & 0xff {
            write(LVT_EXTENDED + entry, MASKED);
        }
    }
    write(LVT_LINT0, MASKED);
    // By convention the pin for NMIs.
    write(LVT_LINT1, if boot_cpu { DELIVER_NMI } else { MASKED });
    write(LVT_ERROR, u32::from(ERROR_VECTOR));
    // Twice: the first write latches what was pending.
    write(ERROR_STATUS, 0);
    write(ERROR_STATUS, 0);
    write(END_OF_INTERRUPT, 0);
}

/// This CPU's id.
pub(crate) fn id() -> u32 {
    if is_x2apic() {
        read(ID)
    } else {
        read(ID) >> 24
    }
}

/// Says that the interrupt being handled is done.
#[doc(alias = "apic_eoi")]
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Whether the APIC delivered `vector` and waits to hear that it is done. Not so for
/// what the old interrupt controller, or a spurious vector, brought.
pub(crate) fn in_service(vector: u8) -> bool {
    read(IN_SERVICE + u32::from(vector / 32)) >> (vector % 32) & 1 != 0
}

/// The APIC's error flags (Intel SDM volume 3, figure 11-9), which are then cleared.
pub(crate) fn take_errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

/// Stops this CPU, the boot CPU or another, until the next interrupt, some milliseconds at
/// most: the timer's clock is 25 MHz to 1 GHz.
pub(crate) fn sleep() {
    const TICKS: u32 = 1_000_000;
    const DIVIDE_BY_1: u32 = 0b1011;
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(LVT_TIMER, u32::from(WAKE_VECTOR));
    debug_assert!(irq::are_on(), "nothing would wake this CPU");
    let _ = irq::save();
    write(TIMER_INITIAL, TICKS);
    irq::drain_write_combining();
    x86_64::instructions::interrupts::enable_and_hlt();
    write(LVT_TIMER, MASKED);
}

/// Sends `what` to the CPU whose APIC id is `to`.
///
/// What this CPU has stored is seen by the receiver's handler.
#[doc(alias = "__default_send_IPI_dest_field")]
pub(crate) fn send(to: u32, what: Ipi) {
    let command = match what {
        Ipi::Fixed(vector) => u32::from(vector),
        Ipi::Nmi => 4 << 8,
        Ipi::Init => 5 << 8,
        Ipi::Startup(page) => 6 << 8 | u32::from(page),
    } | LEVEL_ASSERT;
    if is_x2apic() {
        // SAFETY: fences do no harm. Unlike memory, the MSR is not ordered behind
        // earlier stores (Intel SDM volume 3, 11.12.3) (H-4).
        unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
        let command = u64::from(to) << 32 | u64::from(command);
        // SAFETY: x2APIC is on; the receiver has a handler for what is sent (H-4).
        unsafe { Msr::new(0x800 + COMMAND).write(command) };
        return;
    }
    // An interrupt between the two halves might send something itself.
    let irq = irq::save();
    write(COMMAND_HIGH, to << 24);
    write(COMMAND, command);
    // At once, but for an APIC that is broken: then a panic has to get by, too.
    for _ in 0..MAX_POLLS {
        if read(COMMAND) & DELIVERY_PENDING == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    irq::restore(irq);
}
