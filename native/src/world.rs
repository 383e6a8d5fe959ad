//! A machine with a whole memory manager booted on it, as the kernel boots it.

use mm::addr::{NodeId, PAGE_SIZE, Pfn, PfnRange};
use mm::audit::{self, Report};
use mm::memblock::{Early, EarlyFrames, Kind, MapBuilder, MemoryMap, Region};
use mm::page::Memmap;
use mm::system::Mm;
use suites::Env;

use crate::host::HostError;
use crate::limits::need_mappings;
use crate::machine::{Builder, Machine};

/// How a [`World`] is put together.
#[derive(Clone, Debug)]
pub struct WorldBuilder {
    machine: Builder,
    cpus: usize,
    ram: Vec<(NodeId, u64, u64)>,
}

impl WorldBuilder {
    /// Adds RAM of node `node`, in MiB from `start` to before `end`, above what was added
    /// before. CPU `n` sits on the `n`th node that has memory.
    #[must_use]
    pub fn ram(mut self, node: u8, start: u64, end: u64) -> Self {
        self.ram.push((NodeId::of(node), start << 20, end << 20));
        self
    }

    /// Number of CPUs, 1 if not said.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self
    }

    /// Boots: memory map, memmap, buddy allocators, pools.
    ///
    /// # Errors
    /// [`HostError`] if the host does not give what the machine consists of.
    ///
    /// # Panics
    /// If there is not enough RAM for the memmap.
    pub fn boot(self) -> Result<World, HostError> {
        let end = self.ram.iter().map(|(_, _, end)| *end).max().unwrap_or(0);
        // One for each page of memmap, if every block is folded.
        need_mappings(end / PAGE_SIZE / (PAGE_SIZE / mm::page::STRUCT_PAGE_SIZE))?;
        let m = self.machine.ram(end).cpus(self.cpus).build()?;
        let ram = self.memory_map();
        let early = EarlyFrames::new(Early::<32>::new(&ram));
        let mm = Box::new(Mm::new(Memmap::new(m.memmap_base())));
        mm.build_memmap(&m, &early, ram.iter())
            .expect("RAM for the memmap");
        let early = early.lock(&m).clone();
        mm.hand_over(
            &m,
            ram.iter(),
            early.reserved_ranges().map(|ram| ram.range),
            early.free_ranges(),
        );
        for (cpu, node) in mm.nodes.online().enumerate().take(self.cpus) {
            m.set_node(cpu, node);
        }
        Ok(World {
            m,
            mm,
            ram,
            kept: suites::Kept::new(),
        })
    }

    fn memory_map(&self) -> MemoryMap<32> {
        let mut builder = MapBuilder::new();
        for (_, start, end) in &self.ram {
            builder.add(Region {
                start: *start,
                length: end - start,
                kind: Kind::Usable,
            });
        }
        let mut map = builder.build();
        for (node, start, end) in &self.ram {
            let range = PfnRange::new(Pfn::new(start / PAGE_SIZE), Pfn::new(end / PAGE_SIZE));
            map.assign(range, *node);
        }
        map
    }
}

/// A booted machine.
#[derive(Debug)]
pub struct World {
    /// The machine.
    pub m: Machine,
    /// Its memory manager.
    pub mm: Box<Mm>,
    ram: MemoryMap<32>,
    kept: suites::Kept,
}

impl World {
    /// No RAM yet, one CPU.
    #[must_use]
    pub fn builder() -> WorldBuilder {
        WorldBuilder {
            machine: Machine::builder(),
            cpus: 1,
            ram: Vec::new(),
        }
    }

    /// What a suite's case is given.
    #[must_use]
    pub fn env(&self) -> Env<'_, Machine> {
        Env {
            m: &self.m,
            mm: &self.mm,
            ram: self.ram.as_slice(),
            scratch: self.m.scratch().start,
            kept: &self.kept,
        }
    }

    /// The audit's report.
    ///
    /// # Panics
    /// If the machine has no RAM.
    #[must_use]
    pub fn audit(&self) -> Report {
        let input = audit::input(&self.m, &self.mm, self.ram.iter());
        let mut scratch = vec![u64::MAX; audit::scratch_words(self.ram.span().end)];
        audit::audit(&self.m, &input, &mut scratch).expect("as much as it asked for")
    }

    /// Audits.
    ///
    /// # Panics
    /// With the findings, if there are any.
    pub fn check(&self) {
        let report = self.audit();
        assert!(report.is_ok(), "{report}");
    }
}
