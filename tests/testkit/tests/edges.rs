//! Where memory is laid out unkindly, or runs out at a bad moment.

use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, VirtAddr};
use mm::audit;
use mm::frames::{FrameSource, Placement};
use mm::hugetlb;
use mm::machine::{FailPoint, Memory as _};
use mm::page::{self, Memmap, Page, PageList};
use mm::paging::{self, Level};
use mm::system::Mm;
use mm::vmemmap::{Fill, HvoError, RamRange, is_optimized};
use testkit::{Bump, EmulatedMachine, Injection, World};

const MIB: u64 = (1 << 20) / PAGE_SIZE;

fn mib(node: u8, start: u64, end: u64) -> RamRange {
    RamRange {
        range: PfnRange::new(Pfn::new(start * MIB), Pfn::new(end * MIB)),
        node: NodeId::of(node),
    }
}

/// An early allocator that has single frames only: the memmap is mapped by 4 KiB
/// pages throughout.
struct Singles(Bump);

impl FrameSource<EmulatedMachine> for Singles {
    fn alloc(&self, _: &EmulatedMachine, order: Order, _: Placement) -> Option<Pfn> {
        (order == Order::PAGE).then(|| self.0.take(order)).flatten()
    }

    fn free(&self, _: &EmulatedMachine, _: Pfn, _: Order) {}

    fn split(&self, _: &EmulatedMachine, _: Pfn, _: Order) {}

    fn free_pages(&self, _: &EmulatedMachine, _: Pfn, _: u64) {}
}

/// A machine whose memmap lies in single frames from `first` on.
struct Scattered {
    m: EmulatedMachine,
    mm: Box<Mm>,
    ram: Vec<RamRange>,
}

impl Scattered {
    fn boot(ram: &[RamRange], first: Pfn) -> Self {
        let mut builder = EmulatedMachine::builder().cpus(2);
        for ram in ram {
            builder = builder.ram(ram.range);
        }
        let m = builder.build();
        let end = ram.last().expect("RAM").range.end;
        let early = Singles(Bump::new(PfnRange::new(first, end)));
        m.set_root(m.zeroed(&early.0));
        let mm = Box::new(Mm::new(Memmap::new(Memmap::DEFAULT_BASE)));
        mm.build_memmap(&m, &early, ram.iter().copied())
            .expect("RAM for the memmap");
        m.watch_free_blocks(Memmap::DEFAULT_BASE);
        let used = PfnRange::new(first, early.0.next());
        let free = ram.iter().flat_map(|ram| {
            let below = PfnRange::new(ram.range.start, ram.range.end.min(used.start));
            let above = PfnRange::new(ram.range.start.max(used.end), ram.range.end);
            [below, above].map(|range| RamRange {
                range,
                node: ram.node,
            })
        });
        let reserved = std::iter::once(used);
        mm.hand_over(&m, ram.iter().copied(), reserved, free.clone());
        let ram = ram.to_vec();
        Self { m, mm, ram }
    }

    fn head(&self, node: u8, order: Order) -> Page {
        let placement = Placement::Only(NodeId::of(node));
        let block = self.mm.nodes.alloc(&self.m, order, placement);
        let head = self.mm.vmemmap.memmap().page(block.expect("a free block"));
        page::prep_compound_head(&self.m, head, order);
        page::prep_compound_tails(&self.m, head, order);
        head
    }

    fn check(&self) {
        let end = self.ram.last().expect("RAM").range.end;
        let mut scratch = vec![0; audit::scratch_words(end)];
        let input = audit::input(&self.m, &self.mm, self.ram.iter().copied());
        let report = audit::audit(&self.m, &input, &mut scratch).expect("enough scratch");
        assert!(report.is_ok(), "{report}");
    }
}

fn is_intact(m: &EmulatedMachine, head: Page, order: Order) -> bool {
    head.is_head(m)
        && page::folio_order(m, head) == order
        && (1..order.pages()).all(|n| {
            let tail = head.nth(n);
            tail.is_tail(m) && tail.compound_head(m) == head && tail.ref_count(m) == 0
        })
}

