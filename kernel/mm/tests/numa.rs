//! Nodes from SRATs, good and bad, and faked ones.

use std::collections::BTreeMap;

use mm::addr::{MAX_NODES, NodeId, PAGE_SIZE, Pfn};
use mm::memblock::{Kind, MapBuilder, MemoryMap, Region};
use mm::numa::{
    COVER_SLACK, CpuAffinity, Damage, FAKE_BIG_GRANULE, FAKE_GRANULE, MAX_CPU_ENTRIES,
    MAX_MEMORY_ENTRIES, MemoryAffinity, NumaOption, Source, Srat, Topology,
};
use proptest::collection::vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// RAM as (start, length) in bytes.
fn ram(ranges: &[(u64, u64)]) -> MemoryMap {
    let mut builder = MapBuilder::new();
    for &(start, length) in ranges {
        builder.add(Region {
            start,
            length,
            kind: Kind::Usable,
        });
    }
    builder.build()
}

/// A PC: a hole below 1 MiB, and another below 4 GiB.
fn pc() -> MemoryMap {
    ram(&[
        (0, 0x9_fc00),
        (MIB, 3 * GIB - MIB - 0x20_000),
        (4 * GIB, GIB),
    ])
}

fn memory(start: u64, length: u64, domain: u32) -> MemoryAffinity {
    MemoryAffinity {
        start,
        length,
        domain,
        enabled: true,
        hotpluggable: false,
    }
}

fn cpu(apic_id: u32, domain: u32) -> CpuAffinity {
    CpuAffinity {
        apic_id,
        domain,
        enabled: true,
    }
}

fn srat(entries: &[MemoryAffinity], cpus: &[CpuAffinity]) -> Srat {
    let mut srat = Srat::new();
    entries.iter().for_each(|entry| srat.push_memory(*entry));
    cpus.iter().for_each(|entry| srat.push_cpu(*entry));
    srat
}

