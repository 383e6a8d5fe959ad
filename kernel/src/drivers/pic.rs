//! The two 8259 interrupt controllers of old: present on every PC, and in the way.
#![expect(unsafe_code, reason = "writes I/O ports")]

use x86_64::instructions::port::Port;

const COMMANDS: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];

/// First vector of each, so that a stray interrupt is not taken for an exception.
const VECTORS: [u8; 2] = [0x30, 0x38];

/// Masks all their interrupts. One that was on its way still comes, as vector 0x37 or
/// 0x3f, and counts as spurious.
#[doc(alias = "mask_8259A")]
pub(crate) fn mask() {
    let write = |port: u16, value: u8| {
        // SAFETY: these ports are the 8259s' on every PC, or nothing's (H-1).
        unsafe { Port::new(port).write(value) };
    };
    for n in 0..2 {
        // Initialise: cascaded, vector base, where the other one is, 8086 mode.
        write(COMMANDS[n], 0x11);
        write(DATA[n], VECTORS[n]);
        write(DATA[n], [4, 2][n]);
        write(DATA[n], 1);
        write(DATA[n], 0xff);
    }
}
