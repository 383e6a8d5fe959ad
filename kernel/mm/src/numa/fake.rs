//! Nodes on a machine that has none: RAM split evenly.

use core::fmt;

use super::{Source, Topology, mib};
use crate::addr::{MAX_NODES, NodeId, PAGE_SIZE, Pfn, PfnRange};
use crate::machine::Level;
use crate::memblock::{MemRange, MemoryMap};

/// Nodes start at multiples of this many bytes, and have about this much at least.
#[doc(alias = "FAKE_NODE_MIN_SIZE")]
pub const FAKE_GRANULE: u64 = 32 << 20;

/// Where each share is twice as large or more, nodes start at multiples of this
/// many bytes instead: whole sections, so that none has struct pages of two nodes.
pub const FAKE_BIG_GRANULE: u64 = 128 << 20;

impl Topology {
    /// `wanted` nodes with RAM of equal size, as far as the granule allows, or as
    /// many as fit. A share goes on behind a hole in RAM.
    #[doc(alias = "numa_emulation")]
    #[doc(alias = "split_nodes_interleave")]
    pub fn fake<const N: usize>(
        wanted: u32,
        map: &MemoryMap<N>,
        log: &mut dyn FnMut(Level, fmt::Arguments<'_>),
    ) -> Self {
        let total = map.total_pages();
        let most = (total * PAGE_SIZE / FAKE_GRANULE).clamp(1, MAX_NODES as u64);
        let shares = u64::from(wanted).clamp(1, most);
        let granule = if total / shares * PAGE_SIZE >= 2 * FAKE_BIG_GRANULE {
            FAKE_BIG_GRANULE
        } else {
            FAKE_GRANULE
        } / PAGE_SIZE;

        let mut topology = Self::empty(Source::Fake);
        topology.start_node(Pfn::new(0), NodeId::ZERO);
        topology.possible = 1;
        let mut given = 0;
        for share in 1..shares {
            let ideal = nth_page(map, total * share / shares).as_u64();
            let at = Pfn::new((ideal + granule / 2) / granule * granule);
            let below = pages_below(map, at);
            // Where a hole lies in between, rounding at both ends can leave next to
            // nothing. The last share loses at one end only, half of it at most.
            if below - given < granule / 2 {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "below MAX_NODES")]
            topology.start_node(at, NodeId::of(topology.possible as u8));
            topology.possible += 1;
            given = below;
        }
        if topology.possible as u64 != u64::from(wanted) {
            log(
                Level::Warn,
                format_args!(
                    "NUMA: numa=fake={wanted} does not fit, {} MiB make {} nodes",
                    mib(total),
                    topology.possible
                ),
            );
        }
        topology.log_fake(map, log);
        topology
    }

    fn log_fake<const N: usize>(
        &self,
        map: &MemoryMap<N>,
        log: &mut dyn FnMut(Level, fmt::Arguments<'_>),
    ) {
        let span = map.span();
        for (range, node) in self.stretches() {
            let range = range.intersect(span);
            let pages = pages_below(map, range.end) - pages_below(map, range.start);
            log(
                Level::Info,
                format_args!(
                    "Faking node {node} at {} ({}MB)",
                    MemRange(range),
                    mib(pages)
                ),
            );
        }
    }
}

/// The frame with `n` frames of RAM below it; `n` is less than there are.
fn nth_page<const N: usize>(map: &MemoryMap<N>, n: u64) -> Pfn {
    let mut left = n;
    for ram in map.iter() {
        if left < ram.range.pages() {
            return ram.range.start.offset(left);
        }
        left -= ram.range.pages();
    }
    map.span().end
}

fn pages_below<const N: usize>(map: &MemoryMap<N>, at: Pfn) -> u64 {
    let below = PfnRange::new(Pfn::new(0), at);
    map.iter()
        .map(|ram| ram.range.intersect(below).pages())
        .sum()
}
