//! Which CPUs there are, from the firmware.

use super::handoff::Handoff;
use crate::drivers::acpi::{self, Error, Madt, Tables};
use crate::{log, warn};

/// The firmware's list of CPUs. Whatever is wrong with it is one warning, and then
/// the list is empty: the boot CPU is all there is.
pub(crate) fn detect(handoff: &Handoff) -> Madt {
    let readable = |at, bytes| handoff.has_memory(at, bytes);
    let table = Tables::new(handoff.rsdp, &readable).and_then(|tables| tables.madt());
    let table = match table {
        Ok(table) => table,
        Err(why @ (Error::NotListed(_) | Error::NoRsdp)) => {
            log!("ACPI: {why}: one CPU");
            return Madt::default();
        }
        Err(why) => {
            warn!("ACPI: {why}: one CPU");
            return Madt::default();
        }
    };
    match acpi::parse_madt(table) {
        Ok(madt) => {
            if madt.dropped > 0 {
                warn!("ACPI: MADT: {} CPUs too many, not used", madt.dropped);
            }
            madt
        }
        Err(damage) => {
            warn!("ACPI: {damage}: the table is not used, one CPU");
            Madt::default()
        }
    }
}
