//! 1 GiB pages whose memmap is folded from the start (T28): taken from the early
//! allocator, populated, put into the pools, used, and given back.

use mm::addr::{MAX_NODES, NodeId, Order, PAGE_SIZE, Pfn, PfnRange};
use mm::audit;
use mm::frames::Placement;
use mm::hugetlb::BootBlocks;
use mm::machine::{FailPoint, Level, Memory as _};
use mm::memblock::{Early, EarlyFrames, Kind, LOW_MEMORY, MapBuilder, MemoryMap, Region};
use mm::page::{Flags, Memmap, PageType};
use mm::system::Mm;
use mm::vmemmap;
use params::Options;
use proptest::prelude::*;
use testkit::{EmulatedMachine, Injection};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A machine whose pools have been filled from the command line.
struct Booted {
    m: EmulatedMachine,
    mm: Box<Mm>,
    map: MemoryMap,
    blocks: BootBlocks,
    /// Frames of struct pages, tables and shared tails when the memmap had been built.
    built: u64,
}

/// RAM in bytes, with the node.
type Ram = [(u8, u64, u64)];

fn memory_map(ram: &Ram) -> MemoryMap {
    let mut builder = MapBuilder::new();
    for (_, start, end) in ram {
        builder.add(Region {
            start: *start,
            length: end - start,
            kind: Kind::Usable,
        });
    }
    let mut map: MemoryMap = builder.build();
    for (node, start, end) in ram {
        let range = PfnRange::new(Pfn::new(start / PAGE_SIZE), Pfn::new(end / PAGE_SIZE));
        map.assign(range, NodeId::of(*node));
    }
    map
}

/// Boots as the kernel does, with `words` as its command line. `plan` says which
/// allocations fail, counted from when the early allocator is ready.
/// `None` if the memmap could not be built: then the kernel says so and ends.
fn try_boot(ram: &Ram, words: &str, plan: Injection) -> Option<Booted> {
    let map = memory_map(ram);
    let builder = EmulatedMachine::builder().gbpages(true).cpus(2);
    let m = map
        .iter()
        .fold(builder, |builder, ram| builder.ram(ram.range))
        .build();
    let words = words.to_owned();
    let options = Options::parse(words.as_bytes(), true, &mut |word, why| {
        panic!("{word}: {why}")
    });
    let early = EarlyFrames::new(Early::new(&map));
    let mm = Box::new(Mm::new(Memmap::new(Memmap::DEFAULT_BASE)));
    mm.hugetlb.set_optimize(options.hugetlb_free_vmemmap);
    let request = options.hugepages.get(Order::PUD);
    m.fail(FailPoint::PageAlloc, plan);
    let blocks = request.map_or_else(BootBlocks::default, |request| {
        mm.hugetlb.take_early(&m, &early, &mm.vmemmap, request)
    });

    let root = {
        let mut early = early.lock(&m);
        let near = Placement::Prefer(NodeId::ZERO);
        early.alloc(
            Order::PAGE,
            Order::PAGE,
            near,
            mm::memblock::Direction::TopDown,
        )
    };
    let root = root.expect("RAM for a page table");
    m.fill_words(root.phys(), 0, 512);
    m.set_root(root);
    mm.build_memmap(&m, &early, map.iter()).ok()?;
    let totals = mm.vmemmap.ledger().totals();
    let built = totals.boot_pages + totals.pages + totals.tables + totals.tails;
    m.watch_free_blocks(Memmap::DEFAULT_BASE);
    let early = early.lock(&m);
    mm.hand_over(
        &m,
        map.iter(),
        early.reserved_ranges().map(|ram| ram.range),
        early.free_ranges(),
    );
    drop(early);
    m.fail(FailPoint::PageAlloc, Injection::Never);
    if let (Some(request), Some(h)) = (request, mm.hugetlb.hstate(Order::PUD))
        && mm.hugetlb.optimizes()
    {
        mm.hugetlb.add_boot_folios(&m, mm.backing(), h, request);
    }
    Some(Booted {
        m,
        mm,
        map,
        blocks,
        built,
    })
}

fn boot(ram: &Ram, words: &str) -> Booted {
    try_boot(ram, words, Injection::Never).expect("RAM for the memmap")
}

impl Booted {
    /// Audits, and accounts for every frame of RAM: what nobody names is lost.
    fn check(&self) {
        let input = audit::input(&self.m, &self.mm, self.map.iter());
        let mut scratch = vec![0; audit::scratch_words(self.map.span().end)];
        let report = audit::audit(&self.m, &input, &mut scratch).expect("enough scratch");
        let findings: Vec<String> = report.findings().map(|found| found.to_string()).collect();
        assert_eq!(findings, [""; 0]);
        let low = PfnRange::new(Pfn::new(0), Pfn::new(LOW_MEMORY / PAGE_SIZE));
        let low = self.map.iter().map(|ram| ram.range.intersect(low).pages());
        let folios = self.nr() * Order::PUD.pages();
        let used = report.memmap_pages + report.page_tables + report.tails + folios;
        let known = low.sum::<u64>() + used + report.free_pages;
        assert_eq!(known, self.map.total_pages(), "frames accounted for");
    }

