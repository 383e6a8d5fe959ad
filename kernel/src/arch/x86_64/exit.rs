//! How the kernel ends.
#![expect(unsafe_code, reason = "names the I/O port of a QEMU device")]

use qemu_exit::{QEMUExit, X86};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::{cpu, irq, tsc};
use crate::drivers::keyboard;

/// What the run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All is well: QEMU ends with status 33.
    Pass,
    /// Something failed: QEMU ends with status 35.
    Fail,
}

/// Port of `-device isa-debug-exit,iobase=0xf4,iosize=0x04`.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// Starts the machine again: by the keyboard controller, as PCs have done it for ever,
/// else by a fault that cannot be delivered.
pub(crate) fn reboot() -> ! {
    const PULSE_RESET: u8 = 0xfe;
    let _ = irq::save();
    irq::drain_write_combining();
    // The command pulses the processor's reset line.
    keyboard::command(PULSE_RESET);
    tsc::wait_until(RESET_MICROS, &|| false);
    let none = DescriptorTablePointer {
        limit: 0,
        base: VirtAddr::zero(),
    };
    // SAFETY: nothing is to go on: the next exception has no handler (H-2).
    unsafe { lidt(&none) };
    x86_64::instructions::interrupts::int3();
    irq::halt_forever()
}

/// How long the keyboard controller takes.
const RESET_MICROS: u64 = 100_000;

/// Ends the machine. Under a hypervisor QEMU is told the verdict; where there is
/// no such device, and on a PC, the CPU stops and the screen stays as it is.
pub(crate) fn end(verdict: Verdict) -> ! {
    if cpu::features().hypervisor {
        // The value v becomes status (v << 1) | 1; 0 and 1 are QEMU's own.
        let value = match verdict {
            Verdict::Pass => 0x10,
            Verdict::Fail => 0x11,
        };
        // SAFETY: under a hypervisor the port belongs to the exit device or to
        // nothing; the write has no other effect (H-1).
        let device = unsafe { X86::new(DEBUG_EXIT_PORT, 33) };
        device.exit(value);
    }
    irq::halt_forever()
}
