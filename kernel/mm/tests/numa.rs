//! Nodes from SRATs, good and bad, and faked ones.

mod firmware;

use std::collections::BTreeMap;

use mm::addr::{MAX_NODES, NodeId, PAGE_SIZE, Pfn};
use mm::memblock::{Kind, MapBuilder, MemoryMap, Region};
use mm::numa::{
    BadDistance, COVER_SLACK, CpuAffinity, Damage, FAKE_BIG_GRANULE, FAKE_GRANULE, MAX_CPU_ENTRIES,
    MAX_DOMAINS, MAX_MEMORY_ENTRIES, MemoryAffinity, NumaOption, Slit, Source, Srat, Topology,
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

/// The topology of `table` on a PC whose processors are `cpus`.
fn with_cpus(table: &Srat, cpus: &[u32]) -> Topology {
    let mut topology = Topology::from_srat(table, &pc()).unwrap();
    topology.add_cpus(cpus.iter().copied());
    topology
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
        &[memory(4 * GIB, GIB, 3), memory(0, 3 * GIB, MAX_DOMAINS - 1)],
        &[cpu(8, 500), cpu(1, 3), cpu(0, MAX_DOMAINS - 1), cpu(9, 40)],
    );
    let topology = with_cpus(&table, &[0, 1, 8, 9]);
    let domains: Vec<_> = topology.nodes().map(|n| topology.domain(n)).collect();
    assert_eq!(
        domains,
        [Some(500), Some(3), Some(MAX_DOMAINS - 1), Some(40)]
    );
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
    let topology = with_cpus(&table, &[0, 1, 2]);
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
    let topology = with_cpus(&table, &[0]);
    assert_eq!(topology.nodes().count(), 2);
    assert_eq!(topology.node_of_cpu(0, 0), node(0));
}

