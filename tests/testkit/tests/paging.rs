//! Page tables against a plain map and against their own bytes, with every CPU
//! watching what its translation cache makes of it.

use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange, VirtAddr, VirtRange};
use mm::machine::{Memory as _, Processors as _, Testing as _};
use mm::paging::{self, Level, MapError, PteFlags};
use proptest::prelude::*;
use testkit::model::{Mapping, PageTable};
use testkit::{Bump, EmulatedMachine, raw};

/// Two 1 GiB slots of address space, so that every kind of leaf has neighbours.
const WINDOW: u64 = 0xffff_9000_0000_0000;
const SLOTS: u64 = 2;
const SIZES: [u64; 3] = [PAGE_SIZE, PAGE_SIZE << 9, PAGE_SIZE << 18];
const LEVELS: [Level; 3] = [Level::Pte, Level::Pmd, Level::Pud];

#[derive(Clone, Debug)]
enum Step {
    /// Maps `frame`, rounded to the size, at `at`, likewise.
    Map {
        at: u64,
        frame: u64,
        size: usize,
        rights: usize,
    },
    Unmap {
        at: u64,
        size: usize,
    },
    Split {
        at: u64,
    },
    /// Asks for what must be refused: an address between two multiples.
    Misaligned {
        at: u64,
        size: usize,
    },
}

struct Tables {
    m: EmulatedMachine,
    bump: Bump,
    root: Pfn,
    model: PageTable,
}

impl Tables {
    fn new(seed: u64) -> Self {
        // 16 MiB for tables, 2 GiB to map.
        let ram = |start: u64, end: u64| PfnRange::new(Pfn::new(start), Pfn::new(end));
        let m = EmulatedMachine::builder()
            .ram(ram(0x100, 0x1100))
            .ram(ram(0x4_0000, 0xc_0000))
            .cpus(2)
            .eviction(0.05, seed)
            .build();
        let bump = Bump::new(ram(0x100, 0x1100));
        let root = m.zeroed(&bump);
        m.set_root(root);
        let window = VirtAddr::new(WINDOW).range(SLOTS << 30);
        m.speculate(window, 0.1, seed);
        Self {
            m,
            bump,
            root,
            model: PageTable::default(),
        }
    }

    fn window() -> VirtRange {
        VirtAddr::new(WINDOW).range(SLOTS << 30)
    }