/// A memmap whose consecutive frames lie on both sides of a node boundary comes
/// back frame by frame to the node that each belongs to.
#[test]
fn memmap_across_a_node_boundary() {
    let ram = [mib(0, 0, 256), mib(1, 256, 512)];
    for below in [3, 6, 9, 12] {
        let first = Pfn::new(ram[1].range.start.as_u64() - below);
        let world = Scattered::boot(&ram, first);
        world.check();
        let order = Order::of(15);
        let head = world.head(0, order);
        let nodes = &world.mm.nodes;
        let folded = world
            .mm
            .vmemmap
            .optimize_folio(&world.m, nodes, head, order);
        assert_eq!(folded, Ok(()));
        assert!(is_intact(&world.m, head, order));
        world.check();
        let restored = world
            .mm
            .vmemmap
            .restore_folio(&world.m, nodes, head, order, Fill::Tails);
        assert_eq!(restored, Ok(()));
        assert!(is_intact(&world.m, head, order));
        world.check();
    }
}

/// A section mapped by 4 KiB pages at boot is folded, and unfolded to one leaf;
/// its table from boot comes back.
#[test]
fn section_without_a_leaf() {
    let ram = [mib(0, 0, 512)];
    let world = Scattered::boot(&ram, Pfn::new(1));
    let (m, mm) = (&world.m, &world.mm);
    let tables = mm.vmemmap.ledger().totals().tables;
    for order in [15, 9, 16].map(Order::of) {
        let head = world.head(0, order);
        let level = || paging::walk(m, m.root(), head.address()).level;
        assert_eq!(mm.vmemmap.optimize_folio(m, &mm.nodes, head, order), Ok(()));
        world.check();
        let restored = mm
            .vmemmap
            .restore_folio(m, &mm.nodes, head, order, Fill::Tails);
        assert_eq!(restored, Ok(()));
        assert!(is_intact(m, head, order));
        assert_eq!(level() == Level::Pmd, order >= Order::of(15));
        world.check();
    }
    // Orders 15 and 16 gave three tables back; the one that order 16 shares stays.
    assert_eq!(mm.vmemmap.ledger().totals().tables, tables - 3 + 1);
    assert_eq!(mm.vmemmap.ledger().totals().boot_pages, 512 - 8);
}

/// Two nodes in one section: blocks on both sides of the boundary are folded, each
/// to its own node's tail, and the buddy allocators keep apart.
#[test]
fn two_nodes_in_one_section() {
    let world = World::builder()
        .ram(0, 0, 192)
        .ram(1, 192, 320)
        .ram(0, 320, 512)
        .boot();
    world.speculate(0.05, 3);
    world.check();
    let order = Order::PMD;
    let mut heads = Vec::new();
    for node in [0, 1, 1, 0] {
        let head = world.compound(node, order, true).expect("a block");
        assert_eq!(head.node(&world.m), NodeId::of(node));
        assert_eq!(world.fold(head, order), Ok(()));
        assert_eq!(head.nth(300).node(&world.m), NodeId::of(node));
        heads.push(head);
    }
    world.check();
    for head in heads {
        assert_eq!(world.unfold(head, order, Fill::Unused), Ok(()));
        world.release(head, order);
    }
    world.check();
}

/// The last section below 64 TiB, and the first one with frame 0, are like others.
#[test]
fn first_and_last_section() {
    let top = 64 << 20;
    let world = World::builder()
        .ram(0, 0, 128)
        .ram(1, top - 256, top)
        .boot();
    for order in [7, 9, 14].map(Order::of) {
        for node in [0, 1] {
            let head = world.compound(node, order, true).expect("a block");
            assert_eq!(world.fold(head, order), Ok(()));
            assert!(is_intact(&world.m, head, order));
            assert_eq!(world.unfold(head, order, Fill::Unused), Ok(()));
            world.release(head, order);
        }
    }
    let last = Pfn::new((1 << 34) - 1);
    assert_eq!(world.memmap().pfn(world.memmap().page(last)), last);
    assert_eq!(world.memmap().page(last).node(&world.m), NodeId::of(1));
}

