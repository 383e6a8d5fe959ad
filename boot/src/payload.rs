//! Boot sectors of a few instructions: guests for probes and for tests of the runner.

/// Where a boot sector is loaded (IBM PC).
const ORIGIN: u16 = 0x7c00;

/// Size of a boot sector in bytes.
const SECTOR: usize = 512;

/// What a payload does at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Writes the value to `isa-debug-exit`: QEMU ends with `(value << 1) | 1`.
    Exit(u8),
    /// Stays, doing nothing.
    Hang,
    /// Resets the machine by a triple fault.
    Reset,
}

/// A bootable disk that writes `text` to COM1 and then does `end`.
///
/// # Panics
/// If `text` is too long for a boot sector (about 450 bytes).
#[must_use]
pub fn boot_sector(text: &str, end: End) -> Vec<u8> {
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfc, // cld
        0xbe, 0, 0,    // mov si, text (patched below)
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x11, // jz done
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd: the line status
        0xec, // wait: in al, dx
        0xa8, 0x20, // test al, 0x20: room for a byte?
        0x74, 0xfb, // jz wait
        0x88, 0xe0, // mov al, ah
        0xb2, 0xf8, // mov dl, 0xf8: the data
        0xee, // out dx, al
        0xeb, 0xea, // jmp next
    ];
    match end {
        End::Exit(value) => code.extend([0xb0, value, 0xe6, 0xf4]), // mov al, value; out 0xf4, al
        // lidt [0x7df0], which holds zeros: no handlers; int3
        End::Reset => code.extend([0x0f, 0x01, 0x1e, 0xf0, 0x7d, 0xcc]),
        End::Hang => {}
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let at = ORIGIN + u16::try_from(code.len()).expect("short code");
    code[7..9].copy_from_slice(&at.to_le_bytes());
    code.extend(text.bytes());
    assert!(
        code.len() < SECTOR - 16,
        "{} bytes of text do not fit a boot sector",
        text.len()
    );
    code.resize(SECTOR, 0);
    code[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    code
}

#[cfg(test)]
mod tests {
    use super::{End, boot_sector};

    #[test]
    fn is_a_boot_sector() {
        let sector = boot_sector("hello", End::Exit(0x10));
        assert_eq!(sector.len(), 512);
        assert_eq!(sector[510..], [0x55, 0xaa]);
        let at = usize::from(u16::from_le_bytes([sector[7], sector[8]])) - 0x7c00;
        assert_eq!(&sector[at..at + 6], b"hello\0");
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn refuses_what_does_not_fit() {
        let _ = boot_sector(&"x".repeat(480), End::Hang);
    }
}
