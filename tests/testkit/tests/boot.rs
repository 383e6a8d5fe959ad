//! From the firmware's memory map to huge pages: memblock, numa, the hand-over to
//! the buddy allocator, and the report, on the emulated machine.

use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange};
use mm::audit;
use mm::frames::{FrameSource, Placement};
use mm::machine::{FailPoint, Level, Memory as _, Testing as _};
use mm::memblock::{Early, EarlyFrames, Kind, LOW_MEMORY, MapBuilder, MemoryMap, RamRange, Region};
use mm::numa::{NumaOption, Topology};
use mm::page::{Flags, Memmap};
use mm::report::{HugeCounts, Report, Slot, Snapshot, slots};
use mm::system::Mm;
use proptest::prelude::*;
use testkit::EmulatedMachine;

const MIB: u64 = 1 << 20;

/// What a boot left.
struct Booted {
    m: EmulatedMachine,
    mm: Box<Mm>,
    map: MemoryMap,
    /// Free pages by node when the buddy allocator took over.
    free: Vec<u64>,
}

fn region(start: u64, end: u64, kind: Kind) -> Region {
    Region {
        start,
        length: end - start,
        kind,
    }
}

/// RAM of a PC with a hole in it and odd edges, in bytes.
fn pc() -> Vec<Region> {
    vec![
        region(700 * MIB + 77, 901 * MIB, Kind::Usable),
        region(0, 0x9_fc00, Kind::Usable),
        region(0x9_fc00, MIB, Kind::Reserved),
        region(MIB, 500 * MIB + 5000, Kind::Usable),
        region(100 * MIB + 1, 100 * MIB + 2, Kind::Reserved),
    ]
}

fn frames(start: u64, end: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start / PAGE_SIZE), Pfn::new(end / PAGE_SIZE))
}

/// Where the kernel image would be.
fn image() -> PfnRange {
    frames(2 * MIB, 5 * MIB)
}

fn memory_map(regions: &[Region], numa: NumaOption) -> MemoryMap {
    let mut builder = MapBuilder::new();
    for region in regions {
        builder.add(*region);
    }
    assert_eq!(builder.warnings().count(), 0);
    let mut map = builder.build();
    Topology::detect(numa, None, &map, &mut |_, _| {}).apply(&mut map);
    map
}

fn machine(map: &MemoryMap) -> EmulatedMachine {
    let builder = EmulatedMachine::builder().gbpages(true).cpus(1);
    map.iter()
        .fold(builder, |builder, ram| builder.ram(ram.range))
        .build()
}

