//! Finding tables: good ones are found, and every damage is an error with a name.
//!
//! The tables are made in a frame of memory, as old machines have them: root
//! pointer, RSDT, SRAT.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use ktest::{Outcome, Stop, check, check_eq, fail, ktest};
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::frames::FrameSource as _;
use mm::machine::Memory as _;

use crate::drivers::acpi::Tables;
use crate::metal::Metal;
use crate::state;

const RSDT: usize = 64;
const OTHER: usize = 128;
const SRAT: usize = 256;
/// Length of the SRAT: header, reserved bytes, one entry of nobody's kind.
const SRAT_BYTES: usize = 36 + 12 + 4;

/// A frame with tables in it.
struct Firmware {
    frame: Pfn,
    bytes: Vec<u8>,
}

impl Firmware {
    /// Good tables in a frame of its own.
    fn new() -> Result<Self, Stop> {
        let frame = low_frame()?;
        let mut firmware = Self {
            frame,
            bytes: alloc::vec![0; 4096],
        };
        firmware.put(0, b"RSD PTR ");
        let rsdt = firmware.address(RSDT);
        firmware.put(16, &rsdt);
        firmware.header(RSDT, b"RSDT", 36 + 8);
        let tables = [firmware.address(OTHER), firmware.address(SRAT)];
        firmware.put(RSDT + 36, tables.as_flattened());
        firmware.header(OTHER, b"FACP", 36);
        firmware.header(SRAT, b"SRAT", SRAT_BYTES);
        firmware.put(SRAT + 48, &[99, 4]);
        firmware.seal();
        Ok(firmware)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn header(&mut self, at: usize, signature: &[u8], length: usize) {
        self.put(at, signature);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.put(at + 4, &length.to_le_bytes());
    }

    /// Physical address of what lies at `at`, as 4 bytes.
    fn address(&self, at: usize) -> [u8; 4] {
        let address = self.frame.phys().as_u64() + at as u64;
        u32::try_from(address).unwrap_or(u32::MAX).to_le_bytes()
    }

    /// Makes the sums of all tables right.
    fn seal(&mut self) {
        let tables = [
            (0, 20, 8),
            (RSDT, 36 + 8, 9),
            (OTHER, 36, 9),
            (SRAT, SRAT_BYTES, 9),
        ];
        for (at, length, sum_at) in tables {
            self.bytes[at + sum_at] = 0;
            let bytes = &self.bytes[at..at + length];
            let sum = bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
            self.bytes[at + sum_at] = sum.wrapping_neg();
        }
    }

    /// Length of the SRAT that is found, or what is said instead.
    fn find(&self, rsdp: Option<u64>) -> Result<usize, String> {
        for (word, bytes) in (0_u64..).zip(self.bytes.as_chunks::<8>().0) {
            let at = self.frame.phys().offset(word * 8);
            Metal.write_phys(at, u64::from_le_bytes(*bytes));
        }
        let start = self.frame.phys().as_u64();
        let end = start + PAGE_SIZE;
        let readable = |at: u64, bytes: usize| {
            at >= start && at.checked_add(bytes as u64).is_some_and(|to| to <= end)
        };
        Tables::new(rsdp, &readable)
            .and_then(|tables| tables.srat())
            .map(<[u8]>::len)
            .map_err(|error| error.to_string())
    }

    fn find_all(&self) -> Result<usize, String> {
        self.find(Some(self.frame.phys().as_u64()))
    }
}

impl Drop for Firmware {
    fn drop(&mut self) {
        state::env().free(self.frame, Order::PAGE);
    }
}

/// Tables that `damage` was done to, with their sums right again if `seal`: the
/// error has to name `what`.
fn expect_error(what: &str, seal: bool, damage: impl Fn(&mut Firmware)) -> Outcome {
    let mut firmware = Firmware::new()?;
    damage(&mut firmware);
    if seal {
        firmware.seal();
    }
    match firmware.find_all() {
        Ok(length) => fail!("expected \"{what}\", found a table of {length} bytes"),
        Err(error) => check!(error.contains(what), "expected \"{what}\", got \"{error}\""),
    }
    Ok(())
}

/// A frame below 4 GiB, as tables with addresses of 4 bytes need it: blocks are taken until one
/// lies there, the largest first, and all but one of its frames are given back.
fn low_frame() -> Result<Pfn, Stop> {
    let env = state::env();
    let mut others = env.hold_nothing();
    let mut found = None;
    'search: for order in Order::range_inclusive(Order::PAGE, Order::MAX).rev() {
        while let Ok(block) = env.block(order) {
            if block.phys().as_u64() >> 32 == 0 {
                found = Some((block, order));
                break 'search;
            }
            others.push((block, order));
        }
    }
    drop(others);
    let Some((block, order)) = found else {
        ktest::skip!("no free frame below 4 GiB");
    };
    env.mm.nodes.split(env.m, block, order);
    for frame in block.block(order).iter().skip(1) {
        env.free(frame, Order::PAGE);
    }
    Ok(block)
}

