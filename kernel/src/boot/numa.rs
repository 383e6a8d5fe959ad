//! Which node memory is on, from the firmware or the command line.

use mm::machine::Machine as _;
use mm::memblock::MemoryMap;
use mm::numa::{NumaOption, Srat, Topology};

use super::handoff::Handoff;
use crate::drivers::acpi::{self, Error, Tables};
use crate::metal::Metal;
use crate::{log, warn};

/// The nodes of the machine. Whatever is wrong with the firmware's tables is one
/// warning, and then there is one node.
pub(crate) fn detect(option: NumaOption, handoff: &Handoff, ram: &MemoryMap) -> Topology {
    let srat = read_srat(handoff);
    Topology::detect(option, srat.as_ref(), ram, &mut |level, line| {
        Metal.log(level, line);
    })
}

fn read_srat(handoff: &Handoff) -> Option<Srat> {
    let readable = |at, bytes| handoff.has_memory(at, bytes);
    let table = Tables::new(handoff.rsdp, &readable).and_then(|tables| tables.srat());
    let table = match table {
        Ok(table) => table,
        Err(why @ (Error::NotListed(_) | Error::NoRsdp)) => {
            log!("ACPI: {why}");
            return None;
        }
        Err(why) => {
            warn!("ACPI: {why}");
            return None;
        }
    };
    match acpi::parse_srat(table) {
        Ok(srat) => {
            for entry in srat.memory() {
                log!("ACPI: SRAT: {entry}");
            }
            Some(srat)
        }
        Err(damage) => {
            warn!("ACPI: {damage}: the table is not used");
            None
        }
    }
}