    fn address(at: u64) -> u64 {
        WINDOW + at % (SLOTS << 30)
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Map {
                at,
                frame,
                size,
                rights,
            } => self.map(at, frame, size, rights),
            Step::Unmap { at, size } => self.unmap(Self::address(at), size),
            Step::Split { at } => self.split(Self::address(at)),
            Step::Misaligned { at, size } => {
                let va = Self::address(at) / SIZES[size] * SIZES[size] + PAGE_SIZE;
                let result = paging::map(
                    &self.m,
                    self.root,
                    VirtAddr::new(va),
                    Pfn::new(0x4_0000),
                    LEVELS[size],
                    PteFlags::KERNEL,
                    &mut || None,
                );
                if size > 0 {
                    assert_eq!(result, Err(MapError::Misaligned));
                } else if result.is_ok() {
                    let (pa, writable, executable) = (0x4000_0000, true, false);
                    let mapping = Mapping {
                        pa,
                        size: PAGE_SIZE,
                        writable,
                        executable,
                    };
                    assert!(self.model.map(va, mapping), "mapped over something");
                }
            }
        }
    }

    fn map(&mut self, at: u64, frame: u64, size: usize, rights: usize) {
        let va = Self::address(at) / SIZES[size] * SIZES[size];
        let pages = SIZES[size] / PAGE_SIZE;
        let pfn = 0x4_0000 + frame % 0x8_0000 / pages * pages;
        let flags = [PteFlags::KERNEL, PteFlags::KERNEL_RO, PteFlags::KERNEL_ROX][rights];
        let mapping = Mapping {
            pa: pfn << 12,
            size: SIZES[size],
            writable: rights == 0,
            executable: rights == 2,
        };
        let (m, bump) = (&self.m, &self.bump);
        let result = paging::map(
            m,
            self.root,
            VirtAddr::new(va),
            Pfn::new(pfn),
            LEVELS[size],
            flags,
            &mut || bump.take(Order::PAGE),
        );
        let free = self.model.is_free(va, SIZES[size]);
        match result {
            Ok(()) => assert!(self.model.map(va, mapping), "mapped over something"),
            // A table that was left behind empty is in the way as well.
            Err(MapError::AlreadyMapped(found)) => {
                assert!(
                    !free || (size > 0 && !found.is_leaf()),
                    "nothing is mapped at {va:#x}"
                );
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn unmap(&mut self, va: u64, size: usize) {
        let result = paging::unmap(&self.m, self.root, VirtAddr::new(va), LEVELS[size]);
        let expected = self.model.unmap(va, SIZES[size]);
        match (result, expected) {
            (Ok((pte, flush)), Some(mapping)) => {
                assert_eq!(pte.pfn().phys().as_u64(), mapping.pa);
                assert_eq!(flush.range().bytes(), mapping.size);
                flush.flush(&self.m);
            }
            (Err(MapError::NotMapped), None) => {}
            (result, expected) => panic!("{result:?}, but the model has {expected:?}"),
        }
    }

    fn split(&mut self, va: u64) {
        let at = VirtAddr::new(va);
        let Some(leaf) = paging::leaf(&self.m, self.root, at) else {
            assert_eq!(self.model.covering(va), None);
            return;
        };
        if leaf.level == Level::Pte {
            return;
        }
        let table = self
            .bump
            .take(Order::PAGE)
            .expect("enough frames for a test");
        paging::split(&self.m, leaf, at, table).flush(&self.m);
        self.model.split(va);
    }

    /// Tables and model are the same, and every CPU reads and writes where the
    /// model says.
    fn check(&self, probes: &[u64]) {
        self.model
            .assert_matches(&self.m, self.root, Self::window());
        for probe in probes {
            let va = Self::address(*probe) & !7;
            let at = VirtAddr::new(va);
            let expected = self
                .model
                .covering(va)
                .map(|(start, leaf)| (va - start + leaf.pa, leaf));
            let found = paging::translate(&self.m, self.root, at).map(|pa| pa.as_u64());
            assert_eq!(found, expected.map(|(pa, _)| pa), "{at:?}");
            for cpu in 0..self.m.cpus() {
                self.m.on_cpu(cpu, || self.touch(at, expected));
            }
        }
    }

    fn touch(&self, at: VirtAddr, expected: Option<(u64, Mapping)>) {
        use mm::machine::Probe;
        let Some((pa, leaf)) = expected else {
            assert!(
                self.m.probe(at, Probe::Load).is_err(),
                "{at:?} is still mapped"
            );
            return;
        };
        let stamp = pa ^ 0x5151_5151_0000_0000 ^ self.m.this_cpu() as u64;
        let pa = mm::addr::PhysAddr::new(pa);
        self.m.write_phys(pa, stamp);
        assert_eq!(self.m.load64(at), stamp, "{at:?} reads from somewhere else");
        let may_write = self.m.probe(at, Probe::Store).is_ok();
        assert_eq!(may_write, leaf.writable, "{at:?}");
        if leaf.writable {
            self.m.store64(at, !stamp);
            assert_eq!(
                self.m.read_phys(pa),
                !stamp,
                "{at:?} writes to somewhere else"
            );
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    // Addresses come from a few places, or no two would ever meet.
    let place =
        || (0u64..SLOTS, 0u64..3, 0u64..4).prop_map(|(a, b, c)| (a << 30) + (b << 21) + (c << 12));
    prop_oneof![
        5 => (place(), any::<u64>(), 0usize..3, 0usize..3)
            .prop_map(|(at, frame, size, rights)| Step::Map { at, frame, size, rights }),
        3 => (place(), 0usize..3).prop_map(|(at, size)| Step::Unmap { at, size }),
        2 => place().prop_map(|at| Step::Split { at }),
        1 => (place(), 0usize..3).prop_map(|(at, size)| Step::Misaligned { at, size }),
    ]
}

proptest! {
    #![proptest_config(testkit::same_in_every_run(256))]

    #[test]
    fn tables_are_what_the_model_says(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..40),
        probes in proptest::collection::vec(0u64..SLOTS << 30, 8),
    ) {
        let mut tables = Tables::new(seed);
        let near: Vec<u64> = steps.iter().filter_map(|step| match step {
            Step::Map { at, .. } | Step::Unmap { at, .. } | Step::Split { at } => Some(*at),
            Step::Misaligned { .. } => None,
        }).chain(probes).collect();
        for step in &steps {
            tables.run(step);
            tables.check(&near);
        }
        prop_assert_eq!(paging::unspent_flushes(), 0);
    }
}

fn simple() -> Tables {
    let mut tables = Tables::new(1);
    tables.map(0, 0x1234, 0, 0);
    tables
}

#[test]
fn a_split_keeps_rights_and_frames() {
    for rights in 0..3 {
        let mut tables = Tables::new(1);
        tables.map(0, 0, 2, rights);
        let before = raw::translate(&tables.m, tables.root, VirtAddr::new(WINDOW)).expect("mapped");
        tables.split(WINDOW + 0x1234_5000);
        tables.split(WINDOW + 0x1234_5000);
        let leaves = raw::leaves(&tables.m, tables.root, VirtAddr::new(WINDOW).range(1 << 30));
        assert_eq!(leaves.len(), 511 + 512);
        for leaf in leaves {
            assert_eq!(leaf.pa - before.pa, leaf.va - before.va);
            let large = if leaf.size > PAGE_SIZE {
                raw::bit::PS
            } else {
                0
            };
            assert_eq!(
                leaf.bits,
                before.bits & !raw::bit::PS | large,
                "rights {rights}"
            );
        }
    }
}

#[test]
fn many_pages_are_flushed_at_once() {
    let tables = simple();
    let at = VirtAddr::new(WINDOW);
    let usual = paging::FULL_FLUSH_CEILING;
    for (ceiling, pages, expected) in [
        (usual, 1, (1, 0)),
        (usual, 33, (33, 0)),
        (usual, 34, (0, 1)),
        (usual, 512, (0, 1)),
        (100, 100, (100, 0)),
        (100, 101, (0, 1)),
        (0, 1, (0, 1)),
    ] {
        paging::set_full_flush_ceiling(ceiling);
        let before = tables.m.tlb_counts(1);
        paging::Flush::new(at.range(pages * PAGE_SIZE)).flush(&tables.m);
        let now = tables.m.tlb_counts(1);
        let counted = (now.pages - before.pages, now.all - before.all);
        assert_eq!(counted, expected, "{pages} pages, ceiling {ceiling}");
    }
    paging::set_full_flush_ceiling(usual);
}
