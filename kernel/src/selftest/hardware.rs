//! What the processor and the chipset are told, and what they say: memory types, machine
//! checks, lines of I/O APICs.

use arrayvec::ArrayVec;
use ktest::{check, check_eq, ktest, skip};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use crate::arch::x86_64::cpu;
use crate::arch::x86_64::machine_check::{Report, Severity};
use crate::arch::x86_64::memory_types::{MemoryType, Mtrrs, Variable};
use crate::drivers::io_apic::IoApic;
use crate::state;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Uncached, with what a PC of 6 GiB has: write-back up to 3 GiB and from 4 to 6.
fn of_a_pc() -> Mtrrs {
    let range = |base, bytes: u64, kind| Variable {
        base,
        mask: (1 << 40) - bytes,
        kind,
    };
    let mut variable = ArrayVec::new();
    variable.extend([
        range(0, 2 * GIB, MemoryType::WRITE_BACK),
        range(2 * GIB, GIB, MemoryType::WRITE_BACK),
        range(4 * GIB, 2 * GIB, MemoryType::WRITE_BACK),
    ]);
    Mtrrs {
        default: MemoryType::UNCACHED,
        fixed: None,
        variable,
        write_back_below: 0,
        phys_bits: 40,
    }
}

/// The stretches of one type up to `end`, as their ends and types.
fn stretches(mtrrs: &Mtrrs, end: u64) -> alloc::vec::Vec<(u64, MemoryType)> {
    let mut all: alloc::vec::Vec<(u64, MemoryType)> = alloc::vec::Vec::new();
    let mut at = 0;
    while at < end {
        let (kind, until) = mtrrs.type_at(at);
        match all.last_mut() {
            Some((end, last)) if *last == kind => *end = until,
            _ => all.push((until, kind)),
        }
        at = until;
    }
    all
}

ktest! { suite = memory_types;
    /// Caches are on, whatever firmware has left; machine checks, too.
    fn caches_are_on() {
        let off = Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH;
        check!(!Cr0::read().intersects(off), "CR0 is {:#x}", Cr0::read_raw());
        check_eq!(Cr4::read().contains(Cr4Flags::MACHINE_CHECK_EXCEPTION), cpu::features().mca);
    }

    /// Variable ranges, the default between them, and borders where the type changes.
    fn variable_ranges() {
        let (wb, uc) = (MemoryType::WRITE_BACK, MemoryType::UNCACHED);
        let mut mtrrs = of_a_pc();
        let pc = [(3 * GIB, wb), (4 * GIB, uc), (6 * GIB, wb), (8 * GIB, uc)];
        check_eq!(stretches(&mtrrs, 8 * GIB), pc);
        // A hole of 2 MiB at 1 GiB: uncached beats write-back.
        mtrrs.variable.push(Variable { base: GIB, mask: (1 << 40) - 2 * MIB, kind: uc });
        check_eq!(stretches(&mtrrs, 2 * GIB)[..2], [(GIB, wb), (GIB + 2 * MIB, uc)]);
        // Write-through beats write-back; two that do not go together count as uncached.
        let last = mtrrs.variable.len() - 1;
        mtrrs.variable[last].kind = MemoryType::WRITE_THROUGH;
        check_eq!(mtrrs.type_at(GIB).0, MemoryType::WRITE_THROUGH);
        mtrrs.variable[last].kind = MemoryType::WRITE_COMBINING;
        check_eq!(mtrrs.type_at(GIB).0, uc);
        check_eq!(mtrrs.type_at(GIB - 4096), (wb, GIB));
    }

    /// The first MiB has types of its own, in steps of 64, 16 and 4 KiB.
    fn fixed_ranges() {
        let mut mtrrs = of_a_pc();
        let all_wb = 0x0606_0606_0606_0606;
        let mut fixed = [all_wb; 11];
        // Uncached: 0xa0000 to 0xbffff, 0xc3000, 0xff000.
        fixed[2] = 0;
        fixed[3] = 0x0606_0606_0006_0606;
        fixed[10] = 0x0006_0606_0606_0606;
        mtrrs.fixed = Some(fixed);
        let (wb, uc) = (MemoryType::WRITE_BACK, MemoryType::UNCACHED);
        check_eq!(stretches(&mtrrs, MIB), [
            (0xa_0000, wb), (0xc_0000, uc), (0xc_3000, wb), (0xc_4000, uc), (0xf_f000, wb),
            (MIB, uc),
        ]);
        check_eq!(mtrrs.type_at(MIB).0, wb);
    }

    /// On AMD's processors memory above 4 GiB needs no range.
    fn second_top_of_memory() {
        let mut mtrrs = of_a_pc();
        mtrrs.variable.truncate(2);
        check_eq!(mtrrs.type_at(5 * GIB).0, MemoryType::UNCACHED);
        mtrrs.write_back_below = 5 * GIB;
        let (wb, uc) = (MemoryType::WRITE_BACK, MemoryType::UNCACHED);
        let all = [(3 * GIB, wb), (4 * GIB, uc), (5 * GIB, wb), (6 * GIB, uc)];
        check_eq!(stretches(&mtrrs, 6 * GIB), all);
    }
}