    /// Folios of all pools, free or not.
    fn nr(&self) -> u64 {
        let h = self.mm.hugetlb.hstate(Order::PUD);
        h.map_or(0, |h| h.total(&self.m).nr)
    }

    fn folios(&self) -> Vec<u64> {
        let h = self.mm.hugetlb.hstate(Order::PUD).expect("1 GiB pages");
        let nodes = (0..MAX_NODES).map(|n| NodeId::of(u8::try_from(n).expect("64 nodes")));
        let mut counts: Vec<u64> = nodes
            .map(|node| {
                let counts = h.counts(&self.m, node);
                assert_eq!(counts.free, counts.nr, "nobody has any");
                counts.nr
            })
            .collect();
        while counts.last() == Some(&0) {
            counts.pop();
        }
        counts
    }

    fn total(&self) -> u64 {
        self.folios().iter().sum()
    }

    /// Takes every folio, checks it, puts it back, shrinks the pools to nothing, grows
    /// them again, with an audit after each.
    fn use_all(&self) {
        let (m, mm) = (&self.m, &self.mm);
        let h = mm.hugetlb.hstate(Order::PUD).expect("1 GiB pages");
        let all = self.total();
        let mut held = Vec::new();
        for node in mm.nodes.online() {
            while let Some(head) = h.take(m, node) {
                assert_eq!(head.node(m), node);
                assert_eq!(head.page_type(m), PageType::HUGETLB);
                assert!(vmemmap::is_optimized(m, head));
                assert!(!head.flags(m).contains(Flags::RESERVED));
                for n in [1, 63, 64, 4095, 4096, 262_143] {
                    let tail = head.nth(n);
                    assert!(tail.is_tail(m) && tail.compound_head(m) == head, "tail {n}");
                    assert_eq!((tail.node(m), tail.ref_count(m)), (node, 0), "tail {n}");
                }
                held.push(head);
            }
        }
        assert_eq!(held.len() as u64, all);
        self.check();
        held.into_iter().for_each(|head| h.put(m, head));
        assert_eq!(self.total(), all);
        let free = mm.nodes.total_free(m);
        if let Some(left) = all.checked_sub(1) {
            assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 1), 1);
            assert_eq!(self.total(), left);
            self.check();
            assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, left), left);
            self.check();
        }
        let totals = mm.vmemmap.ledger().totals();
        assert_eq!((totals.saved, totals.folded), (0, 0));
        // Each gives its 1 GiB, its table and the head's frame, and takes its memmap.
        let gained = (262_144 + 1 + 1 - 8 * 512) * all;
        assert_eq!(mm.nodes.total_free(m), free + gained);
        let again = mm.hugetlb.grow(m, mm.backing(), h, None, all);
        assert_eq!(again, all, "as many fit again");
        self.check();
    }

    fn warnings(&self) -> Vec<String> {
        let log = self.m.take_log().into_iter();
        log.filter(|(level, _)| *level == Level::Warn)
            .map(|(_, line)| line)
            .collect()
    }
}

/// Two nodes whose border is not at a multiple of 1 GiB, with a hole of 64 MiB.
const TWO_NODES: &Ram = &[
    (0, 0, 3 * GIB + 512 * MIB),
    (1, 3 * GIB + 512 * MIB, 6 * GIB + 128 * MIB),
    (1, 6 * GIB + 192 * MIB, 9 * GIB),
];

const ON: &str = "hugetlb_free_vmemmap=on hugepagesz=1G";

#[test]
fn struct_pages_are_never_built() {
    let booted = boot(TWO_NODES, &format!("{ON} hugepages=4"));
    assert_eq!(booted.folios(), [2, 2]);
    assert_eq!(
        booted.blocks,
        BootBlocks {
            taken: 4,
            all: 9,
            crossing: 1,
            holes: 1
        }
    );
    booted.check();
    let totals = booted.mm.vmemmap.ledger().totals();
    // Nine GiB need 16 MiB each: four have one frame, and tables instead.
    assert_eq!(totals.sections, 9 * 8);
    assert_eq!(totals.boot_pages, 5 * 4096 + 4);
    assert_eq!(
        (totals.pages, totals.tables, totals.tails, totals.saved),
        (0, 4 + 2, 2, 4 * 4095)
    );
    assert_eq!((totals.shared_tables, totals.shared_slots), (2, 4 * 7));
    assert_eq!(booted.built, 5 * 4096 + 4 + 6 + 2);
    assert_eq!(
        totals.peak, booted.built,
        "never more, not even for a moment"
    );
    assert_eq!(totals.flushes, 0, "nothing was mapped before");
    assert_eq!(booted.warnings(), [""; 0]);
    booted.use_all();
}