/// Memory runs out for good at every point of a fold and of a restore: the block
/// is folded or as it was, nothing is lost, and with memory back all is well.
#[test]
fn memory_runs_out_at_every_point() {
    for order in [7, 9, 14, 15, 16].map(Order::of) {
        let world = World::builder().ram(0, 0, 1024).boot();
        world.speculate(0.02, 5);
        let head = world.compound(0, order, true).expect("a block");
        let (mut refused, mut done) = (0, 0);
        for k in (1..12).chain([300, 511, 512, 513, 514, 700, 1023, 1024, 1025]) {
            world.m.fail(FailPoint::PageAlloc, Injection::From(k));
            let folded = world.fold(head, order);
            world.m.fail(FailPoint::PageAlloc, Injection::Never);
            assert_eq!(is_optimized(&world.m, head), folded.is_ok());
            assert!(matches!(folded, Ok(()) | Err(HvoError::NoMemory)));
            world.check();
            if folded.is_err() {
                assert_eq!(world.fold(head, order), Ok(()));
            }
            let free = world.free_pages();
            world.m.fail(FailPoint::PageAlloc, Injection::From(k));
            let restored = world.unfold(head, order, Fill::Tails);
            world.m.fail(FailPoint::PageAlloc, Injection::Never);
            assert_eq!(is_optimized(&world.m, head), restored.is_err());
            assert!(is_intact(&world.m, head, order), "{order}, from {k}");
            world.check();
            match restored {
                Ok(()) => done += 1,
                Err(error) => {
                    refused += 1;
                    assert_eq!(error, HvoError::NoMemory);
                    assert_eq!(world.free_pages(), free, "{order}, from {k}");
                    assert_eq!(world.unfold(head, order, Fill::Tails), Ok(()));
                }
            }
            world.check();
        }
        assert!(refused > 0 && done > 0, "{order}: {refused}, {done}");
        world.dissolve(head, order);
        world.check();
    }
}

/// One slot gets a 2 MiB block and becomes a leaf, the next does not and keeps its
/// table; then they are folded and unfolded again.
#[test]
fn some_slots_get_a_block() {
    let world = World::builder().ram(0, 0, 2048).boot();
    world.speculate(0.02, 7);
    let order = Order::of(17);
    let head = world.compound(0, order, true).expect("a block");
    for k in [2, 1, 4, 3, 9] {
        assert_eq!(world.fold(head, order), Ok(()));
        world.check();
        world.m.fail(FailPoint::PageAlloc, Injection::Kth(k));
        assert_eq!(world.unfold(head, order, Fill::Tails), Ok(()));
        world.m.fail(FailPoint::PageAlloc, Injection::Never);
        let leaves = (0..4)
            .map(|slot| head.nth(slot << 15).address())
            .filter(|at| paging::walk(&world.m, world.m.root(), *at).level == Level::Pmd);
        assert_eq!(leaves.count() as u64, (k - 1).min(4));
        assert!(is_intact(&world.m, head, order));
        world.check();
    }
    world.dissolve(head, order);
    world.check();
}

/// A store fails where the head has no frame of its own to move to, in a leaf and
/// in a table, in the midst of a batch: only that block is put back.
#[test]
fn store_fails_in_a_batch() {
    for (point, order) in [
        (FailPoint::VmemmapPte, 9),
        (FailPoint::VmemmapPmd, 9),
        (FailPoint::VmemmapPte, 16),
        (FailPoint::VmemmapPmd, 16),
    ] {
        let order = Order::of(order);
        for k in 1..20 {
            let world = World::builder().ram(0, 0, 1024).boot();
            world.speculate(0.05, k);
            let mut list = PageList::new();
            for _ in 0..3 {
                list.push(&world.m, world.compound(0, order, true).expect("a block"));
            }
            let (m, mm) = (&world.m, &world.mm);
            if point == FailPoint::VmemmapPte {
                // Slots must be tables already.
                assert_eq!(mm.vmemmap.optimize_folios(m, &mm.nodes, &list, order), 3);
                m.fail(
                    FailPoint::PageAlloc,
                    Injection::Random {
                        chance: 0.3,
                        seed: k,
                    },
                );
                while mm
                    .vmemmap
                    .restore_folios(m, &mm.nodes, &list, order, Fill::Tails)
                    < 3
                {}
            }
            m.fail(point, Injection::Kth(k));
            m.fail(
                FailPoint::PageAlloc,
                Injection::Random {
                    chance: 0.4,
                    seed: k,
                },
            );
            let folded = mm.vmemmap.optimize_folios(m, &mm.nodes, &list, order);
            m.fail(point, Injection::Never);
            m.fail(FailPoint::PageAlloc, Injection::Never);
            let heads: Vec<Page> =
                std::iter::successors(list.first(), |head| list.next(m, *head)).collect();
            let marked = heads.iter().filter(|head| is_optimized(m, **head)).count();
            assert_eq!(folded, marked as u64);
            world.check();
            for head in &heads {
                assert!(is_intact(m, *head, order));
            }
            assert_eq!(
                mm.vmemmap
                    .restore_folios(m, &mm.nodes, &list, order, Fill::Tails),
                3
            );
            while let Some(head) = list.pop(m) {
                world.dissolve(head, order);
            }
            world.check();
        }
    }
}

