//! Interrupts of this CPU, on and off.
#![expect(unsafe_code, reason = "drains the processor's buffers")]

use x86_64::instructions::interrupts;

/// Whether interrupts are on.
pub(crate) fn are_on() -> bool {
    interrupts::are_enabled()
}

/// Switches interrupts off; whether they were on.
#[doc(alias = "local_irq_save")]
pub(crate) fn save() -> bool {
    let on = interrupts::are_enabled();
    if on {
        interrupts::disable();
    }
    on
}

/// Puts back what [`save`] returned.
#[doc(alias = "local_irq_restore")]
pub(crate) fn restore(on: bool) {
    if on {
        interrupts::enable();
    }
}

/// Sends what this CPU has stored to write-combining memory, as the framebuffer is, on its way.
/// Such stores may stay in the processor's buffers for good if nothing drains them, and `hlt` is
/// not among what does (Intel SDM volume 3, 12.3.1; AMD APM volume 2, 7.4.1).
#[doc(alias = "wmb")]
pub(crate) fn drain_write_combining() {
    // SAFETY: every x86_64 processor has the instruction, which orders stores and changes
    // nothing (H-2).
    unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// Stops this CPU for good: interrupts off, nothing left in its buffers, and asleep. Whatever
/// ends here has its last words on the screen.
pub(crate) fn halt_forever() -> ! {
    interrupts::disable();
    drain_write_combining();
    loop {
        // An NMI wakes it, hence the loop.
        x86_64::instructions::hlt();
    }
}
