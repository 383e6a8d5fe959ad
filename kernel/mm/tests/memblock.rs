//! The boot memory map against a model that is a set of frames.

use std::collections::{BTreeMap, BTreeSet};

use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange};
use mm::frames::Placement;
use mm::memblock::{
    Direction, Early, Kind, LOW_MEMORY, MAX_RAM, MapBuilder, MemoryMap, RamRange, Region, Warning,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Frames that the model knows one by one.
const FRAMES: u64 = 600;
const LOW: u64 = LOW_MEMORY / PAGE_SIZE;

fn region(start: u64, length: u64, kind: Kind) -> Region {
    Region {
        start,
        length,
        kind,
    }
}

fn usable(start: u64, length: u64) -> Region {
    region(start, length, Kind::Usable)
}

fn reserved(start: u64, length: u64) -> Region {
    region(start, length, Kind::Reserved)
}

fn built<const N: usize>(regions: &[Region]) -> (MapBuilder<N>, MemoryMap<N>) {
    let mut builder = MapBuilder::new();
    for region in regions {
        builder.add(*region);
    }
    let map = builder.build();
    (builder, map)
}

fn pfns(start: u64, end: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), Pfn::new(end))
}

fn node(n: u8) -> NodeId {
    NodeId::of(n)
}

/// Any region: mostly within the model's frames and at odd bytes, some absurd.
fn any_region() -> impl Strategy<Value = Region> {
    let kind = prop_oneof![3 => Just(Kind::Usable), 1 => Just(Kind::Reserved)];
    let near = (0..FRAMES * PAGE_SIZE, 0..64 * PAGE_SIZE);
    let aligned = (0..FRAMES, 0..64u64).prop_map(|(s, l)| (s * PAGE_SIZE, l * PAGE_SIZE));
    let wild = (any::<u64>(), any::<u64>());
    let place = prop_oneof![4 => near, 4 => aligned, 1 => wild];
    (place, kind).prop_map(|((start, length), kind)| {
        let length = length.min(FRAMES * PAGE_SIZE * 2);
        region(start, length, kind)
    })
}

/// The frames below `FRAMES` all of whose bytes are usable and none reserved,
/// found by trying the bytes at which anything can change.
fn model_frames(regions: &[Region]) -> BTreeSet<u64> {
    let covers = |r: &Region, byte: u64| {
        let wraps = r.start.checked_add(r.length).is_none();
        byte >= r.start && byte - r.start < r.length && !(wraps && r.kind == Kind::Usable)
    };
    let good = |byte: u64| {
        let of = |kind| regions.iter().any(|r| r.kind == kind && covers(r, byte));
        of(Kind::Usable) && !of(Kind::Reserved)
    };
    (0..FRAMES)
        .filter(|frame| {
            let first = frame * PAGE_SIZE;
            let edges = regions
                .iter()
                .flat_map(|r| [r.start, r.start.wrapping_add(r.length)]);
            edges
                .chain([first])
                .filter(|byte| byte / PAGE_SIZE == *frame)
                .all(good)
        })
        .collect()
}

fn frames_of(ranges: impl Iterator<Item = RamRange>) -> BTreeMap<u64, NodeId> {
    let mut frames = BTreeMap::new();
    for RamRange { range, node } in ranges {
        for pfn in range.iter() {
            let before = frames.insert(pfn.as_u64(), node);
            assert_eq!(before, None, "{pfn:?} listed twice");
        }
    }
    frames
}

