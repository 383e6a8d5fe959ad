//! A machine with a whole memory manager booted on it.

use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::audit::{self, Report};
use mm::frames::{FrameSource, Placement};
use mm::machine::Memory as _;
use mm::page::{self, Memmap, Page};
use mm::system::Mm;
use mm::vmemmap::{Fill, HvoError, RamRange, Vmemmap};
use suites::Env;

use crate::frames::Bump;
use crate::machine::{Builder, EmulatedMachine};

/// 512 GiB of address space that no world uses.
const SCRATCH: u64 = 0xffff_c900_0000_0000 & !((1 << 39) - 1);

/// How a [`World`] is put together.
#[derive(Debug)]
pub struct WorldBuilder {
    machine: Builder,
    cpus: usize,
    ram: Vec<RamRange>,
    base: VirtAddr,
    watch: bool,
}

impl WorldBuilder {
    /// Adds RAM of node `node`, in MiB from `start` to before `end`, above what
    /// was added before. CPU `n` sits on the `n`th node that has memory.
    #[must_use]
    pub fn ram(mut self, node: u8, start: u64, end: u64) -> Self {
        let mib = |n: u64| Pfn::new((n << 20) / PAGE_SIZE);
        self.ram.push(RamRange {
            range: PfnRange::new(mib(start), mib(end)),
            node: NodeId::of(node),
        });
        self
    }

    /// Number of CPUs, 2 if not said.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self
    }

    /// Address of the struct page of frame 0.
    #[must_use]
    pub fn base(mut self, base: u64) -> Self {
        self.base = VirtAddr::new(base);
        self
    }

    /// See [`Builder::eviction`].
    #[must_use]
    pub fn eviction(mut self, chance: f64, seed: u64) -> Self {
        self.machine = self.machine.eviction(chance, seed);
        self
    }

    /// See [`Builder::jitter`].
    #[must_use]
    pub fn jitter(mut self, chance: f64) -> Self {
        self.machine = self.machine.jitter(chance);
        self
    }

    /// See [`Builder::gbpages`].
    #[must_use]
    pub fn gbpages(mut self, yes: bool) -> Self {
        self.machine = self.machine.gbpages(yes);
        self
    }

    /// See [`Builder::multi_hit`].
    #[must_use]
    pub fn multi_hit(mut self, hidden: bool) -> Self {
        self.machine = self.machine.multi_hit(hidden);
        self
    }

    /// Does not watch freed frames: nothing bites but stale data itself.
    #[must_use]
    pub fn blind(mut self) -> Self {
        self.watch = false;
        self
    }

    /// Boots: tables, memmap, buddy allocators, pools.
    ///
    /// # Panics
    /// If there is not enough RAM for the memmap.
    #[must_use]
    pub fn boot(self) -> World {
        let Self {
            mut machine,
            cpus,
            ram,
            base,
            watch,
        } = self;
        for ram in &ram {
            machine = machine.ram(ram.range);
        }
        let m = machine.cpus(cpus).build();
        let early = Early {
            ranges: ram.iter().map(|ram| (*ram, Bump::new(ram.range))).collect(),
        };
        let first = early.ranges.first().expect("a world needs RAM");
        m.set_root(m.zeroed(&first.1));
        let mm = Box::new(Mm::new(Memmap::new(base)));
        mm.build_memmap(&m, &early, ram.iter().copied())
            .expect("RAM for the memmap");
        if watch {
            m.watch_free_blocks(base);
        }
        let used = |(ram, bump): &(RamRange, Bump)| PfnRange::new(ram.range.start, bump.next());
        let free = |(ram, bump): &(RamRange, Bump)| RamRange {
            range: PfnRange::new(bump.next(), ram.range.end),
            node: ram.node,
        };
        let reserved = early.ranges.iter().map(used);
        mm.hand_over(
            &m,
            ram.iter().copied(),
            reserved,
            early.ranges.iter().map(free),
        );
        for (cpu, node) in mm.nodes.online().enumerate().take(cpus) {
            m.set_node(cpu, node);
        }
        World {
            m,
            mm,
            ram,
            kept: suites::Kept::new(),
        }
    }
}

/// The allocator before there is one: each range from its start on.
struct Early {
    ranges: Vec<(RamRange, Bump)>,
}

impl FrameSource<EmulatedMachine> for Early {
    fn alloc(&self, _: &EmulatedMachine, order: Order, placement: Placement) -> Option<Pfn> {
        let near = |ram: &RamRange| ram.node == placement.node();
        let from = |wanted: bool| {
            let mut ranges = self
                .ranges
                .iter()
                .filter(move |(ram, _)| near(ram) == wanted);
            ranges.find_map(|(_, bump)| bump.take(order))
        };
        match placement {
            Placement::Only(_) => from(true),
            Placement::Prefer(_) => from(true).or_else(|| from(false)),
        }
    }

    fn free(&self, _: &EmulatedMachine, block: Pfn, _: Order) {
        panic!("the early allocator takes nothing back, but was given {block:?}");
    }

