//! Which memory and which CPU is on which node.
//!
//! Three sources: the firmware's SRAT ([`Srat`]), an even split for machines
//! without one (`numa=fake=N`), or one node for everything. An SRAT is believed as
//! a whole or not at all: half of a wrong table would put memory on wrong nodes.

mod fake;
mod srat;

use core::fmt;

use arrayvec::ArrayVec;
pub use fake::{FAKE_BIG_GRANULE, FAKE_GRANULE};
pub use srat::{
    COVER_SLACK, CpuAffinity, Damage, MAX_CPU_ENTRIES, MAX_MEMORY_ENTRIES, MemoryAffinity, Srat,
};

use crate::addr::{MAX_NODES, NodeId, PAGE_SHIFT, PAGE_SIZE, Pfn, PfnRange};
use crate::machine::Level;
use crate::memblock::{MAX_RAM, MemoryMap};

/// What the command line says about nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NumaOption {
    /// Nothing: nodes are those of the SRAT.
    #[default]
    Auto,
    /// `numa=off`: one node.
    #[doc(alias = "numa_off")]
    Off,
    /// `numa=fake=N`: N nodes of equal size, at least one.
    #[doc(alias = "numa_emulation")]
    Fake(u32),
}

/// Where a [`Topology`] comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nowhere: one node.
    #[doc(alias = "dummy_numa_init")]
    OneNode,
    /// The firmware.
    Srat,
    /// The command line.
    Fake,
}

/// Where a node's memory starts. It ends where the next one's starts; holes count
/// to the node below them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Start {
    at: Pfn,
    node: NodeId,
}

/// The nodes of a machine, numbered from 0 without gaps.
#[derive(Clone, Debug)]
pub struct Topology {
    source: Source,
    nodes: usize,
    /// Sorted; the first is frame 0.
    starts: ArrayVec<Start, MAX_MEMORY_ENTRIES>,
    /// By node, if the source is an SRAT.
    domains: ArrayVec<u32, MAX_NODES>,
    /// APIC id and node, sorted.
    cpus: ArrayVec<(u32, NodeId), MAX_CPU_ENTRIES>,
}

impl Topology {
    const fn empty(source: Source) -> Self {
        Self {
            source,
            nodes: 0,
            starts: ArrayVec::new_const(),
            domains: ArrayVec::new_const(),
            cpus: ArrayVec::new_const(),
        }
    }

    /// All memory and all CPUs on node 0.
    #[must_use]
    #[doc(alias = "dummy_numa_init")]
    pub fn one_node() -> Self {
        let mut topology = Self::empty(Source::OneNode);
        topology.start_node(Pfn::new(0), NodeId::ZERO);
        topology.nodes = 1;
        topology
    }

    /// The nodes of the machine whose RAM is `map`. What was decided, and what is
    /// wrong with `srat` if it is not used, goes to `log`, one line each.
    #[doc(alias = "x86_numa_init")]
    pub fn detect<const N: usize>(
        option: NumaOption,
        srat: Option<&Srat>,
        map: &MemoryMap<N>,
        log: &mut dyn FnMut(Level, fmt::Arguments<'_>),
    ) -> Self {
        match (option, srat) {
            (NumaOption::Off, _) => {
                log(Level::Info, format_args!("NUMA: turned off"));
                Self::one_node()
            }
            (NumaOption::Fake(nodes), _) => Self::fake(nodes, map, log),
            (NumaOption::Auto, None) => {
                log(Level::Info, format_args!("NUMA: no SRAT, so one node"));
                Self::one_node()
            }
            (NumaOption::Auto, Some(srat)) => match Self::from_srat(srat, map) {
                Ok(topology) => topology,
                Err(damage) => {
                    log(
                        Level::Warn,
                        format_args!("SRAT: {damage}: not used, all memory is on node 0"),
                    );
                    Self::one_node()
                }
            },
        }
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The nodes, lowest first. One may have no memory, or no CPU; not node 0,
    /// which always has the lowest memory.
    #[doc(alias = "for_each_online_node")]
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.nodes).map(|n| {
            #[expect(clippy::cast_possible_truncation, reason = "at most MAX_NODES")]
            NodeId::of(n as u8)
        })
    }

    /// The node of the `cpu`th CPU, whose APIC id is `apic_id`. Without an SRAT,
    /// CPUs take turns over the nodes; one that the SRAT does not list is on node 0.
    #[must_use]
    #[doc(alias = "__apicid_to_node")]
    #[doc(alias = "numa_init_array")]
    pub fn node_of_cpu(&self, apic_id: u32, cpu: usize) -> NodeId {
        match self.source {
            Source::OneNode => NodeId::ZERO,
            Source::Fake => self.nodes().nth(cpu % self.nodes).unwrap_or(NodeId::ZERO),
            Source::Srat => self
                .cpus
                .binary_search_by_key(&apic_id, |(id, _)| *id)
                .map_or(NodeId::ZERO, |at| self.cpus[at].1),
        }
    }

    /// The firmware's name for `node`, if the nodes come from an SRAT.
    #[must_use]
    #[doc(alias = "node_to_pxm")]
    pub fn domain(&self, node: NodeId) -> Option<u32> {
        self.domains.get(node.index()).copied()
    }

    /// Puts the RAM of `map` on the nodes.
    #[doc(alias = "numa_register_meminfo")]
    pub fn apply<const N: usize>(&self, map: &mut MemoryMap<N>) {
        for (range, node) in self.stretches() {
            map.assign(range, node);
        }
    }

    /// The memory of the nodes in order of address, holes and all.
    fn stretches(&self) -> impl Iterator<Item = (PfnRange, NodeId)> {
        let ends = self.starts.iter().skip(1).map(|next| next.at);
        let both = self.starts.iter().zip(ends.chain([LAST]));
        both.map(|(start, end)| (PfnRange::new(start.at, end), start.node))
    }

    /// From `at` on it is `node`'s memory; `at` is above all starts so far.
    fn start_node(&mut self, at: Pfn, node: NodeId) {
        let at = if self.starts.is_empty() {
            Pfn::new(0)
        } else {
            at
        };
        self.starts.push(Start { at, node });
    }
}

const fn mib(pages: u64) -> u64 {
    pages >> (20 - PAGE_SHIFT)
}

/// Behind any RAM.
const LAST: Pfn = Pfn::new(MAX_RAM / PAGE_SIZE);
