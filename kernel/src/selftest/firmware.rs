//! What comes from outside is not trusted: SRAT, MADT, fw_cfg, the ramdisk file.

use alloc::vec::Vec;

use ktest::{Outcome, check, check_eq, ktest};

use crate::boot::cmdline;
use crate::drivers::acpi::{Madt, parse_madt, parse_srat};
use crate::drivers::fw_cfg;

/// An SRAT's header and reserved bytes, of which the parser looks at the revision.
fn empty_srat() -> Vec<u8> {
    let mut table = Vec::from([0; 48]);
    table[8] = 3;
    table
}

fn with_entry(entry: &[u8]) -> Vec<u8> {
    let mut table = empty_srat();
    table.extend_from_slice(entry);
    table
}

fn memory_entry() -> [u8; 40] {
    let mut entry = [0; 40];
    (entry[0], entry[1]) = (1, 40);
    entry[2..6].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
    entry[8..16].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
    entry[16..24].copy_from_slice(&0x1_4000_0000_u64.to_le_bytes());
    entry[28] = 0b11;
    entry
}

/// A MADT of these bytes behind its header, which the parser does not look at.
fn madt_of(entries: &[u8], says_capable: bool) -> Result<Madt, impl core::fmt::Display> {
    let mut table = Vec::from([0; 44]);
    table.extend_from_slice(entries);
    parse_madt(&table, says_capable)
}

/// The line that a ramdisk file makes.
fn line_of(text: &[u8]) -> Vec<u8> {
    let mut line = alloc::boxed::Box::new([0; cmdline::MAX_BYTES]);
    let len = cmdline::from_text(text, &mut line);
    line[..len].to_vec()
}

fn expect_line(text: &[u8], expected: &[u8]) -> Outcome {
    let line = line_of(text);
    check_eq!(line.as_slice(), expected, "from {:?}", text.escape_ascii());
    Ok(())
}

