//! The System Resource Affinity Table (ACPI 6.5, 5.2.16): which memory and which
//! CPU belongs to which proximity domain.

use mm::numa::{CpuAffinity, MemoryAffinity, Srat};

use super::Damage;

/// Bytes before the first entry: the header and 12 reserved ones.
const FIRST_ENTRY: usize = 36 + 12;

const LOCAL_APIC: u8 = 0;
const MEMORY: u8 = 1;
const LOCAL_X2APIC: u8 = 2;

/// Where the header has the table's revision (ACPI 6.5, 5.2.6).
const REVISION: usize = 8;

/// The entries of the table (header included), in order, as `mm` wants them. Kinds
/// that do not matter on x86 are left out.
///
/// # Errors
/// [`Damage`] at the first entry that is too short or reaches beyond the table.
#[doc(alias = "acpi_table_parse_srat")]
pub(crate) fn parse(table: &[u8]) -> Result<Srat, Damage> {
    let shortest = |kind| match kind {
        LOCAL_APIC => 16,
        MEMORY => 40,
        LOCAL_X2APIC => 24,
        _ => 2,
    };
    // In revision 1 a domain has 8 bits, and what lies above them is reserved: it may be
    // anything (Linux: acpi_srat_revision).
    let domain_bits = match table.get(REVISION) {
        Some(0 | 1) => 0xff,
        _ => u32::MAX,
    };
    let mut srat = Srat::new();
    super::entries("SRAT", table, FIRST_ENTRY, &shortest, &mut |entry| {
        add(entry, domain_bits, &mut srat);
    })?;
    Ok(srat)
}

/// Adds an entry of at least its kind's length. Of a domain `domain_bits` count.
fn add(entry: &[u8], domain_bits: u32, srat: &mut Srat) {
    let u32_at = |at: usize| u32::from_le_bytes(core::array::from_fn(|n| entry[at + n]));
    let u64_at = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| entry[at + n]));
    match entry[0] {
        LOCAL_APIC => srat.push_cpu(CpuAffinity {
            apic_id: u32::from(entry[3]),
            // The lowest byte is where revision 1 had all of it.
            domain: u32::from_le_bytes([entry[2], entry[9], entry[10], entry[11]]) & domain_bits,
            enabled: u32_at(4) & 1 != 0,
        }),
        LOCAL_X2APIC => srat.push_cpu(CpuAffinity {
            apic_id: u32_at(8),
            domain: u32_at(4),
            enabled: u32_at(12) & 1 != 0,
        }),
        MEMORY => srat.push_memory(MemoryAffinity {
            start: u64_at(8),
            length: u64_at(16),
            domain: u32_at(2) & domain_bits,
            enabled: u32_at(28) & 1 != 0,
            hotpluggable: u32_at(28) & 2 != 0,
        }),
        _ => {}
    }
}
