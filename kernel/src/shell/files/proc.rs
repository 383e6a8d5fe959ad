//! `/proc`: what memory there is and how it is used.

use mm::addr::{NodeId, Order};
use mm::memblock::Kind;
use shell::Files;

use super::vm::default_hstate;
use super::vmstat;
use crate::metal::Metal;
use crate::state::{self, MM};

const KIB_PER_PAGE: u64 = 4;

pub(super) fn add_to(files: &mut Files<'static>) {
    // The command line, as it was given.
    files.read_only("/proc/cmdline", |_, out| {
        let line = alloc::string::String::from_utf8_lossy(state::command_line());
        Ok(writeln!(out, "{line}")?)
    });
    // `Name: value kB`, the value right-aligned to column 24; huge page counts to column 21,
    // without unit. `MemTotal` is what the buddy allocators were given at boot.
    files.read_only("/proc/meminfo", |_, out| {
        let free = MM.nodes.total_free(&Metal) * KIB_PER_PAGE;
        let huge = default_hstate();
        let total = huge.total(&Metal);
        let size = huge.order().bytes() >> 10;
        let hugetlb: u64 = MM
            .hugetlb
            .hstates()
            .map(|h| h.total(&Metal).nr * (h.order().bytes() >> 10))
            .sum();
        let kib = |out: &mut dyn core::fmt::Write, name, value: u64| {
            writeln!(out, "{name:<16}{value:>8} kB")
        };
        kib(out, "MemTotal:", state::managed_pages() * KIB_PER_PAGE)?;
        kib(out, "MemFree:", free)?;
        kib(out, "MemAvailable:", free)?;
        let broken = MM.hwpoison.pages() * KIB_PER_PAGE;
        writeln!(out, "HardwareCorrupted: {broken:>5} kB")?;
        writeln!(out, "HugePages_Total: {:>7}", total.nr)?;
        writeln!(out, "HugePages_Free:  {:>7}", total.free)?;
        writeln!(out, "HugePages_Rsvd:  {:>7}", huge.resv(&Metal))?;
        writeln!(out, "HugePages_Surp:  {:>7}", total.surplus)?;
        kib(out, "Hugepagesize:", size)?;
        kib(out, "Hugetlb:", hugetlb)?;
        Ok(())
    });
    vmstat::add_to(files);
    // Free blocks of each order from 0 on, six columns each.
    files.read_only("/proc/buddyinfo", |_, out| {
        for node in MM.nodes.online() {
            write!(out, "Node {}, zone {:>8} ", node.get(), "Normal")?;
            for order in Order::range_inclusive(Order::PAGE, Order::MAX) {
                let blocks = MM
                    .nodes
                    .get(node)
                    .with_buddy(&Metal, |buddy| buddy.free_blocks(order));
                write!(out, "{blocks:>6} ")?;
            }
            writeln!(out)?;
        }
        Ok(())
    });
    // One zone a node. Watermarks are what huge pages leave alone.
    files.read_only("/proc/zoneinfo", |_, out| {
        for node in MM.nodes.online() {
            let this = MM.nodes.get(node);
            let (first, last) = span(node);
            writeln!(out, "Node {}, zone {:>8}", node.get(), "Normal")?;
            writeln!(out, "  pages free     {}", this.free_pages(&Metal))?;
            writeln!(out, "        min      {}", this.watermark())?;
            writeln!(out, "        spanned  {}", last - first)?;
            writeln!(out, "        present  {}", this.present_pages())?;
            writeln!(out, "  start_pfn:           {first}")?;
        }
        Ok(())
    });
    // The firmware's memory map, a range a line.
    files.read_only("/proc/iomem", |_, out| {
        for region in state::memory_map().regions().filter(|r| r.length > 0) {
            let name = match region.kind {
                Kind::Usable => "System RAM",
                _ => "Reserved",
            };
            let last = region.start + (region.length - 1);
            writeln!(out, "{:08x}-{last:08x} : {name}", region.start)?;
        }
        Ok(())
    });
}

/// First and last frame number of a node, the last not included; 0 and 0 if it has no RAM.
#[doc(alias = "node_spanned_pages")]
fn span(node: NodeId) -> (u64, u64) {
    let own = || state::ram().iter().filter(|ram| ram.node == node);
    let first = own().map(|ram| ram.range.start.as_u64()).min();
    let last = own().map(|ram| ram.range.end.as_u64()).max();
    (first.unwrap_or(0), last.unwrap_or(0))
}
