//! Machine checks: the processor says that hardware has failed (Intel SDM volume 3, chapter 16;
//! AMD APM volume 2, chapter 9).
//!
//! Each CPU has banks of registers. The handler of #MC comes between any two instructions, so
//! it takes no lock: it writes down what the banks say ([`NOTES`]) and goes on, if the processor
//! says that it may. The boot CPU, when it has time, says it aloud and gives a frame that has
//! broken to [`mm::system::Mm::memory_failure`]. What cannot go on is a panic that lists the banks.
#![expect(unsafe_code, reason = "reads and writes MSRs and CR4")]

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use mm::addr::{PAGE_SHIFT, Pfn};
use mm::machine::Processors as _;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::trap::TrapFrame;
use super::{cpu, percpu, tsc};
use crate::metal::Metal;
use crate::state::MM;
use crate::{log, warn};

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const CAP_HAS_CTL: u64 = 1 << 8;
/// Recovery is told apart from the end (`MCG_SER_P`).
const CAP_RECOVERY: u64 = 1 << 24;
/// The program that was interrupted can go on.
const STATUS_RIP_VALID: u64 = 1 << 0;

// Of bank `n`, at `4 * n` behind these.
const BANK_CTL: u32 = 0x400;
const BANK_STATUS: u32 = 0x401;
const BANK_ADDR: u32 = 0x402;
const BANK_MISC: u32 = 0x403;

const VALID: u64 = 1 << 63;
const OVERFLOW: u64 = 1 << 62;
const UNCORRECTED: u64 = 1 << 61;
const MISC_VALID: u64 = 1 << 59;
const ADDR_VALID: u64 = 1 << 58;
const CONTEXT_CORRUPT: u64 = 1 << 57;
const SIGNALED: u64 = 1 << 56;
const ACTION_REQUIRED: u64 = 1 << 55;

fn read(msr: u32) -> u64 {
    // SAFETY: CPUID has machine checks, and `MCG_CAP` the bank or register (H-2).
    unsafe { Msr::new(msr).read() }
}

fn write(msr: u32, value: u64) {
    // SAFETY: as in `read`: all ones and 0 are what these registers take, and no memory
    // changes (H-2).
    unsafe { Msr::new(msr).write(value) };
}

/// How bad it is (Intel SDM volume 3, table 16-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Severity {
    /// Hardware has put it right.
    Corrected,
    /// Something is broken that nobody has used yet: this CPU can go on.
    ActionOptional,
    /// It cannot.
    Fatal,
}

/// What a bank says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Report {
    /// The CPU whose bank it is.
    pub(crate) cpu: u32,
    pub(crate) bank: u32,
    /// `IA32_MCi_STATUS`.
    pub(crate) status: u64,
    /// `IA32_MCi_ADDR`, if that is valid.
    pub(crate) addr: u64,
    /// `IA32_MCi_MISC`, if that is valid.
    pub(crate) misc: u64,
}

impl Report {
    /// How bad it is, on a processor that tells recovery apart, or does not.
    #[doc(alias = "mce_severity")]
    pub(crate) fn severity(&self, recovery: bool) -> Severity {
        let has = |bit| self.status & bit != 0;
        match (has(UNCORRECTED), has(CONTEXT_CORRUPT)) {
            (false, _) => Severity::Corrected,
            (true, false) if recovery && !(has(SIGNALED) && has(ACTION_REQUIRED)) => {
                Severity::ActionOptional
            }
            (true, _) => Severity::Fatal,
        }
    }