ktest! { suite = acpi;
    /// All in order.
    fn finds_the_table() {
        check_eq!(Firmware::new()?.find_all(), Ok(SRAT_BYTES));
    }

    /// No pointer, or a pointer to nothing.
    fn no_root_pointer() {
        let firmware = Firmware::new()?;
        check_eq!(firmware.find(None).is_err(), true);
        for address in [0, 1, u64::MAX, 1 << 62] {
            let found = firmware.find(Some(address));
            check!(found.is_err(), "{address:#x}: {found:?}");
        }
    }

    /// Where the XSDT is damaged, or missing, the RSDT has the same tables.
    fn the_old_root_table_will_do() {
        let mut firmware = Firmware::new()?;
        let sum_of = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
        // Revision 2: a length, the XSDT's address (0, then that of no table), a sum of its own.
        firmware.bytes[15] = 2;
        firmware.put(20, &36_u32.to_le_bytes());
        for xsdt in [0, firmware.frame.phys().as_u64() + OTHER as u64] {
            firmware.put(24, &xsdt.to_le_bytes());
            firmware.seal();
            firmware.bytes[32] = 0;
            firmware.bytes[32] = sum_of(&firmware.bytes[..36]).wrapping_neg();
            check_eq!(firmware.find_all(), Ok(SRAT_BYTES), "XSDT at {xsdt:#x}");
        }
    }

    /// A damaged table is passed over for another of its name, before it or behind it.
    fn another_table_will_do() {
        for (damaged, left) in [(OTHER, SRAT_BYTES), (SRAT, 36)] {
            let mut firmware = Firmware::new()?;
            firmware.put(OTHER, b"SRAT");
            firmware.seal();
            firmware.bytes[damaged + 20] ^= 1;
            check_eq!(firmware.find_all(), Ok(left), "the table at {damaged} is damaged");
        }
        expect_error("SRAT is damaged", false, |f| {
            f.put(OTHER, b"SRAT");
            f.bytes[SRAT + 20] ^= 1;
        })?;
    }

    /// A byte changed in any table, or a length that cannot be.
    fn damage_is_named() {
        // Its revision becomes 2, whose length is missing; then a byte of an address.
        expect_error("RSDP is damaged", true, |f| f.bytes[15] = 2)?;
        expect_error("RSDP is damaged", false, |f| f.bytes[17] ^= 1)?;
        expect_error("RSDP is damaged", true, |f| f.bytes[0] = b'X')?;
        expect_error("RSDT is damaged", false, |f| f.bytes[RSDT + 36] ^= 1)?;
        expect_error("SRAT is damaged", false, |f| f.bytes[SRAT + 50] ^= 1)?;
        for (table, what) in [(RSDT, "RSDT"), (SRAT, "SRAT")] {
            for length in [u32::MAX, 1 << 20, 8192] {
                let what = alloc::format!("{what} of {length} bytes");
                expect_error(&what, true, |f| f.put(table + 4, &length.to_le_bytes()))?;
            }
            for length in [0_u32, 35] {
                let what = alloc::format!("{what} is damaged");
                expect_error(&what, false, |f| f.put(table + 4, &length.to_le_bytes()))?;
            }
        }
        expect_error("RSDT of 36 bytes", true, |f| f.put(16, &[0xff; 4]))?;
        expect_error("has no SRAT", true, |f| f.put(SRAT, b"TARS"))?;
        // Entries that lead nowhere are passed over.
        let mut firmware = Firmware::new()?;
        firmware.put(RSDT + 36, &[0xff; 4]);
        firmware.seal();
        check_eq!(firmware.find_all(), Ok(SRAT_BYTES));
    }
}