/// Boots as the kernel does. `before` runs when the early allocator is ready.
fn boot(
    regions: &[Region],
    numa: NumaOption,
    before: impl FnOnce(&EmulatedMachine, &EarlyFrames<'_>),
) -> Booted {
    let map = memory_map(regions, numa);
    let m = machine(&map);
    let early = EarlyFrames::new(Early::new(&map));
    early.lock(&m).reserve(image());
    let root = early
        .alloc(&m, Order::PAGE, Placement::Prefer(NodeId::ZERO))
        .expect("RAM for a page table");
    m.fill_words(root.phys(), 0, 512);
    m.set_root(root);
    before(&m, &early);

    let mm = Box::new(Mm::new(Memmap::new(Memmap::DEFAULT_BASE)));
    mm.build_memmap(&m, &early, map.iter())
        .expect("RAM for the memmap");
    let early = early.lock(&m);
    assert_eq!(early.warning(), None);
    let free = (0..64).map(|n| early.free_pages(NodeId::of(n))).collect();
    mm.hand_over(
        &m,
        map.iter(),
        early.reserved_ranges().map(|ram| ram.range),
        early.free_ranges(),
    );
    drop(early);
    Booted { m, mm, map, free }
}

impl Booted {
    /// Audits, and checks that no page was lost or found in the hand-over.
    fn check(&self) {
        let input = audit::input(&self.m, &self.mm, self.map.iter());
        let mut scratch = vec![0; audit::scratch_words(self.map.span().end)];
        let report = audit::audit(&self.m, &input, &mut scratch).expect("enough scratch");
        assert!(report.is_ok(), "{report}");
        let present = self.map.pages_by_node();
        for node in self.mm.nodes.online() {
            let this = self.mm.nodes.get(node);
            assert_eq!(this.present_pages(), present[node.index()]);
        }
    }

    fn check_free(&self) {
        for node in self.mm.nodes.online() {
            let free = self.mm.nodes.get(node).free_pages(&self.m);
            assert_eq!(free, self.free[node.index()], "node {node}");
        }
    }

    fn grow(&self, order: Order, count: u64) -> u64 {
        let h = self.mm.hugetlb.hstate(order).expect("the size exists");
        let backing = self.mm.backing();
        self.mm.hugetlb.grow(&self.m, backing, h, None, count)
    }

    fn picture(&self) -> String {
        slots(&self.m, self.mm.vmemmap.memmap(), self.map.span().end).to_string()
    }
}

#[test]
fn a_pc_boots() {
    let booted = boot(&pc(), NumaOption::Fake(2), |_, _| {});
    booted.check();
    booted.check_free();
    assert_eq!(booted.mm.nodes.online().count(), 2);
    // What is in use is marked so: low memory and the image, to the frame.
    let page = |pfn| booted.mm.vmemmap.memmap().page(pfn);
    let reserved = |pfn: Pfn| page(pfn).flags(&booted.m).contains(Flags::RESERVED);
    let low = frames(0, LOW_MEMORY);
    for pfn in low.iter().chain(image().iter()) {
        assert!(reserved(pfn), "{pfn:?}");
    }
    assert!(!reserved(low.end) && !reserved(image().end));
    // The frame with the reserved byte is no RAM.
    assert_eq!(booted.map.node_of(Pfn::new(100 * MIB / PAGE_SIZE)), None);
}

#[test]
fn memmap_comes_from_its_own_node_and_from_the_top() {
    let booted = boot(&pc(), NumaOption::Fake(2), |_, _| {});
    let [first, second] = [0, 1].map(|n| {
        let on = |ram: &RamRange| ram.node == NodeId::of(n);
        booted.map.iter().filter(on).collect::<Vec<_>>()
    });
    let leaf = |pfn: Pfn| {
        let at = booted.mm.vmemmap.memmap().page(pfn).address();
        let leaf = mm::paging::leaf(&booted.m, booted.m.root(), at).expect("RAM has struct pages");
        assert_eq!(leaf.level, mm::paging::Level::Pmd);
        leaf.pte.pfn()
    };
    for ranges in [&first, &second] {
        for ram in ranges {
            let node = booted.map.node_of(leaf(ram.range.start));
            assert_eq!(node, Some(ram.node));
        }
    }
    let top = first.last().expect("has RAM").range.end;
    assert!(leaf(first[0].range.start) >= Pfn::new(top.as_u64() - 4096));
}

#[test]
fn without_a_2mib_block_the_memmap_is_in_pages() {
    let booted = boot(&pc(), NumaOption::Off, |m, _| {
        m.fail_nth(FailPoint::PageAlloc, Some(0));
    });
    booted.check();
    booted.check_free();
    let picture = booted.picture();
    let cells = picture.lines().nth(1).unwrap();
    assert_eq!(cells, "     0 GiB |+###.###|");
}

#[test]
fn freed_early_memory_is_free() {
    let placement = Placement::Prefer(NodeId::ZERO);
    let booted = boot(&pc(), NumaOption::Off, |m, early| {
        let before = early.lock(m).free_pages(NodeId::ZERO);
        let block = early.alloc(m, Order::of(4), placement).unwrap();
        early.split(m, block, Order::of(4));
        early.free_pages(m, block.offset(3), 13);
        early.free_pages(m, block, 3);
        let block = early.alloc(m, Order::PMD, placement).unwrap();
        early.free(m, block, Order::PMD);
        assert_eq!(early.lock(m).free_pages(NodeId::ZERO), before);
    });
    booted.check();
}

#[test]
#[should_panic(expected = "BUG: [mem 0x0000000000a00000-0x0000000000a00fff] is not allocated")]
fn early_double_free_is_named() {
    let map = memory_map(&pc(), NumaOption::Off);
    let m = machine(&map);
    let early = EarlyFrames::new(Early::new(&map));
    early.free(&m, Pfn::new(10 * MIB / PAGE_SIZE), Order::PAGE);
}

#[test]
fn a_full_table_warns_once() {
    let map = memory_map(&pc(), NumaOption::Off);
    let m = machine(&map);
    let early = EarlyFrames::new(Early::new(&map));
    for n in 0..600 {
        early
            .lock(&m)
            .reserve(Pfn::new(2560 + 2 * n).block(Order::PAGE));
    }
    let placement = Placement::Prefer(NodeId::ZERO);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(early.alloc(&m, Order::PMD, placement).unwrap());
    }
    taken.dedup();
    assert_eq!(taken.len(), 3);
    let log = m.take_log();
    let told = "memblock: more than 512 reserved ranges: ";
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(
        log[0].0 == Level::Warn && log[0].1.starts_with(told),
        "{log:?}"
    );
}

