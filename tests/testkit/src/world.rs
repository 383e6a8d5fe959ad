//! A whole machine with its memory manager up, as the suites want it.

use mm::addr::{NodeId, Pfn, PfnRange, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::Memmap;
use mm::system::Mm;
use mm::vmemmap::RamRange;
use suites::Env;

use crate::frames::Bump;
use crate::machine::EmulatedMachine;

/// An emulated machine, its memory manager, and its RAM by node.
#[derive(Debug)]
pub struct World {
    /// The machine.
    pub machine: EmulatedMachine,
    /// Its memory manager.
    pub mm: Box<Mm>,
    /// Its RAM.
    pub ram: Vec<RamRange>,
}

/// An early allocator for a few ranges: from the front of each, so that what is
/// left is one piece.
struct Early {
    ranges: Vec<(NodeId, Bump, PfnRange)>,
}

impl FrameSource<EmulatedMachine> for Early {
    fn alloc(
        &self,
        _: &EmulatedMachine,
        order: mm::addr::Order,
        placement: Placement,
    ) -> Option<Pfn> {
        let from = |near: bool| {
            self.ranges
                .iter()
                .filter(|(node, ..)| (*node == placement.node()) == near)
                .find_map(|(_, bump, _)| bump.take(order))
        };
        match placement {
            Placement::Only(_) => from(true),
            Placement::Prefer(_) => from(true).or_else(|| from(false)),
        }
    }

    fn free(&self, _: &EmulatedMachine, block: Pfn, _: mm::addr::Order) {
        panic!("the early allocator takes nothing back: {block:?}");
    }

    fn split(&self, _: &EmulatedMachine, _: Pfn, _: mm::addr::Order) {}

    fn free_pages(&self, _: &EmulatedMachine, first: Pfn, _: u64) {
        panic!("the early allocator takes nothing back: {first:?}");
    }
}

impl World {
    /// A machine with RAM as given, in MiB from where, how many, on which node,
    /// set up by `build`.
    #[must_use]
    pub fn new(
        ram: &[(u64, u64, u8)],
        build: impl FnOnce(crate::Builder) -> crate::Builder,
    ) -> Self {
        let mib = |n: u64| Pfn::new(n << 8);
        let ram: Vec<RamRange> = ram
            .iter()
            .map(|&(start, size, node)| RamRange {
                range: PfnRange::new(mib(start), mib(start + size)),
                node: NodeId::of(node),
            })
            .collect();
        let builder = ram
            .iter()
            .fold(EmulatedMachine::builder(), |b, ram| b.ram(ram.range));
        let machine = build(builder).build();
        let early = Early {
            ranges: ram
                .iter()
                .map(|ram| (ram.node, Bump::new(ram.range), ram.range))
                .collect(),
        };
        machine.set_root(machine.zeroed(&early.ranges[0].1));
        let mm = Box::new(Mm::new(Memmap::new(Memmap::DEFAULT_BASE)));
        mm.build_memmap(&machine, &early, ram.iter().copied())
            .expect("the test gave enough RAM for its memmap");
        let used = early
            .ranges
            .iter()
            .map(|(_, bump, range)| PfnRange::new(range.start, bump.next()));
        let free = early.ranges.iter().map(|(node, bump, range)| RamRange {
            range: PfnRange::new(bump.next(), range.end),
            node: *node,
        });
        mm.hand_over(&machine, ram.iter().copied(), used, free);
        Self { machine, mm, ram }
    }

    /// What a suite's case is given.
    #[must_use]
    pub fn env(&self) -> Env<'_, EmulatedMachine> {
        Env {
            m: &self.machine,
            mm: &self.mm,
            ram: &self.ram,
            scratch: VirtAddr::new(0xffff_c900_0000_0000 & !((1 << 39) - 1)),
        }
    }

    /// The live top-level table.
    #[must_use]
    pub fn root(&self) -> Pfn {
        self.machine.root()
    }
}