/// The table may list processors that the machine has not got, and one of them twice.
#[test]
fn processors_that_are_not_there_bring_no_node_online() {
    let table = srat(
        &[memory(0, 5 * GIB, 7)],
        &[cpu(4, 5), cpu(0, 7), cpu(1, 9), cpu(1, 7), cpu(2, 6)],
    );
    let topology = with_cpus(&table, &[0, 1, 2]);
    // Domains 5, 7, 9, 6. Processor 4 is not there, and of processor 1 the last entry counts.
    assert_eq!(topology.possible(), 4);
    assert_eq!(topology.nodes().collect::<Vec<_>>(), [node(1), node(3)]);
    let of = |apic_id| topology.node_of_cpu(apic_id, 1);
    assert_eq!([of(0), of(1), of(2)], [node(1), node(1), node(3)]);
    // Should it run all the same, it is on a node that is there.
    assert_eq!(of(4), node(3));
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
            srat(&[all, memory(6 * GIB, GIB, 1024)], &[]),
            "PXM 1024 is not below 1024",
        ),
        (
            srat(&[all], &[cpu(6, u32::MAX)]),
            "PXM 4294967295 is not below 1024",
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

/// Distances are by domain: domain 2 is node 0 here, domain 0 node 1, and 3 is beyond the table.
#[test]
fn distances_are_those_of_domains() {
    let table = srat(
        &[
            memory(0, GIB, 0),
            memory(GIB, 2 * GIB, 3),
            memory(4 * GIB, GIB, 2),
        ],
        &[cpu(0, 2)],
    );
    let topology = with_cpus(&table, &[0]);
    let slit = Slit::new(3, &[10, 11, 12, 21, 10, 22, 31, 32, 10]).unwrap();
    let rows = |topology: &Topology, slit| -> Vec<Vec<u8>> {
        let to = |from| (0..3).map(move |to| (node(from), node(to)));
        let row = |from| to(from).map(|(a, b)| topology.distance(slit, a, b));
        (0..3).map(|from| row(from).collect()).collect()
    };
    assert_eq!(
        rows(&topology, Some(&slit)),
        [[10, 31, 20], [12, 10, 20], [20, 20, 10]]
    );
    let default = [[10, 20, 20], [20, 10, 20], [20, 20, 10]];
    assert_eq!(rows(&topology, None), default);
    assert_eq!(rows(&Topology::one_node(), Some(&slit)), default);
    let (fake, _) = detect(NumaOption::Fake(3), Some(&table), &pc());
    assert_eq!(rows(&fake, Some(&slit)), [[10; 3]; 3]);
}

#[test]
fn distances_that_cannot_be_are_named() {
    let damage = |from, to, distance| Err(BadDistance { from, to, distance });
    assert_eq!(Slit::new(2, &[10; 4]), damage(0, 1, 10));
    assert_eq!(Slit::new(2, &[10, 20, 20, 11]), damage(1, 1, 11));
    assert_eq!(Slit::new(2, &[10, 20, 9, 10]), damage(1, 0, 9));
    assert_eq!(Slit::new(1, &[0]), damage(0, 0, 0));
    assert!(Slit::new(2, &[10, 255, 11, 10]).is_ok());
    assert!(Slit::new(0, &[]).is_ok());
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

/// Checks the topology of `srat`, which lists `cpus` and `blocks` of 1 GiB, against Linux's rules
/// written another way: the list of all domains as they are named, processors first, each once.
/// Of the processors below 32 those whose bit is set in `there` can run; of the blocks, those
/// that are not hotpluggable are RAM.
fn follows_linux(
    srat: &Srat,
    cpus: &[CpuAffinity],
    blocks: &[MemoryAffinity],
    there: u32,
) -> Result<(), TestCaseError> {
    let cpus = cpus.iter().filter(|cpu| cpu.enabled);
    let blocks = blocks.iter().filter(|block| block.enabled);
    let here = blocks.clone().filter(|block| !block.hotpluggable);
    let map: Vec<_> = here
        .clone()
        .map(|block| (block.start, block.length))
        .collect();
    let map = ram(&map);
    let named = cpus.clone().map(|cpu| cpu.domain);
    let mut order: Vec<u32> = Vec::new();
    for domain in named.chain(blocks.map(|block| block.domain)) {
        if !order.contains(&domain) {
            order.push(domain);
        }
    }
    let number = |domain| node(order.iter().position(|d| *d == domain).unwrap());

    let topology = Topology::from_srat(srat, &map);
    if let Some(domain) = order.iter().find(|domain| **domain >= MAX_DOMAINS) {
        prop_assert_eq!(topology.unwrap_err(), Damage::DomainTooLarge(*domain));
        return Ok(());
    }
    if here.clone().next().is_none() {
        prop_assert_eq!(topology.unwrap_err(), Damage::NoMemory);
        return Ok(());
    }
    let mut topology = topology.unwrap();
    let runs = |apic_id: u32| apic_id < 32 && there >> apic_id & 1 == 1;
    topology.add_cpus((0..32).filter(|apic_id| runs(*apic_id)));

    prop_assert_eq!(topology.possible(), order.len());
    let of_cpu: BTreeMap<u32, NodeId> = cpus.map(|cpu| (cpu.apic_id, number(cpu.domain))).collect();
    let of_cpu: Vec<_> = of_cpu
        .into_iter()
        .filter(|(apic_id, _)| runs(*apic_id))
        .collect();
    let mut online: Vec<NodeId> = here.clone().map(|block| number(block.domain)).collect();
    online.extend(of_cpu.iter().map(|(_, node)| *node));
    online.sort_unstable();
    online.dedup();
    prop_assert_eq!(topology.nodes().collect::<Vec<_>>(), online);
    for (apic_id, node) in of_cpu {
        prop_assert_eq!(topology.node_of_cpu(apic_id, 0), node);
    }
    let mut placed = map.clone();
    topology.apply(&mut placed);
    for block in here {
        let of = placed.node_of(Pfn::new(block.start / PAGE_SIZE));
        prop_assert_eq!(of, Some(number(block.domain)));
    }
    Ok(())
}

/// An entry of a table to be written.
#[derive(Clone, Debug)]
struct RawEntry {
    /// As many as it really has, the first the type; fields that nobody reads are anything.
    bytes: Vec<u8>,
    /// The length it says, and the least that its type has.
    says: usize,
    shortest: usize,
    domain: u32,
    apic_id: u32,
    enabled: bool,
}

impl RawEntry {
    /// Writes as much of a field as there is room for.
    fn put(&mut self, at: usize, field: &[u8]) {
        let places = self.bytes.iter_mut().skip(at);
        places.zip(field).for_each(|(place, byte)| *place = *byte);
    }
}

/// Mostly sound; some are too short, longer than need be, or say another length than they have.
fn any_entry() -> impl Strategy<Value = RawEntry> {
    let kind = prop::sample::select(vec![
        (0u8, 16usize),
        (0, 16),
        (1, 40),
        (1, 40),
        (2, 24),
        (99, 2),
    ]);
    let domain = prop_oneof![
        8 => 0..6u32,
        4 => (0..4u32, 0..6u32).prop_map(|(high, low)| high << 8 | low),
        1 => MAX_DOMAINS - 2..MAX_DOMAINS + 2,
        1 => any::<u32>(),
    ];
    let length = prop_oneof![16 => Just(0isize), 1 => -40..0isize, 2 => 1..100isize];
    let lie = (prop::bool::weighted(0.06), any::<u8>());
    let bytes = vec(any::<u8>(), 140);
    let cpu = (0..40u32, any::<bool>());
    (kind, domain, length, lie, bytes, cpu).prop_map(
        |((kind, shortest), domain, longer, (lies, lie), mut bytes, (apic_id, enabled))| {
            let length = shortest.checked_add_signed(longer).unwrap_or(0).max(2);
            bytes.truncate(length);
            bytes[0] = kind;
            // What lies in between would make the rest of the table another one.
            let lie = Some(usize::from(lie)).filter(|lie| *lie < shortest || *lie > length);
            let says = if lies { lie.unwrap_or(length) } else { length };
            RawEntry {
                bytes,
                says,
                shortest,
                domain,
                apic_id,
                enabled,
            }
        },
    )
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

    /// Numbers, and which nodes are there, against Linux's rules.
    #[test]
    fn numbers_are_linuxs(
        cpus in vec((0..24u32, 0..300u32, any::<bool>()), 0..12),
        blocks in vec((0..300u32, any::<bool>(), any::<bool>()), 1..8),
        there in any::<u32>(),
        turn in any::<prop::sample::Index>(),
    ) {
        let cpus: Vec<_> = cpus
            .into_iter()
            .map(|(apic_id, domain, enabled)| CpuAffinity { apic_id, domain, enabled })
            .collect();
        // Blocks of a GiB lie one behind the other, and those that are not there are hotpluggable.
        let mut entries: Vec<_> = (0..)
            .zip(&blocks)
            .map(|(n, (domain, enabled, is_there))| MemoryAffinity {
                enabled: *enabled,
                hotpluggable: !is_there,
                ..memory(n * GIB, GIB, *domain)
            })
            .collect();
        let first = turn.index(entries.len());
        entries.rotate_left(first);
        follows_linux(&srat(&entries, &cpus), &cpus, &entries, there)?;
    }

    /// Tables as firmware may have them, byte by byte: sound ones mean what was written, others
    /// are damage at the first entry that cannot be, and none makes it panic.
    #[test]
    fn bytes_of_a_table(
        raw in vec(any_entry(), 0..14),
        revision in 0..4u8,
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0..600usize],
        there in any::<u32>(),
    ) {
        let mut bytes = vec![0; 48];
        bytes[8] = revision;
        let (mut cpus, mut blocks, mut damage) = (Vec::new(), Vec::new(), None);
        let low_byte = |domain| if revision < 2 { domain & 0xff } else { domain };
        for (n, mut entry) in (0..).zip(raw) {
            let offset = bytes.len();
            if cut <= offset || damage.is_some() {
                break;
            }
            let (kind, enabled) = (entry.bytes[0], entry.enabled);
            match kind {
                0 => {
                    let [a, b, c, d] = entry.domain.to_le_bytes();
                    entry.put(2, &[a, entry.apic_id.to_le_bytes()[0], u8::from(enabled)]);
                    entry.put(9, &[b, c, d]);
                    let apic_id = entry.apic_id & 0xff;
                    cpus.push(CpuAffinity { apic_id, domain: low_byte(entry.domain), enabled });
                }
                1 => {
                    entry.put(2, &entry.domain.to_le_bytes());
                    entry.put(8, &(n * GIB).to_le_bytes());
                    entry.put(16, &GIB.to_le_bytes());
                    let hotpluggable = entry.apic_id & 1 == 1;
                    entry.put(28, &[u8::from(enabled) | u8::from(hotpluggable) << 1]);
                    let block = memory(n * GIB, GIB, low_byte(entry.domain));
                    blocks.push(MemoryAffinity { enabled, hotpluggable, ..block });
                }
                2 => {
                    entry.put(4, &entry.domain.to_le_bytes());
                    entry.put(8, &entry.apic_id.to_le_bytes());
                    entry.put(12, &[u8::from(enabled)]);
                    cpus.push(CpuAffinity { apic_id: entry.apic_id, domain: entry.domain, enabled });
                }
                _ => {}
            }
            let length = entry.bytes.len();
            entry.bytes[1] = u8::try_from(entry.says).unwrap();
            bytes.extend(&entry.bytes);
            if entry.says != length || length < entry.shortest || cut < bytes.len() {
                let length = if cut == offset + 1 { 0 } else { entry.bytes[1] };
                damage = Some(firmware::Damage { table: "SRAT", offset, kind, length });
            }
        }
        bytes.truncate(cut);
        match (firmware::parse_srat(&bytes), damage) {
            (Ok(srat), None) => {
                let counts: Vec<_> = cpus.iter().copied().filter(|cpu| cpu.enabled).collect();
                prop_assert_eq!(srat.cpus(), counts);
                let counts: Vec<_> = blocks.iter().copied().filter(|block| block.enabled).collect();
                prop_assert_eq!(srat.memory(), counts);
                follows_linux(&srat, &cpus, &blocks, there)?;
            }
            (Err(found), Some(damage)) => prop_assert_eq!(found, damage),
            (found, damage) => prop_assert!(false, "{found:?}, expected {damage:?}"),
        }
    }

    /// Tables of distances, byte by byte: what is wrong is named, and the rest means what it says.
    #[test]
    fn bytes_of_a_slit(
        domains in 0..6usize,
        says in prop_oneof![4 => Just(None), 1 => any::<u64>().prop_map(Some)],
        far in vec(11u8.., 36),
        wrong in prop_oneof![3 => Just(None), 1 => (0..36usize, 0..12u8).prop_map(Some)],
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0..90usize],
    ) {
        let mut square = far[..domains * domains].to_vec();
        square.iter_mut().step_by(domains + 1).for_each(|own| *own = 10);
        let wrong = wrong.filter(|(at, _)| *at < square.len());
        if let Some((at, distance)) = wrong {
            square[at] = distance;
        }
        let mut bytes = vec![0; 36];
        bytes.extend(says.unwrap_or(domains as u64).to_le_bytes());
        bytes.extend(&square);
        bytes.truncate(cut);
        let whole = bytes.len() >= 44 + domains * domains;
        match firmware::parse_slit(&bytes) {
            Ok(found) if says.is_none() => {
                prop_assert!(whole);
                prop_assert_eq!(found, Slit::new(domains, &square).unwrap());
            }
            Ok(_) => prop_assert!(says.is_some_and(|n| n * n <= (domains * domains) as u64)),
            Err(why) if says.is_none() => {
                let too_short = why.to_string().contains("too few");
                prop_assert_eq!(too_short, !whole);
                prop_assert!(!whole || wrong.is_some());
            }
            Err(_) => {}
        }
    }

    /// No bytes at all make the parser or the topology panic.
    #[test]
    fn any_bytes_are_survived(mut bytes in vec(any::<u8>(), 0..300), small in any::<bool>()) {
        if small {
            // Types and lengths that are met more often.
            for byte in bytes.iter_mut().skip(48) {
                *byte %= 41;
            }
        }
        if let Ok(srat) = firmware::parse_srat(&bytes) {
            detect(NumaOption::Auto, Some(&srat), &pc());
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
