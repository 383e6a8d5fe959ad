//! The interrupt descriptor table: all 256 vectors lead to [`trap`].
#![expect(unsafe_code, reason = "installs handler addresses")]

use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::gdt::{IST_DEBUG, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI};
use super::trap;

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the table on this CPU.
pub(crate) fn init() {
    IDT.call_once(build).load();
}

fn build() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // Every entry has a type of its own, hence a macro and not a loop.
    macro_rules! install {
        ($($field:ident = $vector:literal $(on $ist:ident)?),* $(,)?) => { $(
            let stub = VirtAddr::new(trap::stub($vector));
            // SAFETY: the stub saves every register, copes with the vector's frame
            // (error code or not), and leaves by iretq or not at all (H-3).
            let options = unsafe { idt.$field.set_handler_addr(stub) };
            let _ = options;
            $(
                // SAFETY: that stack exists, and no other vector that can nest
                // uses it (H-3).
                unsafe { options.set_stack_index($ist) };
            )?
        )* };
    }
    install! {
        divide_error = 0,
        debug = 1 on IST_DEBUG,
        non_maskable_interrupt = 2 on IST_NMI,
        breakpoint = 3,
        overflow = 4,
        bound_range_exceeded = 5,
        invalid_opcode = 6,
        device_not_available = 7,
        double_fault = 8 on IST_DOUBLE_FAULT,
        invalid_tss = 10,
        segment_not_present = 11,
        stack_segment_fault = 12,
        general_protection_fault = 13,
        page_fault = 14,
        x87_floating_point = 16,
        alignment_check = 17,
        machine_check = 18 on IST_MACHINE_CHECK,
        simd_floating_point = 19,
        virtualization = 20,
        cp_protection_exception = 21,
        hv_injection_exception = 28,
        vmm_communication_exception = 29,
        security_exception = 30,
    }
    for vector in 32..=255 {
        let stub = VirtAddr::new(trap::stub(vector));
        // SAFETY: as above, for a vector without error code (H-3).
        unsafe { idt[vector].set_handler_addr(stub) };
    }
    idt
}
