//! Which memory and which CPU is on which node.
//!
//! Three sources: the firmware's SRAT ([`Srat`]), an even split for machines
//! without one (`numa=fake=N`), or one node for everything. An SRAT is believed as
//! a whole or not at all: half of a wrong table would put memory on wrong nodes.

mod fake;
mod slit;
mod srat;

use core::fmt;

use arrayvec::ArrayVec;
pub use fake::{FAKE_BIG_GRANULE, FAKE_GRANULE};
pub use slit::{BadDistance, LOCAL_DISTANCE, REMOTE_DISTANCE, Slit};
pub use srat::{
    COVER_SLACK, CpuAffinity, Damage, MAX_CPU_ENTRIES, MAX_DOMAINS, MAX_MEMORY_ENTRIES,
    MemoryAffinity, Srat,
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

/// The nodes of a machine. Numbers have gaps where firmware names domains that have neither memory
/// nor CPUs yet.
#[derive(Clone, Debug)]
pub struct Topology {
    source: Source,
    /// Numbers that are given out.
    #[doc(alias = "nr_node_ids")]
    possible: usize,
    /// A bit for each node that has memory or a CPU.
    #[doc(alias = "node_online_map")]
    online: u64,
    /// Sorted; the first is frame 0.
    starts: ArrayVec<Start, MAX_MEMORY_ENTRIES>,
    /// By node, if the source is an SRAT.
    domains: ArrayVec<u32, MAX_NODES>,
    /// APIC id and node as the SRAT has them, sorted.
    cpus: ArrayVec<(u32, NodeId), MAX_CPU_ENTRIES>,
}

impl Topology {
    const fn empty(source: Source) -> Self {
        Self {
            source,
            possible: 0,
            online: 0,
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
        topology.possible = 1;
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

    /// The nodes that have memory or a CPU, lowest first.
    #[doc(alias = "for_each_online_node")]
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        let online = self.online;
        let all = (0..64_u8).filter(move |n| online >> n & 1 == 1);
        all.map(NodeId::of)
    }

    /// How many numbers of nodes there are, from 0 on: those of domains that are empty are among
    /// them.
    #[must_use]
    #[doc(alias = "nr_node_ids")]
    pub const fn possible(&self) -> usize {
        self.possible
    }

    const fn set_online(&mut self, node: NodeId) {
        self.online |= 1 << node.get();
    }

    /// Brings the nodes of the CPUs `apic_ids` online, those that the firmware says can run. An
    /// SRAT may list others, whose nodes need not be there.
    #[doc(alias = "init_cpu_to_node")]
    pub fn add_cpus(&mut self, apic_ids: impl IntoIterator<Item = u32>) {
        for apic_id in apic_ids {
            if let Ok(at) = self.position_of_cpu(apic_id) {
                self.set_online(self.cpus[at].1);
            }
        }
    }

    /// Where `apic_id` stands among the CPUs of the SRAT, or where it would.
    fn position_of_cpu(&self, apic_id: u32) -> Result<usize, usize> {
        self.cpus.binary_search_by_key(&apic_id, |(id, _)| *id)
    }

    /// The node of the `cpu`th CPU, whose APIC id is `apic_id`. Without an SRAT, CPUs take turns
    /// over the nodes, and so do those that the SRAT does not list, or on a node that is not there.
    #[must_use]
    #[doc(alias = "__apicid_to_node")]
    #[doc(alias = "numa_init_array")]
    pub fn node_of_cpu(&self, apic_id: u32, cpu: usize) -> NodeId {
        let in_turn = || {
            let count = self.online.count_ones().max(1) as usize;
            self.nodes().nth(cpu % count).unwrap_or(NodeId::ZERO)
        };
        match self.source {
            Source::OneNode => NodeId::ZERO,
            Source::Fake => in_turn(),
            Source::Srat => self
                .position_of_cpu(apic_id)
                .map(|at| self.cpus[at].1)
                .ok()
                .filter(|node| self.online >> node.get() & 1 == 1)
                .unwrap_or_else(in_turn),
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
        self.set_online(node);
    }
}

const fn mib(pages: u64) -> u64 {
    pages >> (20 - PAGE_SHIFT)
}

/// Behind any RAM.
const LAST: Pfn = Pfn::new(MAX_RAM / PAGE_SIZE);