#[test]
fn nodes_get_what_is_asked_for_them() {
    let booted = boot(TWO_NODES, &format!("{ON} hugepages=0:1,1:3"));
    assert_eq!(booted.folios(), [1, 3]);
    assert_eq!(booted.warnings(), [""; 0]);
    booted.check();
    booted.use_all();
}

#[test]
fn what_cannot_be_had_is_said() {
    let booted = boot(TWO_NODES, &format!("{ON} hugepages=1000"));
    // Whole blocks: 1 and 2 of node 0 (0 has low memory in it), 4, 5, 7 and 8 of node 1.
    assert_eq!(booted.folios(), [2, 4]);
    assert_eq!(
        booted.warnings(),
        ["HugeTLB: allocating 1000 of page size 1.00 GiB failed.  Only allocated 6 hugepages."]
    );
    booted.check();
    let booted = boot(TWO_NODES, &format!("{ON} hugepages=0:9,1:1"));
    assert_eq!(booted.folios(), [2, 1]);
    assert_eq!(
        booted.warnings(),
        ["HugeTLB: allocating 9 of page size 1.00 GiB failed node0.  Only allocated 2 hugepages."]
    );
}

/// A node keeps what its struct pages need: one of 1 GiB and little more has none.
#[test]
fn a_small_node_keeps_its_memory() {
    let ram = [
        (0, 0, GIB),
        (1, GIB, 2 * GIB + 8 * MIB),
        (2, 3 * GIB, 5 * GIB),
    ];
    let booted = boot(&ram, &format!("{ON} hugepages=9"));
    assert_eq!(booted.folios(), [0, 0, 1]);
    booted.check();
}

#[test]
fn with_hvo_off_nothing_is_taken_early() {
    let words = "hugetlb_free_vmemmap=off hugepagesz=1G hugepages=2";
    let booted = boot(TWO_NODES, words);
    assert_eq!((booted.total(), booted.blocks.taken), (0, 0));
    assert_eq!(booted.built, 9 * 4096);
    booted.check();
    let h = booted.mm.hugetlb.hstate(Order::PUD).expect("1 GiB pages");
    let (m, mm) = (&booted.m, &booted.mm);
    assert_eq!(mm.hugetlb.grow(m, mm.backing(), h, None, 2), 2);
    assert_eq!(mm.vmemmap.ledger().totals().saved, 0);
    booted.check();
}

/// Every early allocation fails once: the machine boots, the books are right, and
/// what is missing is said.
#[test]
fn each_early_allocation_may_fail() {
    let ram = [(0, 0, 2 * GIB), (1, 2 * GIB, 4 * GIB)];
    let words = format!("{ON} hugepages=0:1,1:1");
    assert_eq!(boot(&ram, &words).folios(), [1, 1]);
    let (mut lost, mut ended) = (0, 0);
    for k in 1..=50 {
        let Some(booted) = try_boot(&ram, &words, Injection::Kth(k)) else {
            ended += 1;
            continue;
        };
        booted.check();
        let missing = 2 - booted.total();
        let said = booted.warnings();
        let short = said.iter().filter(|line| line.contains("Only allocated 0"));
        assert_eq!(short.count() as u64, missing, "allocation {k}: {said:?}");
        lost += missing;
        if missing > 0 && k % 8 == 0 {
            booted.use_all();
        }
    }
    // Two blocks; a shared tail, a table and a head each; the path, once or twice. Without
    // the shared table it goes on.
    assert!((8..=14).contains(&lost), "{lost} folios lost");
    assert!(
        ended <= 3,
        "a table of the path to ordinary struct pages: {ended}"
    );
}

/// Ranges of RAM with holes, on up to three nodes.
fn any_ram() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    let piece = (0u64..40, 1u64..80, 0u8..3);
    prop::collection::vec(piece, 1..5).prop_map(|pieces| {
        let mut at = 0;
        let mut ram = vec![];
        for (gap, length, node) in pieces {
            let start = at + gap * 32 * MIB * u64::from(at > 0);
            // Odd to the section, not to the frame.
            at = start + length * 32 * MIB + 5 * PAGE_SIZE;
            ram.push((node, start, at));
        }
        // Something to boot from, always.
        ram.push((0, at, at + 256 * MIB));
        ram
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// On any machine the pools hold whole blocks of one node, no more than there are,
    /// and every frame has one owner, before and after use.
    #[test]
    fn any_machine_boots(ram in any_ram(), count in 0..8u64) {
        let booted = boot(&ram, &format!("{ON} hugepages={count}"));
        booted.check();
        let total = booted.total();
        prop_assert!(total <= count);
        // The survey is of the map alone: what is whole, less what is in use.
        let whole = booted.blocks.all - booted.blocks.crossing - booted.blocks.holes;
        prop_assert!(total <= whole, "{total} of {whole}");
        prop_assert_eq!(total, booted.blocks.taken);
        let short = booted.warnings().iter().any(|line| line.contains("Only allocated"));
        prop_assert_eq!(short, total < count);
        booted.use_all();
    }
}