    /// The frame of memory that has broken, if it is memory and the bank says where: a memory
    /// controller's or a cache's error with a physical address (Intel SDM volume 3, 16.9.2 and
    /// 16.3.2.4.1).
    #[doc(alias = "mce_usable_address")]
    #[doc(alias = "mce_is_memory_error")]
    pub(crate) fn frame(&self, recovery: bool) -> Option<Pfn> {
        const PHYSICAL: u64 = 2;
        let is_memory = self.status & 0xef80 == 0x0080 || self.status & 0xef00 == 0x0100;
        // Bits below the lowest valid one say nothing, so a whole page must be named; without
        // recovery the address is as it is.
        let is_exact = !recovery
            || self.status & MISC_VALID != 0
                && self.misc >> 6 & 7 == PHYSICAL
                && self.misc & 0x3f <= u64::from(PAGE_SHIFT);
        let address = self.status & ADDR_VALID != 0 && is_memory && is_exact;
        address.then(|| Pfn::try_new(self.addr >> PAGE_SHIFT))?
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu, bank, status, ..
        } = *self;
        write!(f, "CPU {cpu}, bank {bank}: ")?;
        f.write_str(match self.severity(has_recovery()) {
            Severity::Corrected => "corrected",
            Severity::ActionOptional => "not corrected, not used yet",
            Severity::Fatal => "not corrected",
        })?;
        let what = match status & 0xffff {
            code if code & 0xef80 == 0x0080 => "memory controller",
            code if code & 0xef00 == 0x0100 => "cache",
            code if code & 0xeff0 == 0x0010 => "TLB",
            code if code & 0xe800 == 0x0800 => "bus or interconnect",
            _ => "other",
        };
        write!(f, ", {what}, status {status:#018x}")?;
        if status & ADDR_VALID != 0 {
            write!(f, ", address {:#x}", self.addr)?;
        }
        if status & MISC_VALID != 0 {
            write!(f, ", misc {:#x}", self.misc)?;
        }
        if status & OVERFLOW != 0 {
            f.write_str(", others were lost")?;
        }
        Ok(())
    }
}

/// Whether the processor tells apart what it can go on from.
fn has_recovery() -> bool {
    cpu::features().mca && read(MCG_CAP) & CAP_RECOVERY != 0
}

fn banks() -> u32 {
    if cpu::features().mca {
        (read(MCG_CAP) & 0xff) as u32
    } else {
        0
    }
}

/// Calls `each` with what each bank of this CPU says; those that say something are emptied if
/// `each` returns true.
fn for_each_bank(each: &mut dyn FnMut(Report) -> bool) {
    for bank in 0..banks() {
        let status = read(BANK_STATUS + 4 * bank);
        if status & VALID == 0 {
            continue;
        }
        let report = Report {
            cpu: u32::try_from(percpu::cpu()).unwrap_or(u32::MAX),
            bank,
            status,
            addr: if status & ADDR_VALID != 0 {
                read(BANK_ADDR + 4 * bank)
            } else {
                0
            },
            misc: if status & MISC_VALID != 0 {
                read(BANK_MISC + 4 * bank)
            } else {
                0
            },
        };
        if each(report) {
            write(BANK_STATUS + 4 * bank, 0);
        }
    }
}

/// Switches machine checks on, on this CPU, as Intel SDM volume 3, 16.8 has it. What banks
/// say from before (a machine check that ended the machine leaves it there) is noted.
#[doc(alias = "__mcheck_cpu_init_generic")]
pub(crate) fn enable() {
    if !cpu::features().mca {
        return;
    }
    if read(MCG_CAP) & CAP_HAS_CTL != 0 {
        write(MCG_CTL, u64::MAX);
    }
    for_each_bank(&mut |report| {
        note(report);
        true
    });
    for bank in 0..banks() {
        write(BANK_CTL + 4 * bank, u64::MAX);
    }
    // SAFETY: the feature exists, and vector 18 has a handler with a stack of its own (H-3).
    unsafe { Cr4::write(Cr4::read() | Cr4Flags::MACHINE_CHECK_EXCEPTION) };
}

/// A machine check. Returns if this CPU can go on.
///
/// # Errors
/// What says that it cannot, or that no bank says anything.
#[doc(alias = "do_machine_check")]
pub(crate) fn on_machine_check(_frame: &TrapFrame) -> Result<(), &'static str> {
    if !cpu::features().mca {
        return Err("no bank says why");
    }
    let global = read(MCG_STATUS);
    let recovery = read(MCG_CAP) & CAP_RECOVERY != 0;
    let mut fatal = None;
    for_each_bank(&mut |report| {
        // What ends the machine stays in the bank: firmware, or the next kernel, can still say it.
        let stays = report.severity(recovery) == Severity::Fatal;
        if stays {
            fatal = Some("a bank says that this CPU cannot go on");
        } else {
            note(report);
        }
        !stays
    });
    if let Some(why) = fatal {
        return Err(why);
    }
    if global & STATUS_RIP_VALID == 0 {
        return Err("the processor cannot go back to where it was");
    }
    // Another one may come from here on.
    write(MCG_STATUS, 0);
    Ok(())
}

