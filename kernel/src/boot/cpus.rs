//! Which CPUs there are, from the firmware.

use super::handoff::Handoff;
use crate::drivers::acpi::{self, Error, Madt, Tables};
use crate::{log, warn};

/// The firmware's list of CPUs. Whatever is wrong with it is one warning, and then
/// the list is empty: the boot CPU is all there is.
pub(crate) fn detect(handoff: &Handoff) -> Madt {
    let readable = |at, bytes| handoff.has_memory(at, bytes);
    let tables = Tables::new(handoff.rsdp, &readable);
    let table = tables.and_then(|tables| Ok((tables.madt()?, tables.says_online_capable())));
    let (table, says_capable) = match table {
        Ok(found) => found,
        Err(why @ (Error::NotListed(_) | Error::NoRsdp)) => {
            log!("ACPI: {why}: one CPU");
            return Madt::default();
        }
        Err(why) => {
            warn!("ACPI: {why}: one CPU");
            return Madt::default();
        }
    };
    match acpi::parse_madt(table, says_capable) {
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