/// Sorted, no range empty, and none that should have been one with the next.
fn check_form(ranges: impl Iterator<Item = RamRange>) {
    let ranges: Vec<_> = ranges.collect();
    for ram in &ranges {
        assert!(!ram.range.is_empty());
    }
    for pair in ranges.windows(2) {
        let [low, high] = pair else { unreachable!() };
        assert!(low.range.end <= high.range.start, "{low} then {high}");
        assert!(
            low.range.end < high.range.start || low.node != high.node,
            "{low} and {high} are one range"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc {
        order: u8,
        align: u8,
        node: u8,
        only: bool,
        top: bool,
    },
    Reserve(u64, u64),
    /// The n-th live allocation goes back.
    Free(usize),
    /// A range that may or may not be reserved.
    FreeAny(u64, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..7u8, 0..8u8, 0..3u8, any::<bool>(), any::<bool>()).prop_map(
            |(order, align, node, only, top)| Step::Alloc { order, align, node, only, top }
        ),
        1 => (0..FRAMES, 0..20u64).prop_map(|(start, len)| Step::Reserve(start, len)),
        2 => any::<usize>().prop_map(Step::Free),
        1 => (0..FRAMES, 1..20u64).prop_map(|(start, len)| Step::FreeAny(start, len)),
    ]
}

/// Whether a block fits anywhere in `free`.
fn block_fits(free: &BTreeSet<u64>, pages: u64, align: u64, at: u64) -> bool {
    at.is_multiple_of(align) && (at..at + pages).all(|frame| free.contains(&frame))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn map_is_the_usable_frames(regions in vec(any_region(), 0..40)) {
        let (builder, map) = built::<64>(&regions);
        check_form(map.iter());
        let expected = model_frames(&regions);
        let low = frames_of(map.iter().filter(|ram| ram.range.start.as_u64() < FRAMES)
            .map(|mut ram| { ram.range = ram.range.intersect(pfns(0, FRAMES)); ram }));
        prop_assert_eq!(low.keys().copied().collect::<BTreeSet<_>>(), expected);
        prop_assert!(map.span().end.as_u64() <= MAX_RAM / PAGE_SIZE);
        prop_assert_eq!(map.warning(), None);

        // The listed map says the same, to the byte, and is in order.
        let listed: Vec<_> = builder.regions().collect();
        for pair in listed.windows(2) {
            prop_assert!(pair[0].start + pair[0].length <= pair[1].start);
        }
        for region in &regions {
            for byte in [region.start, region.start.wrapping_add(region.length / 2)] {
                let of = |r: &&Region| byte >= r.start && byte - r.start < r.length;
                let wraps = |r: &Region| r.start.checked_add(r.length).is_none();
                let mut inputs = regions.iter().filter(of)
                    .filter(|r| !(wraps(r) && r.kind == Kind::Usable));
                let expected = if byte >= MAX_RAM {
                    None
                } else if inputs.clone().any(|r| r.kind == Kind::Reserved) {
                    Some(Kind::Reserved)
                } else {
                    inputs.next().map(|r| r.kind)
                };
                prop_assert_eq!(listed.iter().find(of).map(|r| r.kind), expected);
            }
        }
    }

    #[test]
    fn order_does_not_matter(regions in vec(any_region(), 0..30).prop_shuffle()) {
        let mut sorted = regions.clone();
        sorted.sort_by_key(|r| (r.start, r.length));
        let (_, a) = built::<64>(&regions);
        let (_, b) = built::<64>(&sorted);
        prop_assert!(a.iter().eq(b.iter()));
    }

    #[test]
    fn limit_keeps_the_lowest(
        regions in vec(any_region(), 1..20),
        bytes in 0..FRAMES * PAGE_SIZE,
    ) {
        let (_, whole) = built::<64>(&regions);
        let mut map = whole.clone();
        let gone = map.limit(bytes);
        check_form(map.iter());
        let all = frames_of(whole.iter());
        let kept: Vec<_> = frames_of(map.iter()).into_keys().collect();
        let expected: Vec<_> = all.keys().copied()
            .take(usize::try_from(bytes / PAGE_SIZE).unwrap()).collect();
        prop_assert_eq!(gone, (all.len() - kept.len()) as u64);
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn nodes_are_assigned_frame_by_frame(
        regions in vec(any_region(), 1..20),
        nodes in vec((0..FRAMES, 0..FRAMES, 0..4u8), 0..8),
    ) {
        let (_, mut map) = built::<64>(&regions);
        let mut model = frames_of(map.iter());
        for (start, end, n) in nodes {
            map.assign(pfns(start, end), node(n));
            for (frame, of) in &mut model {
                if (start..end).contains(frame) {
                    *of = node(n);
                }
            }
        }
        check_form(map.iter());
        prop_assert_eq!(&frames_of(map.iter()), &model);
        for frame in 0..FRAMES {
            prop_assert_eq!(map.node_of(Pfn::new(frame)), model.get(&frame).copied());
        }
        for (n, pages) in map.pages_by_node().into_iter().enumerate() {
            let of = model.values().filter(|of| of.index() == n).count();
            prop_assert_eq!(pages, of as u64);
        }
    }

    #[test]
    fn early_allocations_are_exact(
        regions in vec(any_region(), 1..12),
        nodes in vec((0..FRAMES, 0..FRAMES, 0..3u8), 0..4),
        steps in vec(any_step(), 0..60),
    ) {
        let (_, mut map) = built::<256>(&regions);
        map.limit(FRAMES * PAGE_SIZE);
        for (start, end, n) in nodes {
            map.assign(pfns(start, end), node(n));
        }
        let ram = frames_of(map.iter());
        let mut early = Early::new(&map);
        let mut taken: BTreeSet<u64> = (0..LOW).collect();
        let mut live = Vec::new();
        for step in steps {
            match step {
                Step::Alloc { order, align, node: n, only, top } => {
                    let (pages, step) = (1u64 << order, 1u64 << align.max(order));
                    let free_on = |n: NodeId| -> BTreeSet<u64> {
                        ram.iter().filter(|(f, of)| **of == n && !taken.contains(f))
                            .map(|(f, _)| *f).collect()
                    };
                    let best = |n: NodeId| {
                        let free = free_on(n);
                        let mut fits = free.iter().copied()
                            .filter(|at| block_fits(&free, pages, step, *at));
                        if top { fits.next_back() } else { fits.next() }
                    };
                    let mut expected = best(node(n));
                    if !only {
                        let others = (0..3).filter(|other| *other != n);
                        expected = expected.or_else(|| others.map(node).find_map(best));
                    }
                    let placement = if only {
                        Placement::Only(node(n))
                    } else {
                        Placement::Prefer(node(n))
                    };
                    let direction = if top { Direction::TopDown } else { Direction::BottomUp };
                    let got = early.alloc(Order::of(order), Order::of(align), placement, direction);
                    prop_assert_eq!(got.map(Pfn::as_u64), expected);
                    if let Some(at) = expected {
                        taken.extend(at..at + pages);
                        live.push((at, at + pages));
                    }
                }
                Step::Reserve(start, len) => {
                    early.reserve(pfns(start, start + len));
                    taken.extend(start..start + len);
                }
                Step::Free(n) if !live.is_empty() => {
                    let (start, end) = live.swap_remove(n % live.len());
                    let whole = (start..end).all(|f| taken.contains(&f));
                    prop_assert_eq!(early.free(pfns(start, end)).is_ok(), whole);
                    if whole {
                        taken.retain(|f| !(start..end).contains(f));
                    }
                }
                Step::Free(_) => {}
                Step::FreeAny(start, len) => {
                    let whole = (start..start + len).all(|f| taken.contains(&f));
                    prop_assert_eq!(early.free(pfns(start, start + len)).is_ok(), whole);
                    if whole {
                        taken.retain(|f| !(start..start + len).contains(f));
                    }
                }
            }
            check_form(early.free_ranges());
            check_form(early.reserved_ranges());
            let (free, used): (BTreeMap<_, _>, BTreeMap<_, _>) =
                ram.iter().map(|(f, n)| (*f, *n)).partition(|(f, _)| !taken.contains(f));
            prop_assert_eq!(&frames_of(early.free_ranges()), &free);
            prop_assert_eq!(&frames_of(early.reserved_ranges()), &used);
            for n in 0..3 {
                let on = |of: &&NodeId| **of == node(n);
                prop_assert_eq!(early.free_pages(node(n)), free.values().filter(on).count() as u64);
                prop_assert_eq!(
                    early.reserved_pages(node(n)), used.values().filter(on).count() as u64
                );
            }
            prop_assert_eq!(early.warning(), None);
        }
    }

    /// With tables that are too small, memory may be lost but never invented, and
    /// what is lost is what the warnings say.
    #[test]
    fn overflow_loses_and_tells(regions in vec(any_region(), 0..40)) {
        let (builder, map) = built::<4>(&regions);
        check_form(map.iter());
        let (_, whole) = built::<64>(&regions);
        let real = frames_of(whole.iter());
        let kept = frames_of(map.iter());
        prop_assert!(kept.keys().all(|f| real.contains_key(f)));
        let told = builder.warnings().chain(map.warning())
            .any(|w| matches!(w, Warning::TooManyUsable(_) | Warning::TooManyReserved(_)));
        prop_assert!(told || kept == real, "lost without a word");
    }

    #[test]
    fn early_overflow_reserves_too_much(spans in vec((0..FRAMES, 1..8u64), 0..40)) {
        let (_, map) = built::<4>(&[usable(0, FRAMES * PAGE_SIZE)]);
        let mut early = Early::new(&map);
        let mut taken: BTreeSet<u64> = (0..LOW.min(FRAMES)).collect();
        for (start, len) in spans {
            early.reserve(pfns(start, start + len));
            taken.extend((start..start + len).filter(|f| *f < FRAMES));
            let used: BTreeSet<_> = frames_of(early.reserved_ranges()).into_keys().collect();
            prop_assert!(taken.is_subset(&used));
            let lost = used.len() - taken.len();
            match early.warning() {
                None => prop_assert_eq!(lost, 0),
                Some(Warning::TooManyReserved(bytes)) => {
                    prop_assert!(bytes >= lost as u64 * PAGE_SIZE);
                }
                Some(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}

#[test]
fn neighbours_share_a_frame() {
    // Neither region has the whole frame 1, both together do.
    let (_, map) = built::<8>(&[usable(0x1800, 0x2800), usable(0, 0x1800)]);
    assert_eq!(map.iter().count(), 1);
    assert_eq!(map.span(), pfns(0, 4));
}

#[test]
fn nonsense_is_named() {
    let (builder, map) = built::<8>(&[
        usable(0x10_0000, 0x10_0000),
        usable(0x8000_0000, u64::MAX),
        usable(u64::MAX, u64::MAX),
        usable(MAX_RAM - PAGE_SIZE, 2 * PAGE_SIZE),
        usable(5, 0),
    ]);
    let warnings: Vec<_> = builder.warnings().map(|w| w.to_string()).collect();
    assert_eq!(
        warnings,
        [
            "18446744073709551615 bytes at 0x80000000 end beyond 2^64: region ignored, 2 such",
            "[mem 0x00003ffffffff000-0x0000400000000fff] usable lies above 64 TiB: \
             4 KiB of RAM ignored",
        ]
    );
    assert_eq!(map.total_pages(), 256 + 1);
}

#[test]
fn lines_read_as_linux_prints_them() {
    let (builder, mut map) = built::<8>(&[
        usable(0x10_0000, 0x7fe0_0000),
        usable(0, 0x9_fc00),
        reserved(0x9_fc00, 0x400),
        reserved(0xf_0000, 0x1_0000),
    ]);
    let lines: Vec<_> = builder.regions().map(|r| r.to_string()).collect();
    assert_eq!(
        lines,
        [
            "[mem 0x0000000000000000-0x000000000009fbff] usable",
            "[mem 0x000000000009fc00-0x000000000009ffff] reserved",
            "[mem 0x00000000000f0000-0x00000000000fffff] reserved",
            "[mem 0x0000000000100000-0x000000007fefffff] usable",
        ]
    );
    map.assign(pfns(0x8000, 0x8_0000), node(1));
    let lines: Vec<_> = map.iter().map(|r| r.to_string()).collect();
    assert_eq!(
        lines,
        [
            "node   0: [mem 0x0000000000000000-0x000000000009efff]",
            "node   0: [mem 0x0000000000100000-0x0000000007ffffff]",
            "node   1: [mem 0x0000000008000000-0x000000007fefffff]",
        ]
    );
}

#[test]
fn the_first_mib_is_never_given_out() {
    let (_, map) = built::<8>(&[usable(0, LOW_MEMORY + PAGE_SIZE)]);
    let mut early = Early::new(&map);
    let alloc = |early: &mut Early<'_, 8>| {
        let near = Placement::Prefer(NodeId::ZERO);
        early.alloc(Order::PAGE, Order::PAGE, near, Direction::BottomUp)
    };
    assert_eq!(alloc(&mut early), Some(Pfn::new(LOW)));
    assert_eq!(alloc(&mut early), None);
}

/// Pages `start..end` of each, as usable regions.
fn usable_pages(ranges: &[(u64, u64)]) -> Vec<Region> {
    ranges
        .iter()
        .map(|(start, end)| usable(start * PAGE_SIZE, (end - start) * PAGE_SIZE))
        .collect()
}

fn pages_in(ranges: impl Iterator<Item = RamRange>) -> Vec<(u64, u64)> {
    ranges
        .map(|ram| (ram.range.start.as_u64(), ram.range.end.as_u64()))
        .collect()
}

#[test]
fn a_full_table_drops_the_shortest_ram() {
    let (builder, map) = built::<4>(&usable_pages(&[
        (0, 5),
        (10, 12),
        (20, 24),
        (30, 33),
        (40, 41),
        (50, 59),
    ]));
    assert_eq!(pages_in(map.iter()), [(0, 5), (20, 24), (30, 33), (50, 59)]);
    let lost = Warning::TooManyUsable(3 * PAGE_SIZE);
    assert_eq!(builder.warnings().collect::<Vec<_>>(), [lost]);

    // The same when it is reserved regions that make too many pieces.
    let mut regions = usable_pages(&[(0, 30)]);
    for at in [5, 7, 11, 20] {
        regions.push(reserved(at * PAGE_SIZE, 1));
    }
    let (builder, map) = built::<4>(&regions);
    assert_eq!(pages_in(map.iter()), [(0, 5), (8, 11), (12, 20), (21, 30)]);
    assert_eq!(builder.warnings().count(), 0);
    assert_eq!(map.warning(), Some(Warning::TooManyUsable(PAGE_SIZE)));
    assert_eq!(
        map.warning().unwrap().to_string(),
        "more than 512 ranges of RAM: the shortest, 4 KiB in all, ignored"
    );
}

#[test]
fn a_full_table_makes_room_for_a_node() {
    let (_, mut map) = built::<4>(&usable_pages(&[(0, 5), (10, 11), (20, 24), (30, 33)]));
    map.assign(pfns(22, 99), node(1));
    assert_eq!(pages_in(map.iter()), [(0, 5), (20, 22), (22, 24), (30, 33)]);
    let nodes: Vec<_> = map.iter().map(|ram| ram.node.get()).collect();
    assert_eq!(nodes, [0, 0, 1, 1]);
    assert_eq!(map.warning(), Some(Warning::TooManyUsable(PAGE_SIZE)));
    // If the range to be split is itself the shortest, it goes.
    let (_, mut map) = built::<2>(&usable_pages(&[(0, 5), (10, 12)]));
    map.assign(pfns(11, 99), node(1));
    assert_eq!(pages_in(map.iter()), [(0, 5)]);
}

#[test]
fn a_full_table_fills_the_narrowest_gap() {
    let reserve = |ranges: &[(u64, u64)]| {
        let mut regions = usable_pages(&[(10, 100)]);
        regions.extend(usable_pages(ranges).iter().map(|region| Region {
            kind: Kind::Reserved,
            ..*region
        }));
        let (builder, map) = built::<4>(&regions);
        (pages_in(map.iter()), builder.warnings().next())
    };
    let told = |pages: u64| Some(Warning::TooManyReserved(pages * PAGE_SIZE));
    let four = [(10, 20), (30, 40), (43, 50), (60, 70)];
    // Between two old ones; below the new one; above it.
    for (new, free, lost) in [
        ((85, 86), [(20, 30), (50, 60), (70, 85)].as_slice(), 3),
        ((72, 73), &[(20, 30), (40, 43), (50, 60)], 2),
        ((58, 59), &[(20, 30), (40, 43), (50, 58)], 1),
    ] {
        let (mut left, warning) = reserve(&[four.as_slice(), &[new]].concat());
        left.pop();
        assert_eq!(left, free);
        assert_eq!(warning, told(lost));
    }
    assert_eq!(reserve(&four).1, None);
}

#[test]
fn freeing_into_a_full_table_keeps_it_reserved() {
    let (_, map) = built::<4>(&usable_pages(&[(0, 1000)]));
    let mut early = Early::new(&map);
    for start in [300, 400, 500] {
        early.reserve(pfns(start, start + 10));
    }
    early.free(pfns(305, 306)).unwrap();
    assert_eq!(early.warning(), Some(Warning::TooManyReserved(PAGE_SIZE)));
    assert_eq!(early.reserved_pages(NodeId::ZERO), LOW + 30);
    early.free(pfns(300, 305)).unwrap();
    assert_eq!(early.reserved_pages(NodeId::ZERO), LOW + 25);
}
