//! QEMU's firmware configuration device: files that the host gives to the guest.
//!
//! Written after QEMU's `docs/specs/fw_cfg.rst`. Only the old port interface is
//! used: a few hundred bytes are read once. Everything the device says is checked.
#![expect(unsafe_code, reason = "names I/O ports")]

use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

use crate::arch::x86_64::cpu;

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;

const KEY_SIGNATURE: u16 = 0x0000;
const KEY_DIRECTORY: u16 = 0x0019;

/// Entries to look at: QEMU makes a few dozen.
const MAX_FILES: u32 = 1024;
const NAME_BYTES: usize = 56;

/// The device.
#[derive(Debug)]
pub(crate) struct FwCfg(());

/// A file of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct File {
    key: u16,
    /// Length in bytes, as the device says.
    pub(crate) size: usize,
}

impl FwCfg {
    /// The device, if there is one. On a PC the ports may belong to anything, so
    /// they are touched only under a hypervisor.
    pub(crate) fn detect() -> Option<Self> {
        if !cpu::features().hypervisor {
            return None;
        }
        let device = Self(());
        device.select(KEY_SIGNATURE);
        let mut signature = [0; 4];
        device.read(&mut signature);
        (&signature == b"QEMU").then_some(device)
    }

    /// The file of that name.
    pub(crate) fn find(&self, name: &str) -> Option<File> {
        self.select(KEY_DIRECTORY);
        let mut count = [0; 4];
        self.read(&mut count);
        let count = u32::from_be_bytes(count).min(MAX_FILES);
        (0..count).find_map(|_| {
            let mut entry = [0; 8 + NAME_BYTES];
            self.read(&mut entry);
            parse_entry(&entry, name)
        })
    }

    /// Reads the start of a file into `to`; how many bytes there were.
    pub(crate) fn read_file(&self, file: File, to: &mut [u8]) -> usize {
        let len = file.size.min(to.len());
        self.select(file.key);
        self.read(&mut to[..len]);
        len
    }

    fn select(&self, key: u16) {
        // SAFETY: the caller found a hypervisor; there the port is this device's or
        // nobody's (H-1).
        unsafe { PortWriteOnly::new(SELECTOR).write(key) };
    }

    fn read(&self, to: &mut [u8]) {
        for byte in to {
            // SAFETY: as in `select`; reading moves the device's own position only (H-1).
            *byte = unsafe { PortReadOnly::new(DATA).read() };
        }
    }
}

/// The file that a directory entry describes, if its name is `name`: length (4
/// bytes, big endian), key (2, likewise), 2 reserved, name padded with zeros.
pub(crate) fn parse_entry(entry: &[u8; 8 + NAME_BYTES], name: &str) -> Option<File> {
    let (head, padded) = entry.split_first_chunk::<8>()?;
    let end = padded.iter().position(|&b| b == 0).unwrap_or(NAME_BYTES);
    if &padded[..end] != name.as_bytes() {
        return None;
    }
    let [s0, s1, s2, s3, k0, k1, _, _] = *head;
    Some(File {
        key: u16::from_be_bytes([k0, k1]),
        size: usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).ok()?,
    })
}