    fn split(&self, _: &EmulatedMachine, block: Pfn, _: Order) {
        panic!("the early allocator splits nothing, but was given {block:?}");
    }

    fn free_pages(&self, _: &EmulatedMachine, first: Pfn, _: u64) {
        panic!("the early allocator takes nothing back, but was given {first:?}");
    }
}

/// A booted machine: what most tests of `mm` start from.
#[derive(Debug)]
pub struct World {
    /// The machine.
    pub m: EmulatedMachine,
    /// Its memory manager.
    pub mm: Box<Mm>,
    ram: Vec<RamRange>,
    kept: suites::Kept,
}

impl World {
    /// No RAM yet, two CPUs, the memmap where Linux has it, freed frames watched.
    #[must_use]
    pub fn builder() -> WorldBuilder {
        WorldBuilder {
            machine: EmulatedMachine::builder(),
            cpus: 2,
            ram: Vec::new(),
            base: Memmap::DEFAULT_BASE,
            watch: true,
        }
    }

    /// One node, 512 MiB in one piece.
    #[must_use]
    pub fn small() -> Self {
        Self::builder().ram(0, 0, 512).boot()
    }

    /// Two nodes of 384 MiB with a hole of a section and a half in the second.
    #[must_use]
    pub fn two_nodes() -> Self {
        Self::builder()
            .ram(0, 1, 384)
            .ram(1, 384, 576)
            .ram(1, 768, 960)
            .boot()
    }

    /// The RAM.
    pub fn ram(&self) -> impl Iterator<Item = RamRange> + Clone + '_ {
        self.ram.iter().copied()
    }

    /// What a suite's case is given.
    #[must_use]
    pub fn env(&self) -> Env<'_, EmulatedMachine> {
        Env {
            m: &self.m,
            mm: &self.mm,
            ram: &self.ram,
            scratch: VirtAddr::new(SCRATCH),
            kept: &self.kept,
        }
    }

    /// The memmap's place.
    #[must_use]
    pub fn memmap(&self) -> Memmap {
        self.vmemmap().memmap()
    }

    /// The memmap.
    #[must_use]
    pub fn vmemmap(&self) -> &Vmemmap {
        &self.mm.vmemmap
    }

    /// Addresses of the struct pages of all RAM, holes included.
    #[must_use]
    pub fn window(&self) -> VirtRange {
        let first = self.ram.first().expect("has RAM").range.start;
        let last = self.ram.last().expect("has RAM").range.end;
        let page = |pfn| self.memmap().page(pfn).address();
        VirtRange {
            start: page(first),
            end: page(last),
        }
    }

    /// Lets all CPUs translate addresses in the memmap that nobody asked for.
    pub fn speculate(&self, chance: f64, seed: u64) {
        self.m.speculate(self.window(), chance, seed);
    }

    /// The audit's report.
    #[must_use]
    pub fn audit(&self) -> Report {
        let input = audit::input(&self.m, &self.mm, self.ram());
        let end = self
            .ram
            .iter()
            .map(|ram| ram.range.end)
            .max()
            .expect("has RAM");
        let mut scratch = vec![u64::MAX; audit::scratch_words(end)];
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

    /// A compound page of `order` on `node`, frozen; its tails behind the first
    /// frame of memmap are written only if `tails` says so.
    pub fn compound(&self, node: u8, order: Order, tails: bool) -> Option<Page> {
        let placement = Placement::Only(NodeId::of(node));
        let block = self.mm.nodes.alloc(&self.m, order, placement)?;
        let head = self.memmap().page(block);
        page::prep_compound_head(&self.m, head, order);
        if tails {
            page::prep_compound_tails(&self.m, head, order);
        }
        Some(head)
    }

    /// Gives a compound page with all its tails back.
    pub fn dissolve(&self, head: Page, order: Order) {
        page::undo_compound_tails(&self.m, head, order);
        self.release(head, order);
    }

    /// Gives a compound page whose tails were restored as unused back.
    pub fn release(&self, head: Page, order: Order) {
        page::undo_compound_head(&self.m, head, order);
        self.mm.nodes.free(&self.m, self.memmap().pfn(head), order);
    }

    /// Folds one block.
    ///
    /// # Errors
    /// [`HvoError`].
    pub fn fold(&self, head: Page, order: Order) -> Result<(), HvoError> {
        self.vmemmap()
            .optimize_folio(&self.m, &self.mm.nodes, head, order)
    }

    /// Unfolds one block.
    ///
    /// # Errors
    /// [`HvoError`].
    pub fn unfold(&self, head: Page, order: Order, fill: Fill) -> Result<(), HvoError> {
        self.vmemmap()
            .restore_folio(&self.m, &self.mm.nodes, head, order, fill)
    }

    /// Free pages of all nodes.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.mm.nodes.total_free(&self.m)
    }

    /// Reads a word of memory as `cpu` sees it.
    #[must_use]
    pub fn load_as(&self, cpu: usize, at: VirtAddr) -> u64 {
        self.m.on_cpu(cpu, || self.m.load64(at))
    }
}
