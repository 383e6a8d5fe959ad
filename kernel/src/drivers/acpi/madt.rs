//! The Multiple APIC Description Table (ACPI 6.5, 5.2.12): which CPUs and I/O APICs
//! there are.

use arrayvec::ArrayVec;

use super::Damage;

/// CPUs of a table that there is room for.
pub(crate) const MAX_ENTRIES: usize = 512;

/// I/O APICs of a table that there is room for, as many as Linux has.
pub(crate) const MAX_IO_APICS: usize = 128;

/// A CPU as the table lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuEntry {
    /// Its local APIC's id.
    pub(crate) apic_id: u32,
    /// Whether it is there and may be started. One that is not may come later.
    #[doc(alias = "ACPI_MADT_ENABLED")]
    pub(crate) enabled: bool,
}

/// What the kernel needs of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Madt {
    /// The CPUs in order of the table, without those that can never run.
    pub(crate) cpus: ArrayVec<CpuEntry, MAX_ENTRIES>,
    /// CPUs that there was no room for.
    pub(crate) dropped: usize,
    /// Physical addresses of the I/O APICs' registers.
    pub(crate) io_apics: ArrayVec<u32, MAX_IO_APICS>,
}

/// Bytes before the first entry: the header, the local APIC's address, the flags.
const FIRST_ENTRY: usize = 36 + 8;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;

const ENABLED: u8 = 1;
const ONLINE_CAPABLE: u8 = 2;

/// The CPUs of the table (header included). A CPU listed twice is there once, enabled if either
/// entry says so. One that is disabled may be added later, on a machine since ACPI 6.3
/// (`says_capable`) only if its flag "online capable" is set: others are places that stay empty.
///
/// # Errors
/// [`Damage`] at the first entry that is too short or reaches beyond the table.
#[doc(alias = "acpi_parse_madt_lapic_entries")]
#[doc(alias = "acpi_is_processor_usable")]
pub(crate) fn parse(table: &[u8], says_capable: bool) -> Result<Madt, Damage> {
    let shortest = |kind| match kind {
        LOCAL_APIC => 8,
        IO_APIC => 12,
        LOCAL_X2APIC => 16,
        _ => 2,
    };
    let mut madt = Madt::default();
    super::entries("MADT", table, FIRST_ENTRY, &shortest, &mut |entry| {
        let u32_at = |at: usize| u32::from_le_bytes(core::array::from_fn(|n| entry[at + n]));
        let (apic_id, flags) = match entry[0] {
            // 255 means "listed as an x2APIC".
            LOCAL_APIC if entry[3] != 0xff => (u32::from(entry[3]), entry[4]),
            IO_APIC => {
                // One too many stays as firmware left it.
                let _ = madt.io_apics.try_push(u32_at(4));
                return;
            }
            LOCAL_X2APIC if u32_at(4) != u32::MAX => (u32_at(4), entry[8]),
            _ => return,
        };
        let enabled = flags & ENABLED != 0;
        if !enabled && says_capable && flags & ONLINE_CAPABLE == 0 {
            return;
        }
        // Firmware may leave places for CPUs that are not there under an id that is used, before
        // the entry that counts or behind it.
        if let Some(known) = madt.cpus.iter_mut().find(|cpu| cpu.apic_id == apic_id) {
            known.enabled |= enabled;
            return;
        }
        if madt.cpus.try_push(CpuEntry { apic_id, enabled }).is_err() {
            madt.dropped += 1;
        }
    })?;
    Ok(madt)
}
