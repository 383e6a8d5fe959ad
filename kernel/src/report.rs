//! What memory is used for, for a person: lines with bars.

use mm::addr::{NodeId, PAGE_SIZE};
use mm::machine::Machine as _;
use mm::page::STRUCT_PAGE_SIZE;

use crate::arch::x86_64::layout;
use crate::console::{Bar, Colour};
use crate::log;
use crate::metal::Metal;
use crate::state::MM;

/// Length of a bar in characters.
const BAR: u32 = 24;

/// Prints it, and the line for tools.
pub(crate) fn print() {
    for node in MM.nodes.online() {
        memory_of(node);
    }
    memmap();
    log!(
        "vmemmap: base={:#x} page_struct={STRUCT_PAGE_SIZE} direct_map={:#x} cr3={:#x}",
        MM.vmemmap.memmap().base().as_u64(),
        layout::DIRECT_MAP,
        Metal.root().phys().as_u64()
    );
}

fn memory_of(node: NodeId) {
    let of = MM.nodes.get(node);
    let (present, free) = (of.present_pages(), of.free_pages(&Metal));
    let bar = Bar {
        cells: BAR,
        part: present - free,
        whole: present,
        colour: Colour::Blue,
    };
    log!(
        "node {node}  [{bar}] {} of {} MiB used",
        mib(present - free),
        mib(present)
    );
}

/// The struct pages as they would be without HVO, and as they are.
fn memmap() {
    let totals = MM.vmemmap.ledger().totals();
    let now = totals.boot_pages + totals.pages + totals.tables + totals.tails;
    let before = totals.boot_pages + totals.pages + totals.saved;
    let present = MM.nodes.total_present();
    for (name, pages, colour) in [
        ("memmap, unfolded", before, Colour::Orange),
        ("memmap, folded  ", now, Colour::Green),
    ] {
        let bar = Bar {
            cells: BAR,
            part: pages,
            whole: before.max(now),
            colour,
        };
        let share = pages * 10_000 / present.max(1);
        log!(
            "{name} [{bar}] {} KiB, {}.{:02} % of RAM",
            pages * PAGE_SIZE / 1024,
            share / 100,
            share % 100
        );
    }
}

const fn mib(pages: u64) -> u64 {
    (pages * PAGE_SIZE) >> 20
}