/// Calls `each` with what the banks of this CPU say, for a panic.
pub(crate) fn describe(each: &mut dyn FnMut(Report)) {
    for_each_bank(&mut |report| {
        each(report);
        false
    });
}

/// A report on its way from a handler to somebody who has time. `state` says whose it is: a
/// handler's from EMPTY to WRITTEN, then the reader's.
struct Note {
    state: AtomicU8,
    cpu: AtomicU32,
    bank: AtomicU32,
    words: [AtomicU64; 3],
}

const EMPTY: u8 = 0;
const BEING_WRITTEN: u8 = 1;
const WRITTEN: u8 = 2;

static NOTES: [Note; 32] = [const {
    Note {
        state: AtomicU8::new(EMPTY),
        cpu: AtomicU32::new(0),
        bank: AtomicU32::new(0),
        words: [const { AtomicU64::new(0) }; 3],
    }
}; 32];
/// Reports that found no place.
static LOST: AtomicU64 = AtomicU64::new(0);

fn note(report: Report) {
    let free = NOTES.iter().find(|note| {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let taken = note
            .state
            .compare_exchange(EMPTY, BEING_WRITTEN, acquire, relaxed);
        taken.is_ok()
    });
    let Some(note) = free else {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    };
    note.cpu.store(report.cpu, Ordering::Relaxed);
    note.bank.store(report.bank, Ordering::Relaxed);
    for (word, value) in note
        .words
        .iter()
        .zip([report.status, report.addr, report.misc])
    {
        word.store(value, Ordering::Relaxed);
    }
    // Release: pairs with `take`.
    note.state.store(WRITTEN, Ordering::Release);
}

fn take() -> Option<Report> {
    let note = NOTES
        .iter()
        .find(|note| note.state.load(Ordering::Acquire) == WRITTEN)?;
    let [status, addr, misc] = [0, 1, 2].map(|n: usize| note.words[n].load(Ordering::Relaxed));
    let report = Report {
        cpu: note.cpu.load(Ordering::Relaxed),
        bank: note.bank.load(Ordering::Relaxed),
        status,
        addr,
        misc,
    };
    // Release: the handler that takes the place writes after these loads.
    note.state.store(EMPTY, Ordering::Release);
    Some(report)
}

/// How often errors that hardware has corrected are looked for: they interrupt nobody.
#[doc(alias = "check_interval")]
const POLL_MICROS: u64 = 300_000_000;
/// When they were looked for last.
static POLLED: AtomicU64 = AtomicU64::new(0);

/// Says what has been noted, and takes frames that have broken out of use. For the boot CPU,
/// with no lock held and interrupts on; to be called often.
#[doc(alias = "mce_gen_pool_process")]
pub(crate) fn say_what_was_noted() {
    let now = tsc::micros();
    if now.saturating_sub(POLLED.load(Ordering::Relaxed)) >= POLL_MICROS {
        POLLED.store(now, Ordering::Relaxed);
        poll();
    }
    while let Some(report) = take() {
        let recovery = has_recovery();
        let severity = report.severity(recovery);
        if severity == Severity::Corrected {
            log!("mce: [Hardware Error]: {report}");
        } else {
            warn!("mce: [Hardware Error]: {report}");
        }
        let Some(pfn) = report
            .frame(recovery)
            .filter(|_| severity != Severity::Corrected)
        else {
            continue;
        };
        match MM.memory_failure(&Metal, pfn) {
            Ok(_) => {}
            Err(why) => warn!("mce: frame {:#x} has broken: {why:?}", pfn.as_u64()),
        }
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        warn!("mce: {lost} reports were lost, for there were too many at once");
    }
}

/// Notes what the banks of all CPUs say of themselves.
#[doc(alias = "machine_check_poll")]
fn poll() {
    if !cpu::features().mca {
        return;
    }
    Metal.on_each_cpu(&|| {
        for_each_bank(&mut |report| {
            note(report);
            true
        });
    });
}
