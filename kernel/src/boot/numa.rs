//! Which node memory is on and how far they are apart, from the firmware or the command line.

use mm::addr::NodeId;
use mm::machine::Machine as _;
use mm::memblock::MemoryMap;
use mm::numa::{NumaOption, Source, Srat, Topology};

use super::handoff::Handoff;
use crate::drivers::acpi::{self, Error, Tables};
use crate::metal::Metal;
use crate::state::MM;
use crate::{log, warn};

/// The nodes of the machine. Whatever is wrong with the firmware's tables is one
/// warning, and then there is one node.
pub(crate) fn detect(option: NumaOption, handoff: &Handoff, ram: &MemoryMap) -> Topology {
    let srat = read_srat(handoff);
    Topology::detect(option, srat.as_ref(), ram, &mut |level, line| {
        Metal.log(level, line);
    })
}

/// Tells the allocators how far the nodes are apart. A SLIT that is wrong is one warning; without
/// an SRAT its domains mean nothing.
pub(crate) fn set_distances(handoff: &Handoff, topology: &Topology) {
    let readable = |at, bytes| handoff.has_memory(at, bytes);
    let find = || Tables::new(handoff.rsdp, &readable).and_then(|tables| tables.slit());
    let slit = match (topology.source() == Source::Srat).then(find) {
        Some(Ok(table)) => acpi::parse_slit(table)
            .inspect_err(|why| warn!("ACPI: SLIT: {why}: not used"))
            .ok(),
        None | Some(Err(Error::NotListed(_) | Error::NoRsdp)) => None,
        Some(Err(why)) => {
            warn!("ACPI: {why}");
            None
        }
    };
    let nodes = || (0..64).map(NodeId::of).take(topology.possible());
    for (from, to) in nodes().flat_map(|from| nodes().map(move |to| (from, to))) {
        let distance = topology.distance(slit.as_ref(), from, to);
        MM.nodes.set_distance(from, to, distance);
    }
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
