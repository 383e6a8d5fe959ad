//! The firmware's System Resource Affinity Table.

use core::fmt;

use arrayvec::ArrayVec;

use super::{Source, Topology, mib};
use crate::addr::{MAX_NODES, MAX_PHYSMEM_BITS, NodeId, PAGE_SIZE, Pfn, PfnRange};
use crate::memblock::{MemRange, MemoryMap};

/// Memory entries an [`Srat`] has room for.
#[doc(alias = "NR_NODE_MEMBLKS")]
pub const MAX_MEMORY_ENTRIES: usize = 256;

/// CPU entries an [`Srat`] has room for.
pub const MAX_CPU_ENTRIES: usize = 512;

/// Numbers of domains end below it. Linux has as many as nodes, and Debian's 1024 of those.
#[doc(alias = "MAX_PXM_DOMAINS")]
pub const MAX_DOMAINS: u32 = 1024;

/// RAM that may be in no domain without the table being wrong, in bytes.
#[doc(alias = "numa_meminfo_cover_memory")]
pub const COVER_SLACK: u64 = 1 << 20;

/// A memory affinity structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "struct acpi_srat_mem_affinity")]
pub struct MemoryAffinity {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Proximity domain.
    pub domain: u32,
    /// Whether the entry counts.
    #[doc(alias = "ACPI_SRAT_MEM_ENABLED")]
    pub enabled: bool,
    /// Whether memory may be added there later. There need not be RAM now.
    #[doc(alias = "ACPI_SRAT_MEM_HOT_PLUGGABLE")]
    pub hotpluggable: bool,
}

impl fmt::Display for MemoryAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.start.wrapping_add(self.length).wrapping_sub(1);
        write!(
            f,
            "PXM {} [mem {:#018x}-{last:#018x}]",
            self.domain, self.start
        )?;
        if self.hotpluggable {
            f.write_str(" hotplug")?;
        }
        Ok(())
    }
}

/// A processor affinity structure, of either kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "struct acpi_srat_x2apic_cpu_affinity")]
pub struct CpuAffinity {
    /// The CPU.
    pub apic_id: u32,
    /// Proximity domain.
    pub domain: u32,
    /// Whether the entry counts.
    #[doc(alias = "ACPI_SRAT_CPU_ENABLED")]
    pub enabled: bool,
}

/// The entries of an SRAT, in the order of the table. Entries that do not count
/// are not kept.
#[derive(Clone, Debug, Default)]
pub struct Srat {
    memory: ArrayVec<MemoryAffinity, MAX_MEMORY_ENTRIES>,
    cpus: ArrayVec<CpuAffinity, MAX_CPU_ENTRIES>,
    overflow: Option<Damage>,
}

/// What is wrong with an SRAT, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// More memory entries than [`MAX_MEMORY_ENTRIES`].
    #[error("more than {MAX_MEMORY_ENTRIES} memory entries")]
    TooManyMemoryEntries,
    /// More CPU entries than [`MAX_CPU_ENTRIES`].
    #[error("more than {MAX_CPU_ENTRIES} CPU entries")]
    TooManyCpuEntries,
    /// An entry that ends beyond the physical address space.
    #[error("{:#x} bytes at {:#x} in PXM {} end beyond the {MAX_PHYSMEM_BITS}-bit address space", .0.length, .0.start, .0.domain)]
    TooLong(MemoryAffinity),
    /// The same memory in two domains.
    #[error("{0} overlaps with {1}")]
    Overlap(MemoryAffinity, MemoryAffinity),
    /// A domain whose number is [`MAX_DOMAINS`] or more.
    #[error("PXM {0} is not below {MAX_DOMAINS}")]
    DomainTooLarge(u32),
    /// A domain beyond the first [`MAX_NODES`].
    #[error("PXM {0} is one too many, there can be {MAX_NODES}")]
    TooManyDomains(u32),
    /// No enabled entry has any RAM in it.
    #[error("no enabled entry has RAM in it")]
    NoMemory,
    /// More RAM than [`COVER_SLACK`] is in no domain: the first of it, pages that
    /// are covered, pages in all.
    #[error("{} is in no PXM, only {} of {} MiB of RAM are", MemRange(*.0), mib(*.1), mib(*.2))]
    NotCovered(PfnRange, u64, u64),
}