/// A block is restored as what it is, or not at all.
#[test]
fn restore_with_another_order() {
    let world = World::small();
    let order = Order::PMD;
    let (head, small) = (
        world.compound(0, order, true).expect("a block"),
        world.compound(0, Order::of(8), true).expect("a block"),
    );
    assert_eq!(world.fold(head, order), Ok(()));
    assert_eq!(world.fold(small, Order::of(8)), Ok(()));
    let wrong = world.unfold(head, Order::of(8), Fill::Tails);
    assert_eq!(wrong, Err(HvoError::NotCompound(head)));
    assert!(is_optimized(&world.m, head));
    world.check();
    assert_eq!(world.unfold(head, order, Fill::Tails), Ok(()));
    assert!(is_intact(&world.m, head, order));
}

/// Sizes take turns of their own, and shrinking takes turns too.
#[test]
fn every_size_takes_turns() {
    let world = World::builder().ram(0, 0, 4096).ram(1, 4096, 8192).boot();
    let (m, mm) = (&world.m, &world.mm);
    let sizes = [Order::PMD, Order::PUD].map(|order| mm.hugetlb.hstate(order).expect("a size"));
    let spread = |n: usize| [0, 1].map(|node| sizes[n].counts(m, NodeId::of(node)).nr);
    for _ in 0..4 {
        for h in sizes {
            assert_eq!(mm.hugetlb.grow(m, mm.backing(), h, None, 1), 1);
        }
    }
    assert_eq!((spread(0), spread(1)), ([2, 2], [2, 2]));
    for _ in 0..2 {
        for h in sizes {
            assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 1), 1);
        }
    }
    assert_eq!((spread(0), spread(1)), ([1, 1], [1, 1]));
}

/// A node without memory and one that runs out are passed over.
#[test]
fn exhausted_nodes_are_passed_over() {
    let world = World::builder().ram(1, 0, 256).ram(3, 256, 1024).boot();
    let (m, mm) = (&world.m, &world.mm);
    mm.nodes.set_online(NodeId::of(0), 0);
    mm.nodes.set_online(NodeId::of(63), 0);
    mm.nodes.set_watermarks(m);
    mm.hugetlb.set_optimize(true);
    let h = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    let added = mm.hugetlb.grow(m, mm.backing(), h, None, 10_000);
    let on = |node| h.counts(m, NodeId::of(node)).nr;
    assert_eq!((on(0), on(63)), (0, 0));
    assert!(on(1) > 110 && on(3) > 360, "{} and {}", on(1), on(3));
    for node in [1, 3] {
        let node = mm.nodes.get(NodeId::of(node));
        let free = node.free_pages(m);
        assert!(free + 8 > node.watermark(), "{free} free");
    }
    world.check();
    assert_eq!(
        mm.hugetlb.grow(m, mm.backing(), h, Some(NodeId::of(0)), 3),
        0
    );
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, added), added);
    world.check();
}

/// When a node has nothing left, frames and pooled folios come from the nearest that has, and of
/// equally near ones from those above it first.
#[test]
fn the_nearest_node_is_next() {
    let world = (0..5_u8).fold(World::builder(), |builder, node| {
        let start = u64::from(node) * 128;
        builder.ram(node, start, start + 128)
    });
    let world = world.boot();
    let (m, mm) = (&world.m, &world.mm);
    let own = NodeId::of(1);
    for (node, distance) in [(0, 15), (2, 31), (4, 12), (3, 15)] {
        mm.nodes.set_distance(own, NodeId::of(node), distance);
    }
    let nearest = [1, 4, 3, 0, 2].map(NodeId::of);
    // Another node still has the usual distances.
    let usual = [1, 2, 3, 4, 0].map(|n| mm.nodes.distance(NodeId::of(4), NodeId::of(n)));
    assert_eq!(usual, [20, 20, 20, 10, 20]);

    let h = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    assert_eq!(mm.hugetlb.grow(m, mm.backing(), h, None, 5), 5);
    m.set_node(0, own);
    let heads: Vec<_> = std::iter::from_fn(|| h.take_near(m, &mm.nodes)).collect();
    let from: Vec<_> = heads.iter().map(|head| head.node(m)).collect();
    assert_eq!(from, nearest);
    heads.into_iter().for_each(|head| h.put(m, head));
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 5), 5);

    let four_mib = Order::of(10);
    let block = || mm.nodes.alloc(m, four_mib, Placement::Prefer(own));
    let blocks: Vec<_> = std::iter::from_fn(block).collect();
    let mut from: Vec<_> = blocks
        .iter()
        .map(|block| world.memmap().page(*block).node(m))
        .collect();
    from.dedup();
    assert_eq!(from, nearest);
    blocks
        .into_iter()
        .for_each(|block| mm.nodes.free(m, block, four_mib));
    world.check();
}