ktest! { suite = firmware;
    /// A good table gives what is in it, all fields at the offsets of the standard.
    fn srat_entries() {
        let mut table = with_entry(&memory_entry());
        let mut x2apic = [0; 24];
        (x2apic[0], x2apic[1], x2apic[4], x2apic[8], x2apic[12]) = (2, 24, 7, 200, 1);
        table.extend_from_slice(&x2apic);
        table.extend_from_slice(&[0, 16, 0x11, 3, 1, 0, 0, 0, 0, 0x22, 0x33, 0x44, 0, 0, 0, 0]);
        // An entry of a kind nobody knows.
        table.extend_from_slice(&[99, 4, 0, 0]);
        match parse_srat(&table) {
            Ok(srat) => {
                check_eq!(srat.memory().len(), 1);
                let memory = srat.memory()[0];
                check_eq!(memory.start, 0x1_0000_0000);
                check_eq!(memory.length, 0x1_4000_0000);
                check_eq!(memory.domain, 0x0102_0304);
                check!(memory.hotpluggable);
                check_eq!(srat.cpus().len(), 2);
                check_eq!((srat.cpus()[0].apic_id, srat.cpus()[0].domain), (200, 7));
                check_eq!((srat.cpus()[1].apic_id, srat.cpus()[1].domain), (3, 0x4433_2211));
            }
            Err(damage) => ktest::fail!("{damage}"),
        }
    }

    /// In revision 1 a domain is its low byte, and what stands beside it is anything.
    fn srat_of_revision_1() {
        let mut table = with_entry(&memory_entry());
        table.extend_from_slice(&[0, 16, 0x11, 3, 1, 0, 0, 0, 0, 0x22, 0x33, 0x44, 0, 0, 0, 0]);
        for (revision, memory, cpu) in [(1, 4, 0x11), (2, 0x0102_0304, 0x4433_2211)] {
            table[8] = revision;
            match parse_srat(&table) {
                Ok(srat) => {
                    check_eq!(srat.memory()[0].domain, memory, "revision {revision}");
                    check_eq!(srat.cpus()[0].domain, cpu, "revision {revision}");
                }
                Err(damage) => ktest::fail!("{damage}"),
            }
        }
    }

    /// Entries that are too short, of length 0, or longer than the table are named.
    fn srat_damage() {
        let entry = memory_entry();
        for cut in 1..entry.len() {
            let table = with_entry(&entry[..cut]);
            check!(parse_srat(&table).is_err(), "{cut} bytes of an entry are taken for one");
        }
        for length in 0..40 {
            let mut short = entry;
            short[1] = length;
            let table = with_entry(&short);
            check!(parse_srat(&table).is_err(), "length {length} is taken for a memory entry");
        }
        check!(parse_srat(&with_entry(&[99, 0])).is_err(), "a length of 0 goes on for ever");
        check!(parse_srat(&[]).is_ok_and(|srat| srat.memory().is_empty()));
    }

    /// Both kinds of CPU entries, each CPU once; what is disabled or no CPU is not one.
    fn madt_entries() {
        let x2apic = |id: u8| [9, 16, 0, 0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let entries = [
            [0, 8, 0, 4, 1, 0, 0, 0].as_slice(),
            &[0, 8, 1, 6, 0, 0, 0, 0],
            // What means "see the other kind", an I/O APIC, and a kind nobody knows.
            &[0, 8, 2, 0xff, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[99, 3, 0],
            &x2apic(7),
            &x2apic(7),
            &[9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            // The entry that counts may stand first or second.
            &[0, 8, 3, 8, 0, 0, 0, 0],
            &[0, 8, 4, 8, 1, 0, 0, 0],
            &[0, 8, 5, 9, 1, 0, 0, 0],
            &[0, 8, 6, 9, 0, 0, 0, 0],
        ];
        match madt_of(&entries.concat(), false) {
            Ok(madt) => {
                let cpus: Vec<_> = madt.cpus.iter().map(|cpu| (cpu.apic_id, cpu.enabled)).collect();
                let expected = [(4, true), (6, false), (0x107, true), (8, true), (9, true)];
                check_eq!(cpus.as_slice(), &expected);
                check_eq!(madt.io_apics.as_slice(), &[0xfec0_0000]);
                check_eq!(madt.dropped, 0);
            }
            Err(damage) => ktest::fail!("{damage}"),
        }
        let many: Vec<u8> = (0..600_u16).flat_map(|n| {
            let [low, high] = n.to_le_bytes();
            [9, 16, 0, 0, low, high, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        }).collect();
        match madt_of(&many, true) {
            Ok(madt) => check_eq!((madt.cpus.len(), madt.dropped), (512, 88)),
            Err(damage) => ktest::fail!("{damage}"),
        }
    }

    /// Since ACPI 6.3 a disabled CPU may come one day only if the table says so; before, always.
    fn madt_places() {
        let entries = [
            [0, 8, 0, 1, 1, 0, 0, 0].as_slice(),
            &[0, 8, 1, 2, 0, 0, 0, 0],
            &[0, 8, 2, 3, 2, 0, 0, 0],
            &[9, 16, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[9, 16, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ];
        for (says_capable, expected) in [(true, [1, 3, 5].as_slice()), (false, &[1, 2, 3, 4, 5])] {
            match madt_of(&entries.concat(), says_capable) {
                Ok(madt) => {
                    let ids: Vec<_> = madt.cpus.iter().map(|cpu| cpu.apic_id).collect();
                    check_eq!(ids.as_slice(), expected);
                    check_eq!(madt.cpus.iter().filter(|cpu| cpu.enabled).count(), 1);
                }
                Err(damage) => ktest::fail!("{damage}"),
            }
        }
    }

    /// Entries that are too short, of length 0, or longer than the table are named.
    fn madt_damage() {
        for (kind, length) in [(0_u8, 8_u8), (1, 12), (9, 16)] {
            for wrong in (0..length).chain([length + 1, 255]) {
                let mut entry = alloc::vec![0; usize::from(length)];
                (entry[0], entry[1]) = (kind, wrong);
                check!(madt_of(&entry, true).is_err(), "length {wrong} is taken for type {kind}");
            }
            for cut in 1..length {
                let mut entry = alloc::vec![0; usize::from(length)];
                (entry[0], entry[1]) = (kind, length);
                entry.truncate(usize::from(cut));
                check!(madt_of(&entry, true).is_err(), "{cut} bytes are taken for type {kind}");
            }
        }
        check!(madt_of(&[], true).is_ok_and(|madt| madt.cpus.is_empty()));
    }

    /// fw_cfg directory entries are found by their whole name.
    fn fw_cfg_entries() {
        let mut entry = [0; 64];
        entry[..8].copy_from_slice(&[0, 0, 1, 2, 0, 0x21, 0, 0]);
        entry[8..13].copy_from_slice(b"opt/a");
        let file = fw_cfg::parse_entry(&entry, "opt/a");
        check_eq!(file.map(|f| f.size), Some(0x102));
        check_eq!(fw_cfg::parse_entry(&entry, "opt/"), None);
        check_eq!(fw_cfg::parse_entry(&entry, "opt/ab"), None);
        // A name without the zero at its end.
        entry[8..].fill(b'x');
        check_eq!(fw_cfg::parse_entry(&entry, "x"), None);
    }

    /// What a person, or an editor on another system, makes of the ramdisk file.
    fn ramdisk_text() {
        expect_line(b"init=halt", b"init=halt")?;
        expect_line(b"\xef\xbb\xbfa=1\r\nb=2\r\n", b"a=1 b=2")?;
        expect_line(b"# all of it\n  a=1  # this\n\n#\nb=2\n", b"a=1 b=2")?;
        expect_line(b"a=1\n---\nb=2\n", b"a=1")?;
        expect_line(b"a=1\0b=2", b"a=1")?;
        expect_line(b"a\xff\x01b", b"a  b")?;
        expect_line(b"", b"")?;
        expect_line(b"\n#\n", b"")?;
        let long = alloc::vec![b'x'; cmdline::MAX_BYTES + 10];
        check_eq!(line_of(&long).len(), cmdline::MAX_BYTES);
    }
}