ktest! { suite = machine_check;
    /// Which reports end the machine, and which name a frame.
    fn reports_are_understood() {
        const VALID: u64 = 1 << 63;
        const UC: u64 = 1 << 61;
        const MISC: u64 = 1 << 59;
        const ADDR: u64 = 1 << 58;
        const PCC: u64 = 1 << 57;
        const S: u64 = 1 << 56;
        const AR: u64 = 1 << 55;
        // A memory controller's read error on channel 0; an exact physical address.
        let read_error = 0x90;
        let page = 2 << 6 | 12;
        let report = |status, misc| Report { status: VALID | status, misc, addr: 0x1234_5678, ..Report::default() };
        for (status, recovery, severity) in [
            (0, true, Severity::Corrected),
            (0, false, Severity::Corrected),
            (UC, true, Severity::ActionOptional),
            (UC | S, true, Severity::ActionOptional),
            (UC | S | AR, true, Severity::Fatal),
            (UC | PCC, true, Severity::Fatal),
            (UC, false, Severity::Fatal),
        ] {
            check_eq!(report(status, 0).severity(recovery), severity, "{status:#x}, {recovery}");
        }
        let frame = |status, misc| report(status, misc).frame(true).map(|pfn| pfn.as_u64());
        check_eq!(frame(UC | ADDR | MISC | read_error, page), Some(0x12345));
        // A scrubbing error and a cache's line are memory, too; a bus error is not.
        check_eq!(frame(UC | ADDR | MISC | 0xc0, page), Some(0x12345));
        check_eq!(frame(UC | ADDR | MISC | 0x17a, page), Some(0x12345));
        check_eq!(frame(UC | ADDR | MISC | 0xe0b, page), None);
        // No address, a linear one, or one that is not exact enough.
        check_eq!(frame(UC | MISC | read_error, page), None);
        check_eq!(frame(UC | ADDR | read_error, page), None);
        check_eq!(frame(UC | ADDR | MISC | read_error, 1 << 6 | 12), None);
        check_eq!(frame(UC | ADDR | MISC | read_error, 2 << 6 | 13), None);
    }
}

ktest! { suite = io_apic;
    /// No line is open but firmware's own, and one that is opened is found and masked.
    fn lines_are_masked() {
        let all = &state::madt().io_apics;
        if all.is_empty() {
            skip!("firmware lists no I/O APIC");
        }
        for (n, &at) in all.iter().enumerate() {
            let device = IoApic::at(n, at);
            let Some(last) = device.lines().last() else { continue };
            check!(!device.has_open_line(), "at {at:#x}");
            let before = device.read(last);
            // An edge that nothing raises, with a vector that nobody has.
            device.write(last, 0xf1);
            let open = device.has_open_line();
            device.mask();
            let masked = !device.has_open_line();
            device.write(last, before);
            check!(open && masked, "at {at:#x}: open {open}, masked {masked}");
        }
    }
}