impl Srat {
    /// No entries.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: ArrayVec::new_const(),
            cpus: ArrayVec::new_const(),
            overflow: None,
        }
    }

    /// Adds a memory entry.
    #[doc(alias = "acpi_numa_memory_affinity_init")]
    pub fn push_memory(&mut self, entry: MemoryAffinity) {
        if entry.enabled && self.memory.try_push(entry).is_err() {
            self.overflow.get_or_insert(Damage::TooManyMemoryEntries);
        }
    }

    /// Adds a CPU entry.
    #[doc(alias = "acpi_numa_x2apic_affinity_init")]
    pub fn push_cpu(&mut self, entry: CpuAffinity) {
        if entry.enabled && self.cpus.try_push(entry).is_err() {
            self.overflow.get_or_insert(Damage::TooManyCpuEntries);
        }
    }

    /// The enabled memory entries, as the table lists them.
    #[must_use]
    pub fn memory(&self) -> &[MemoryAffinity] {
        &self.memory
    }

    /// The enabled CPU entries, as the table lists them.
    #[must_use]
    pub fn cpus(&self) -> &[CpuAffinity] {
        &self.cpus
    }

    /// The memory entries in order of address, those of length 0 left out.
    ///
    /// # Errors
    /// If one is too long, or two of different domains overlap.
    fn sorted(&self) -> Result<ArrayVec<MemoryAffinity, MAX_MEMORY_ENTRIES>, Damage> {
        let mut sorted = self.memory.clone();
        sorted.retain(|entry| entry.length > 0);
        sorted.sort_unstable_by_key(|entry| (entry.start, entry.length, entry.domain));
        let mut furthest: Option<(u64, MemoryAffinity)> = None;
        for entry in &sorted {
            let end = entry
                .start
                .checked_add(entry.length)
                .filter(|end| end >> MAX_PHYSMEM_BITS == 0)
                .ok_or(Damage::TooLong(*entry))?;
            // Within one domain overlaps do no harm. Across, the entry that
            // reaches furthest is the one met first: all below were of its domain
            // or ended before.
            match furthest {
                Some((reach, other)) if reach > entry.start && other.domain != entry.domain => {
                    return Err(Damage::Overlap(other, *entry));
                }
                Some((reach, _)) if reach >= end => {}
                _ => furthest = Some((end, *entry)),
            }
        }
        Ok(sorted)
    }
}

/// The frames of an entry. Both ends are rounded down, so that two entries that
/// meet within a frame do not both get it.
const fn frames(entry: &MemoryAffinity) -> PfnRange {
    PfnRange::new(
        Pfn::new(entry.start / PAGE_SIZE),
        Pfn::new((entry.start + entry.length) / PAGE_SIZE),
    )
}

impl Topology {
    /// The nodes of `srat`, numbered as Linux does it: a domain gets the next number when it is
    /// first named, by CPU entries in the order of the table, then by memory entries, whether
    /// there is RAM or not (`acpi_numa_init`, `acpi_map_pxm_to_node`). Of several entries for one
    /// CPU the last counts. A node is there if it has RAM; those of CPUs come with
    /// [`Topology::add_cpus`]. Up to [`COVER_SLACK`] of RAM that no entry covers goes to the node
    /// below it.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    #[doc(alias = "acpi_numa_init")]
    pub fn from_srat<const N: usize>(srat: &Srat, map: &MemoryMap<N>) -> Result<Self, Damage> {
        if let Some(overflow) = srat.overflow {
            return Err(overflow);
        }
        let entries = srat.sorted()?;
        let mut topology = Self::empty(Source::Srat);
        for cpu in &srat.cpus {
            let node = topology.node_of_domain(cpu.domain)?;
            match topology.position_of_cpu(cpu.apic_id) {
                Ok(at) => topology.cpus[at].1 = node,
                Err(at) => topology.cpus.insert(at, (cpu.apic_id, node)),
            }
        }
        for entry in &srat.memory {
            topology.node_of_domain(entry.domain)?;
        }
        for entry in &entries {
            // Memory that may be added one day brings no node online today.
            let range = frames(entry);
            if map.iter().all(|ram| ram.range.intersect(range).is_empty()) {
                continue;
            }
            let node = topology.node_of_domain(entry.domain)?;
            topology.start_node(range.start, node);
        }
        if topology.starts.is_empty() {
            return Err(Damage::NoMemory);
        }
        check_cover(&entries, map)?;
        topology.possible = topology.domains.len();
        Ok(topology)
    }

    #[doc(alias = "acpi_map_pxm_to_node")]
    fn node_of_domain(&mut self, domain: u32) -> Result<NodeId, Damage> {
        if domain >= MAX_DOMAINS {
            return Err(Damage::DomainTooLarge(domain));
        }
        let at = match self.domains.iter().position(|known| *known == domain) {
            Some(at) => at,
            None => {
                let added = self.domains.try_push(domain);
                added.map_err(|_| Damage::TooManyDomains(domain))?;
                self.domains.len() - 1
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "below MAX_NODES")]
        Ok(NodeId::of(at as u8))
    }
}

/// Checks that all but a little of the RAM is in some entry.
#[doc(alias = "memblock_validate_numa_coverage")]
fn check_cover<const N: usize>(
    entries: &[MemoryAffinity],
    map: &MemoryMap<N>,
) -> Result<(), Damage> {
    let (mut covered, mut first) = (0, None);
    for ram in map.iter() {
        let mut at = ram.range.start;
        for entry in entries {
            let left = PfnRange::new(at, ram.range.end);
            let here = frames(entry).intersect(left);
            if here.is_empty() {
                continue;
            }
            if here.start > at {
                first.get_or_insert(PfnRange::new(at, here.start));
            }
            covered += here.pages();
            at = here.end;
        }
        if at < ram.range.end {
            first.get_or_insert(PfnRange::new(at, ram.range.end));
        }
    }
    let all = map.total_pages();
    match first {
        Some(first) if all - covered > COVER_SLACK / PAGE_SIZE => {
            Err(Damage::NotCovered(first, covered, all))
        }
        _ => Ok(()),
    }
}
