//! `/sys/devices/system/node`: each node's memory and pools.

use core::fmt;

use mm::machine::Machine as _;
use shell::Files;

use super::hugepages::{self, hstate_at};
use super::node_at;
use super::vm::default_hstate;
use crate::metal::Metal;
use crate::state::MM;

/// Numbers as Linux lists them: `0-2,5`.
#[doc(alias = "bitmap_print_to_pagebuf")]
fn ranges(numbers: impl Iterator<Item = usize> + Clone) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let mut numbers = numbers.clone().peekable();
        let mut between = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{between}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            between = ",";
        }
        Ok(())
    })
}

pub(super) fn add_to(files: &mut Files<'static>) {
    // Node numbers in ranges.
    files.read_only("/sys/devices/system/node/online", |_, out| {
        let online = MM.nodes.online().map(|node| usize::from(node.get()));
        let online: alloc::vec::Vec<_> = online.collect();
        Ok(writeln!(out, "{}", ranges(online.into_iter()))?)
    });
    // CPU numbers in ranges; empty for a node without CPUs.
    files.read_only("/sys/devices/system/node/node{node}/cpulist", |at, out| {
        let node = node_at(at[0]);
        let own: alloc::vec::Vec<_> = (0..Metal.cpus())
            .filter(|&cpu| Metal.node_of_cpu(cpu) == node)
            .collect();
        Ok(writeln!(out, "{}", ranges(own.into_iter()))?)
    });
    // As `/proc/meminfo`, with the node in front. Huge pages are of the default size.
    files.read_only("/sys/devices/system/node/node{node}/meminfo", |at, out| {
        let node = node_at(at[0]);
        let this = MM.nodes.get(node);
        let (total, free) = (this.present_pages() * 4, this.free_pages(&Metal) * 4);
        let pools = default_hstate().counts(&Metal, node);
        let n = node.get();
        writeln!(out, "Node {n} MemTotal:       {total:>8} kB")?;
        writeln!(out, "Node {n} MemFree:        {free:>8} kB")?;
        writeln!(out, "Node {n} MemUsed:        {:>8} kB", total - free)?;
        writeln!(out, "Node {n} HugePages_Total: {:>5}", pools.nr)?;
        writeln!(out, "Node {n} HugePages_Free:  {:>5}", pools.free)?;
        writeln!(out, "Node {n} HugePages_Surp:  {:>5}", pools.surplus)?;
        Ok(())
    });
    // All pages of the size on the node, surplus included; written, what there should be.
    files.read_write(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-{kB}kB/nr_hugepages",
        |at, out| {
            let counts = hstate_at(at[1]).counts(&Metal, node_at(at[0]));
            Ok(writeln!(out, "{}", counts.nr)?)
        },
        |at, text| hugepages::store(hstate_at(at[1]), Some(node_at(at[0])), text),
    );
    // Those that nobody has.
    files.read_only(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-{kB}kB/free_hugepages",
        |at, out| {
            let counts = hstate_at(at[1]).counts(&Metal, node_at(at[0]));
            Ok(writeln!(out, "{}", counts.free)?)
        },
    );
    // Those that are to go.
    files.read_only(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-{kB}kB/surplus_hugepages",
        |at, out| {
            let counts = hstate_at(at[1]).counts(&Metal, node_at(at[0]));
            Ok(writeln!(out, "{}", counts.surplus)?)
        },
    );
}