#[test]
fn the_report_follows_what_happens() {
    let booted = boot(&pc(), NumaOption::Off, |_, _| {});
    let (m, mm) = (&booted.m, &booted.mm);
    let before = Snapshot::take(m, mm);
    assert_eq!(before.free(), booted.free[0]);
    assert_eq!(before.present(), booted.map.total_pages());
    assert_eq!(before.struct_pages(), before.memmap.sections * 512);
    assert_eq!(
        booted.picture().lines().nth(1),
        Some("     0 GiB |####.###|")
    );

    mm.hugetlb.set_optimize(true);
    assert_eq!(booted.grow(Order::PMD, 70), 70);
    booted.check();
    let after = Snapshot::take(m, mm);
    let expected = HugeCounts {
        nr: 70,
        free: 70,
        folded: 70,
    };
    assert_eq!(after.nodes[0].huge[0], expected);
    let report = Report {
        before: &before,
        after: &after,
    };
    // Free memory is the witness: it has lost the huge pages but for what was gained.
    let gone = before.free() - after.free();
    assert_eq!(report.net_pages(), 70 * 512 - i64::try_from(gone).unwrap());
    assert_eq!(after.memmap.saved, 70 * 7);
    let text = report.to_string();
    assert!(text.contains("HVO freed 1960 KiB and spent "), "{text}");

    // 70 folios fill one section and a bit of others.
    let picture = slots(m, mm.vmemmap.memmap(), booted.map.span().end);
    let kinds: Vec<Slot> = (0..picture.slots).map(&picture.slot).collect();
    let folded = kinds
        .iter()
        .filter(|k| matches!(k, Slot::Folded | Slot::Partly))
        .count();
    assert!(folded >= 2, "{kinds:?}");
    assert_eq!(kinds[4], Slot::Hole);

    let h = mm.hugetlb.hstate(Order::PMD).unwrap();
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 70), 70);
    booted.check();
    let end = Snapshot::take(m, mm);
    assert_eq!(end.memmap.saved, 0);
    assert_eq!(end.struct_pages(), before.struct_pages());
    assert!(!booted.picture().contains("folded"));
}

/// Maps of up to 512 MiB in pieces of odd sizes, with reserved bits.
fn any_map() -> impl Strategy<Value = Vec<Region>> {
    let usable = (0..480 * MIB, 16 * MIB..128 * MIB);
    let reserved = (0..512 * MIB, 1..8 * MIB);
    (
        prop::collection::vec(usable, 1..5),
        prop::collection::vec(reserved, 0..4),
    )
        .prop_map(|(usable, reserved)| {
            let all = usable.into_iter().map(|place| (place, Kind::Usable));
            let all = all.chain(reserved.into_iter().map(|place| (place, Kind::Reserved)));
            all.map(|((start, length), kind)| region(start, start + length, kind))
                // Something to boot from, always.
                .chain([region(0, 64 * MIB, Kind::Usable)])
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any map boots, every frame has one owner, and huge pages can be made and
    /// folded from what is left.
    #[test]
    fn any_map_boots(regions in any_map(), nodes in 1..5u32) {
        let booted = boot(&regions, NumaOption::Fake(nodes), |_, _| {});
        booted.check();
        booted.check_free();
        booted.mm.hugetlb.set_optimize(true);
        booted.grow(Order::PMD, 16);
        booted.check();
    }
}
