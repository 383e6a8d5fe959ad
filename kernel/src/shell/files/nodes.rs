//! `/sys/devices/system/node`: each node's memory and pools.

use core::fmt;

use mm::addr::NodeId;
use mm::machine::Processors as _;
use shell::Files;

use super::hugepages::{self, hstate_at};
use super::node_at;
use super::vm::default_hstate;
use crate::metal::Metal;
use crate::state::{self, MM};

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

/// A file with the numbers of the online nodes for which `has` holds, in ranges.
fn list(files: &mut Files<'static>, path: &'static str, has: fn(NodeId) -> bool) {
    files.read_only(path, move |_, out| {
        let nodes: alloc::vec::Vec<_> = MM.nodes.online().filter(|node| has(*node)).collect();
        let numbers = nodes.iter().map(|node| node.index());
        Ok(writeln!(out, "{}", ranges(numbers))?)
    });
}

pub(super) fn add_to(files: &mut Files<'static>) {
    // Node numbers in ranges; possible ones include those of domains that are empty.
    files.read_only("/sys/devices/system/node/possible", |_, out| {
        Ok(writeln!(
            out,
            "{}",
            ranges(0..state::topology().possible())
        )?)
    });
    list(files, "/sys/devices/system/node/online", |_| true);
    let has_memory = |node| MM.nodes.get(node).present_pages() > 0;
    list(files, "/sys/devices/system/node/has_memory", has_memory);
    // There is no other kind of memory than normal.
    list(
        files,
        "/sys/devices/system/node/has_normal_memory",
        has_memory,
    );
    list(files, "/sys/devices/system/node/has_cpu", |node| {
        (0..Metal.cpus()).any(|cpu| Metal.node_of_cpu(cpu) == node)
    });
    // CPU numbers in ranges; empty for a node without CPUs.
    files.read_only("/sys/devices/system/node/node{node}/cpulist", |at, out| {
        let node = node_at(at[0]);
        let own: alloc::vec::Vec<_> = (0..Metal.cpus())
            .filter(|&cpu| Metal.node_of_cpu(cpu) == node)
            .collect();
        Ok(writeln!(out, "{}", ranges(own.into_iter()))?)
    });
    // To the nodes that are there, node 0 first. As on Linux a blank is before all but that one.
    files.read_only("/sys/devices/system/node/node{node}/distance", |at, out| {
        let node = node_at(at[0]);
        for other in MM.nodes.online() {
            let between = if other == NodeId::ZERO { "" } else { " " };
            write!(out, "{between}{}", MM.nodes.distance(node, other))?;
        }
        Ok(writeln!(out)?)
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