fn node(n: usize) -> NodeId {
    NodeId::of(u8::try_from(n).unwrap())
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

/// The memory map with nodes, in MiB: (start, end, node).
fn applied(topology: &Topology, map: &MemoryMap) -> Vec<(u64, u64, u8)> {
    let mut map = map.clone();
    topology.apply(&mut map);
    let mib = |pfn: Pfn| pfn.phys().as_u64() / MIB;
    map.iter()
        .map(|r| (mib(r.range.start), mib(r.range.end), r.node.get()))
        .collect()
}

fn detect(option: NumaOption, srat: Option<&Srat>, map: &MemoryMap) -> (Topology, Vec<String>) {
    let mut lines = Vec::new();
    let topology = Topology::detect(option, srat, map, &mut |level, line| {
        lines.push(format!("{level:?}: {line}"));
    });
    (topology, lines)
}

#[test]
fn qemu_with_two_nodes() {
    let table = srat(
        &[
            memory(0, 640 << 10, 0),
            memory(MIB, 2 * GIB - MIB, 0),
            memory(2 * GIB, GIB, 1),
            memory(4 * GIB, GIB, 1),
            MemoryAffinity {
                enabled: false,
                ..memory(0, u64::MAX, 9)
            },
        ],
        &[cpu(0, 0), cpu(1, 0), cpu(2, 1), cpu(3, 1)],
    );
    let (topology, log) = detect(NumaOption::Auto, Some(&table), &pc());
    assert_eq!(log, [""; 0]);
    assert_eq!(topology.source(), Source::Srat);
    assert_eq!(topology.nodes().count(), 2);
    assert_eq!(
        applied(&topology, &pc()),
        [(0, 0, 0), (1, 2048, 0), (2048, 3071, 1), (4096, 5120, 1)]
    );
    for apic_id in 0..4 {
        let expected = node(usize::from(apic_id >= 2));
        assert_eq!(topology.node_of_cpu(apic_id, 0), expected);
    }
    assert_eq!(topology.node_of_cpu(77, 0), node(0));
}

#[test]
fn domains_are_numbered_as_they_appear_processors_first() {
    let table = srat(
        &[memory(4 * GIB, GIB, 3), memory(0, 3 * GIB, 0xffff_ffff)],
        &[cpu(8, 500), cpu(1, 3), cpu(0, 0xffff_ffff), cpu(9, 40)],
    );
    let topology = Topology::from_srat(&table, &pc()).unwrap();
    let domains: Vec<_> = topology.nodes().map(|n| topology.domain(n)).collect();
    assert_eq!(domains, [Some(500), Some(3), Some(0xffff_ffff), Some(40)]);
    // Memory stays on its domain's number; nodes without memory exist all the same.
    let mut map = pc();
    topology.apply(&mut map);
    let pages = map.pages_by_node();
    assert_eq!((pages[0], pages[1], pages[3]), (0, GIB / PAGE_SIZE, 0));
    assert!(pages[2] > 0);
    assert_eq!(topology.node_of_cpu(8, 0), node(0));
    assert_eq!(topology.node_of_cpu(9, 0), node(3));
}

/// Three domains with a processor each, memory in the second only: nodes 0 to 2 are there, and
/// all memory is on node 1.
#[test]
fn memory_in_the_second_domain_only() {
    let table = srat(&[memory(0, 5 * GIB, 1)], &[cpu(0, 0), cpu(1, 1), cpu(2, 2)]);
    let topology = Topology::from_srat(&table, &pc()).unwrap();
    assert_eq!(
        topology.nodes().collect::<Vec<_>>(),
        [node(0), node(1), node(2)]
    );
    assert!(applied(&topology, &pc()).iter().all(|(.., n)| *n == 1));
    for apic_id in 0..3 {
        assert_eq!(topology.node_of_cpu(apic_id, 0), node(apic_id as usize));
    }
}

#[test]
fn hotplug_ranges_bring_no_node_online() {
    let hotplug = MemoryAffinity {
        hotpluggable: true,
        ..memory(5 * GIB, 1 << 40, 7)
    };
    let table = srat(&[hotplug, memory(0, 5 * GIB, 0)], &[]);
    let topology = Topology::from_srat(&table, &pc()).unwrap();
    // Its number is given out.
    assert_eq!(topology.nodes().collect::<Vec<_>>(), [node(1)]);
    assert_eq!(topology.possible(), 2);
    assert!(applied(&topology, &pc()).iter().all(|(.., n)| *n == 1));
    // A processor that the table does not list is on a node that is there.
    assert_eq!(topology.node_of_cpu(3, 0), node(1));
    // With a CPU it is there, and it has no memory.
    let table = srat(&[memory(0, 5 * GIB, 0), hotplug], &[cpu(0, 7)]);
    let topology = Topology::from_srat(&table, &pc()).unwrap();
    assert_eq!(topology.nodes().count(), 2);
    assert_eq!(topology.node_of_cpu(0, 0), node(0));
}

#[test]
fn a_little_uncovered_ram_is_forgiven() {
    let cover = |end: u64| {
        let table = srat(&[memory(MIB, end - MIB, 1), memory(4 * GIB, GIB, 0)], &[]);
        Topology::from_srat(&table, &pc()).map(|topology| applied(&topology, &pc()))
    };
    // 636 KiB at 0 are in no domain: they go to the first node.
    assert_eq!(
        cover(3 * GIB).unwrap(),
        [(0, 0, 0), (1, 3071, 0), (4096, 5120, 1)]
    );
    let damage = cover(3 * GIB - COVER_SLACK).unwrap_err();
    assert!(matches!(damage, Damage::NotCovered(..)), "{damage}");
    // To the page: RAM ends 128 KiB below 3 GiB.
    let cover = |end: u64| {
        let table = srat(&[memory(0, end, 0), memory(4 * GIB, GIB, 1)], &[]);
        Topology::from_srat(&table, &pc()).map(|topology| topology.nodes().count())
    };
    let end = 3 * GIB - 0x20_000;
    assert_eq!(cover(end - COVER_SLACK), Ok(2));
    assert!(cover(end - COVER_SLACK - PAGE_SIZE).is_err());
}

#[test]
fn damage_is_named_and_leaves_one_node() {
    let many = |n: u32| -> Vec<_> { (0..n).map(|n| memory(n.into(), 0, n)).collect() };
    let all = memory(0, 5 * GIB, 0);
    let cases: Vec<(Srat, &str)> = vec![
        (
            srat(
                &[memory(0, 2 * GIB, 0), memory(2 * GIB - 1, 3 * GIB, 1)],
                &[],
            ),
            "PXM 0 [mem 0x0000000000000000-0x000000007fffffff] overlaps with \
             PXM 1 [mem 0x000000007fffffff-0x000000013ffffffe]",
        ),
        (
            srat(&[all, memory(6 * GIB, u64::MAX, 1)], &[]),
            "0xffffffffffffffff bytes at 0x180000000 in PXM 1 end beyond the 52-bit address space",
        ),
        (
            srat(&[memory(0, 1 << 53, 2)], &[]),
            "0x20000000000000 bytes at 0x0 in PXM 2 end beyond the 52-bit address space",
        ),
        (srat(&[], &[cpu(0, 0)]), "no enabled entry has RAM in it"),
        (
            srat(&[memory(0, 0, 0)], &[]),
            "no enabled entry has RAM in it",
        ),
        (
            srat(&[memory(64 * GIB, GIB, 0)], &[]),
            "no enabled entry has RAM in it",
        ),
        (
            srat(&[memory(0, 3 * GIB, 0)], &[]),
            "[mem 0x0000000100000000-0x000000013fffffff] is in no PXM, \
             only 3071 of 4095 MiB of RAM are",
        ),
        (
            srat(&[all], &[cpu(6, 1), cpu(5, 1), cpu(6, 0)]),
            "APIC 0x6 is in both PXM 0 and PXM 1",
        ),
        (
            srat(&[all], &(0..100).map(|n| cpu(n, n)).collect::<Vec<_>>()),
            "PXM 64 is one too many, there can be 64",
        ),
        (
            srat(&many(count(MAX_MEMORY_ENTRIES) + 1), &[]),
            "more than 256 memory entries",
        ),
        (
            srat(
                &[all],
                &(0..=count(MAX_CPU_ENTRIES))
                    .map(|n| cpu(n, 0))
                    .collect::<Vec<_>>(),
            ),
            "more than 512 CPU entries",
        ),
    ];
    for (table, what) in cases {
        let (topology, log) = detect(NumaOption::Auto, Some(&table), &pc());
        assert_eq!(
            log,
            [format!(
                "Warn: SRAT: {what}: not used, all memory is on node 0"
            )]
        );
        assert_eq!(topology.source(), Source::OneNode);
        assert_eq!(topology.nodes().count(), 1);
        assert!(applied(&topology, &pc()).iter().all(|(.., n)| *n == 0));
        assert_eq!(topology.node_of_cpu(6, 1), node(0));
    }
}

#[test]
fn off_and_no_srat() {
    let table = srat(&[memory(0, 3 * GIB, 0), memory(4 * GIB, GIB, 1)], &[]);
    let (topology, log) = detect(NumaOption::Off, Some(&table), &pc());
    assert_eq!((topology.nodes().count(), log.len()), (1, 1));
    let (topology, log) = detect(NumaOption::Auto, None, &pc());
    assert_eq!((topology.nodes().count(), log.len()), (1, 1));
}

#[test]
fn fake_nodes_of_a_pc() {
    let map = pc();
    let (topology, log) = detect(NumaOption::Fake(3), None, &map);
    assert_eq!(
        applied(&topology, &map),
        [
            (0, 0, 0),
            (1, 1408, 0),
            (1408, 2688, 1),
            (2688, 3071, 2),
            (4096, 5120, 2)
        ]
    );
    assert_eq!(
        log,
        [
            "Info: Faking node 0 at [mem 0x0000000000000000-0x0000000057ffffff] (1407MB)",
            "Info: Faking node 1 at [mem 0x0000000058000000-0x00000000a7ffffff] (1280MB)",
            "Info: Faking node 2 at [mem 0x00000000a8000000-0x000000013fffffff] (1407MB)",
        ]
    );
    let cpus: Vec<_> = (0..5).map(|n| topology.node_of_cpu(0, n).get()).collect();
    assert_eq!(cpus, [0, 1, 2, 0, 1]);
}

#[test]
fn fake_takes_as_many_as_fit() {
    let small = ram(&[(0, 0x9_f000), (MIB, 127 * MIB)]);
    let (topology, log) = detect(NumaOption::Fake(1000), None, &small);
    assert_eq!(topology.nodes().count(), 3);
    assert_eq!(
        log[0],
        "Warn: NUMA: numa=fake=1000 does not fit, 127 MiB make 3 nodes"
    );
    let big = ram(&[(0, 64 * GIB)]);
    let (topology, _) = detect(NumaOption::Fake(u32::MAX), None, &big);
    assert_eq!(topology.nodes().count(), MAX_NODES);
    let (topology, _) = detect(NumaOption::Fake(2), None, &ram(&[]));
    assert_eq!(topology.nodes().count(), 1);
}

#[test]
fn a_fake_node_with_next_to_nothing_is_left_out() {
    // The second share would start at 64 MiB, in the hole, and end at 992 MiB.
    let map = ram(&[(17 * MIB, 43 * MIB), (985 * MIB, 53 * MIB)]);
    let (topology, log) = detect(NumaOption::Fake(3), None, &map);
    assert_eq!(applied(&topology, &map), [(17, 60, 0), (985, 1038, 1)]);
    assert_eq!(
        log[0],
        "Warn: NUMA: numa=fake=3 does not fit, 96 MiB make 2 nodes"
    );
}

/// A table without damage over RAM without holes: cuts in MiB, and whose.
fn any_layout() -> impl Strategy<Value = Vec<(u64, u32)>> {
    vec((1..512u64, 0..6u32), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Every frame lands on the node of the domain whose entry has it, whatever
    /// the order of the table.
    #[test]
    fn srat_round_trip(layout in any_layout(), shuffle in any::<prop::sample::Index>()) {
        let mut entries = Vec::new();
        let mut at = 0;
        for (length, domain) in layout {
            entries.push(memory(at * MIB, length * MIB, domain));
            at += length;
        }
        let map = ram(&[(0, at * MIB)]);
        let model: Vec<(u64, u32)> = entries.iter().map(|e| (e.start, e.domain)).collect();
        let turn = shuffle.index(entries.len());
        entries.rotate_left(turn);
        let topology = Topology::from_srat(&srat(&entries, &[]), &map).unwrap();
        let mut placed = map.clone();
        topology.apply(&mut placed);
        prop_assert_eq!(placed.total_pages(), map.total_pages());
        let mut numbers: BTreeMap<u32, usize> = BTreeMap::new();
        for entry in &entries {
            let next = numbers.len();
            numbers.entry(entry.domain).or_insert(next);
        }
        for (start, domain) in &model {
            let n = numbers[domain];
            let of = placed.node_of(Pfn::new(start / PAGE_SIZE));
            prop_assert_eq!(of, Some(node(n)));
            prop_assert_eq!(topology.domain(node(n)), Some(*domain));
        }
        prop_assert_eq!(topology.nodes().count(), numbers.len());
        // Nodes change only where an entry starts.
        for pair in placed.iter().collect::<Vec<_>>().windows(2) {
            let cut = pair[1].range.start.phys().as_u64();
            prop_assert!(model.iter().any(|(start, _)| *start == cut));
        }
    }

    /// Any two entries of different domains that share a byte are damage.
    #[test]
    fn overlaps_are_found(
        raw in vec((0..64u64, 0..16u64, 0..3u32), 1..10),
    ) {
        let entries: Vec<_> = raw.iter().map(|&(s, l, d)| memory(s * MIB, l * MIB, d)).collect();
        let overlap = entries.iter().any(|a| entries.iter().any(|b| {
            a.domain != b.domain && (0..80 * MIB).step_by(usize::try_from(MIB).unwrap())
                .any(|at| [a, b].iter().all(|e| e.start <= at && at < e.start + e.length))
        }));
        let map = ram(&[(0, 80 * MIB)]);
        let got = Topology::from_srat(&srat(&entries, &[]), &map);
        prop_assert_eq!(matches!(got, Err(Damage::Overlap(..))), overlap);
    }

    /// No table makes it panic, lose RAM, or leave gaps in the numbers of nodes.
    #[test]
    fn any_table_is_survived(
        raw in vec((any::<u64>(), any::<u64>(), any::<u32>(), 0..4u32), 0..10),
        near in vec((0..5 * GIB, 0..5 * GIB, 0..3u32), 0..4),
        cpus in vec((0..8u32, 0..4u32), 0..8),
    ) {
        let wild = raw.into_iter().map(|(s, l, d, cut)| memory(s >> (16 * cut), l >> (16 * cut), d));
        let near = near.into_iter().map(|(s, l, d)| memory(s, l, d));
        let entries: Vec<_> = wild.chain(near).collect();
        let cpus: Vec<_> = cpus.into_iter().map(|(a, d)| cpu(a, d)).collect();
        let (topology, log) = detect(NumaOption::Auto, Some(&srat(&entries, &cpus)), &pc());
        let one = topology.source() == Source::OneNode;
        prop_assert_eq!(log.len(), usize::from(one));
        prop_assert!(!one || log[0].starts_with("Warn: SRAT: "));
        let mut map = pc();
        topology.apply(&mut map);
        prop_assert_eq!(map.total_pages(), pc().total_pages());
        prop_assert!(map.iter().all(|r| topology.nodes().any(|node| node == r.node)));
        prop_assert!(topology.nodes().all(|node| node.index() < topology.possible()));
    }

    /// Numbers, and which nodes are there, against Linux's rules written another way: the list of
    /// all domains as they are named, processors first, each once.
    #[test]
    fn numbers_are_linuxs(
        cpus in vec((0..24u32, 0..300u32, any::<bool>()), 0..12),
        blocks in vec((0..300u32, any::<bool>(), any::<bool>()), 1..8),
        turn in any::<prop::sample::Index>(),
    ) {
        // A processor is in one domain; blocks of a GiB lie one behind the other, and those that
        // are not there are hotpluggable.
        let mut seen = Vec::new();
        let cpus: Vec<_> = cpus
            .into_iter()
            .filter(|(apic_id, ..)| !seen.contains(apic_id) && { seen.push(*apic_id); true })
            .map(|(apic_id, domain, enabled)| CpuAffinity { apic_id, domain, enabled })
            .collect();
        let mut entries = Vec::new();
        let mut there = Vec::new();
        for (n, (domain, enabled, is_there)) in (0..).zip(&blocks) {
            let entry = MemoryAffinity {
                enabled: *enabled,
                hotpluggable: !is_there,
                ..memory(n * GIB, GIB, *domain)
            };
            if *enabled && *is_there {
                there.push((n * GIB, GIB));
            }
            entries.push(entry);
        }
        prop_assume!(!there.is_empty());
        let first = turn.index(entries.len());
        entries.rotate_left(first);
        let map = ram(&there);
        let topology = Topology::from_srat(&srat(&entries, &cpus), &map).unwrap();

        let named = cpus.iter().filter(|c| c.enabled).map(|c| c.domain);
        let named = named.chain(entries.iter().filter(|e| e.enabled).map(|e| e.domain));
        let mut order: Vec<u32> = Vec::new();
        for domain in named {
            if !order.contains(&domain) {
                order.push(domain);
            }
        }
        let number = |domain| node(order.iter().position(|d| *d == domain).unwrap());
        prop_assert_eq!(topology.possible(), order.len());
        let mut online: Vec<NodeId> = cpus.iter().filter(|c| c.enabled).map(|c| number(c.domain))
            .chain(entries.iter().filter(|e| e.enabled && !e.hotpluggable).map(|e| number(e.domain)))
            .collect();
        online.sort_unstable();
        online.dedup();
        prop_assert_eq!(topology.nodes().collect::<Vec<_>>(), online);
        for c in cpus.iter().filter(|c| c.enabled) {
            prop_assert_eq!(topology.node_of_cpu(c.apic_id, 0), number(c.domain));
        }
        let mut placed = map.clone();
        topology.apply(&mut placed);
        for e in entries.iter().filter(|e| e.enabled && !e.hotpluggable) {
            let of = placed.node_of(Pfn::new(e.start / PAGE_SIZE));
            prop_assert_eq!(of, Some(number(e.domain)));
        }
    }

    #[test]
    fn fake_nodes_are_even(
        holes in vec((1..4096u64, 0..2048u64), 1..6),
        wanted in 1..80u32,
    ) {
        let mut ranges = Vec::new();
        let mut at = 0;
        for (length, hole) in &holes {
            ranges.push((at * MIB, length * MIB));
            at += length + hole;
        }
        let map = ram(&ranges);
        let (topology, log) = detect(NumaOption::Fake(wanted), None, &map);
        let nodes = topology.nodes().count();
        prop_assert!(nodes <= MAX_NODES && nodes <= wanted as usize);
        let warned = log.iter().any(|line| line.starts_with("Warn"));
        prop_assert_eq!(warned, nodes != wanted as usize);

        let mut placed = map.clone();
        topology.apply(&mut placed);
        prop_assert_eq!(placed.total_pages(), map.total_pages());
        let total = map.total_pages() * PAGE_SIZE;
        let share = total / u64::from(wanted).min((total / FAKE_GRANULE).clamp(1, 64));
        let granule = if share >= 2 * FAKE_BIG_GRANULE { FAKE_BIG_GRANULE } else { FAKE_GRANULE };
        let ranges: Vec<_> = placed.iter().collect();
        for pair in ranges.windows(2) {
            let (low, high) = (pair[0], pair[1]);
            let up = high.node.get() - low.node.get();
            prop_assert!(up <= 1, "nodes ascend without gaps");
            if up == 1 && low.range.end == high.range.start {
                prop_assert_eq!(high.range.start.phys().as_u64() % granule, 0);
            }
        }
        let pages = placed.pages_by_node();
        for (n, pages) in pages.iter().enumerate() {
            if n < nodes {
                prop_assert!(nodes == 1 || pages * PAGE_SIZE >= granule / 2, "node {n}: {pages}");
            } else {
                prop_assert_eq!(*pages, 0);
            }
        }
        // Without holes nothing is in the way.
        if holes.len() == 1 && total / FAKE_GRANULE >= u64::from(wanted) {
            prop_assert_eq!(nodes, (wanted as usize).min(MAX_NODES));
            for pages in &pages[..nodes] {
                prop_assert!((pages * PAGE_SIZE).abs_diff(total / nodes as u64) <= granule);
            }
        }
    }
}
