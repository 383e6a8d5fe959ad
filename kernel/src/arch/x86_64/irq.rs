//! Interrupts of this CPU, on and off.

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

/// Stops this CPU for good: interrupts off, and asleep.
pub(crate) fn halt_forever() -> ! {
    interrupts::disable();
    loop {
        // An NMI wakes it, hence the loop.
        x86_64::instructions::hlt();
    }
}