/// Whoever lets go last, the pool has the folio back; a wrong address unmaps nothing.
#[test]
fn last_reference_is_the_mapping() {
    let world = World::small();
    let (m, mm) = (&world.m, &world.mm);
    let h = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    assert_eq!(mm.hugetlb.grow(m, mm.backing(), h, None, 1), 1);
    let head = h.take(m, NodeId::ZERO).expect("a folio");
    let at = VirtAddr::new(0xffff_c900_0000_0000);
    let memmap = world.memmap();
    assert_eq!(hugetlb::map_folio(m, &mm.nodes, memmap, at, head), Ok(()));
    h.put(m, head);
    assert_eq!(hugetlb::unmap_folio(m, h, memmap, at), Ok(()));
    assert_eq!(h.counts(m, NodeId::ZERO).free, 1);
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 1), 1);
    world.check();
}

/// Where the mask cannot find a head there are no folios of that size.
#[test]
fn misaligned_base_has_no_large_folios() {
    let base = Memmap::DEFAULT_BASE.offset(2 << 20);
    let world = World::builder().ram(0, 0, 4096).base(base.as_u64()).boot();
    let (m, mm) = (&world.m, &world.mm);
    mm.hugetlb.set_optimize(true);
    let small = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    assert_eq!(mm.hugetlb.grow(m, mm.backing(), small, None, 3), 3);
    assert!(mm.hugetlb.hstate(Order::PUD).is_none());
    let head = small.take(m, NodeId::ZERO).expect("a folio");
    assert!(is_intact(m, head, Order::PMD));
    small.put(m, head);
    world.check();
}

/// Restores that fail leave surplus; the count is exact whatever was in use.
#[test]
fn surplus_is_exact() {
    let world = World::builder().ram(0, 0, 256).ram(1, 256, 512).boot();
    let (m, mm) = (&world.m, &world.mm);
    mm.hugetlb.set_optimize(true);
    let h = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    assert_eq!(mm.hugetlb.grow(m, mm.backing(), h, None, 10), 10);
    let held = h.take(m, NodeId::ZERO).expect("a folio");
    m.fail(FailPoint::PageAlloc, Injection::From(4));
    let gone = mm.hugetlb.shrink(m, mm.backing(), h, None, 8);
    m.fail(FailPoint::PageAlloc, Injection::Never);
    let total = h.total(m);
    assert_eq!((total.nr, total.free), (10 - gone, 9 - gone));
    assert_eq!(total.surplus, 8 - gone);
    world.check();
    assert_eq!(mm.hugetlb.retry_surplus(m, mm.backing(), h), 8 - gone);
    let total = h.total(m);
    assert_eq!((total.nr, total.free, total.surplus), (2, 1, 0));
    h.put(m, held);
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, 9), 2);
    world.check();
}

/// Three nodes in one section, two of them too small for a huge page.
#[test]
fn small_nodes_between_others() {
    let world = World::builder()
        .ram(0, 0, 256)
        .ram(1, 256, 257)
        .ram(2, 257, 258)
        .ram(0, 258, 512)
        .boot();
    world.check();
    let (m, mm) = (&world.m, &world.mm);
    mm.hugetlb.set_optimize(true);
    let h = mm.hugetlb.hstate(Order::PMD).expect("2 MiB");
    let added = mm.hugetlb.grow(m, mm.backing(), h, None, 1 << 20);
    world.check();
    assert_eq!(mm.hugetlb.shrink(m, mm.backing(), h, None, added), added);
    world.check();
}
