//! The page table that slots of tails share: who uses it, who gets one of its own, and
//! that nobody ever writes or frees it.

use mm::addr::{NodeId, Order, PAGE_SIZE, PhysAddr};
use mm::machine::{FailPoint, Memory as _, Processors as _};
use mm::page::{Flags, Page};
use mm::paging::{self, Level};
use mm::vmemmap::{Fill, HvoError, Totals};
use testkit::records::Folio;
use testkit::{Injection, World};

/// Four slots of memmap.
const ORDER: Order = Order::of(17);

struct Bed {
    w: World,
    head: Page,
    folio: Folio,
}

impl Bed {
    fn new() -> Self {
        let w = World::builder().ram(0, 1, 2048).boot();
        w.speculate(0.05, 3);
        let head = w.compound(0, ORDER, true).expect("empty machine");
        let folio = Folio {
            head: head.address(),
            node: 0,
            order: ORDER.get(),
            folded: false,
            tails: true,
            mark: 0,
        };
        Self { w, head, folio }
    }

    fn totals(&self) -> Totals {
        self.w.vmemmap().ledger().totals()
    }

    /// Tables of their own, and slots that have the shared one.
    fn tables(&self) -> (u64, u64) {
        let t = self.totals();
        (t.tables - t.shared_tables, t.shared_slots)
    }

    fn fold(&mut self) {
        self.w.fold(self.head, ORDER).expect("memory");
        self.folio.folded = true;
        self.check();
    }

    fn unfold(&mut self) {
        let filled = self.w.unfold(self.head, ORDER, Fill::Tails);
        filled.expect("memory");
        self.folio.folded = false;
        self.check();
    }

    /// Unfolds with single frames only, from slot `from` on.
    fn unfold_to_singles(&mut self, from: u64) {
        self.w
            .m
            .fail(FailPoint::PageAlloc, Injection::Kth(from + 1));
        self.unfold();
        self.w.m.fail(FailPoint::PageAlloc, Injection::Never);
    }

    fn check(&self) {
        self.folio.check(&self.w.m, 61);
        self.w.check();
    }

    /// The words of the shared table.
    fn shared(&self) -> Vec<u64> {
        let table = self.w.vmemmap().existing_table(NodeId::ZERO, ORDER);
        let table = table.expect("something was folded");
        let word = |n: u64| self.w.m.read_phys(table.phys().offset(n * 8));
        (0..512).map(word).collect()
    }

    fn entry(&self, page: Page) -> PhysAddr {
        paging::walk(&self.w.m, self.w.m.root(), page.address()).at
    }

    /// A page in the middle of slot `n`.
    fn page_in(&self, n: u64, page: u64) -> Page {
        self.head.nth((n << 15) + page * 64 + 7)
    }
}

#[test]
fn a_leaf_or_a_table_makes_way() {
    let mut bed = Bed::new();
    let free = bed.w.free_pages();
    for from in [4, 0, 1, 2, 3] {
        bed.fold();
        assert_eq!(bed.tables(), (1, 3), "after {from}");
        let shared = bed.shared();
        bed.unfold_to_singles(from);
        assert_eq!(bed.tables(), (4 - from, 0), "slots that got no block");
        assert_eq!(bed.shared(), shared, "nobody writes it");
        let kept = bed.tables().0 + bed.totals().shared_tables + bed.totals().tails;
        assert_eq!(bed.w.free_pages() + kept, free, "after {from}");
    }
}

/// Without memory for the shared table each slot has its own, until the next fold.
#[test]
fn a_table_for_each_slot_will_do() {
    let mut bed = Bed::new();
    // The shared tail is the first allocation.
    bed.w.m.fail(FailPoint::PageAlloc, Injection::Kth(2));
    bed.fold();
    bed.w.m.fail(FailPoint::PageAlloc, Injection::Never);
    assert_eq!((bed.tables(), bed.totals().shared_tables), ((4, 0), 0));
    bed.unfold();
    assert_eq!(bed.tables(), (0, 0));
    bed.fold();
    assert_eq!((bed.tables(), bed.totals().shared_tables), ((1, 3), 1));
}

/// A store that fails, each in turn: leaves and tables are as they were.
#[test]
fn each_store_that_fails_is_undone() {
    for from in [4, 2, 0] {
        let mut bed = Bed::new();
        bed.fold();
        bed.unfold_to_singles(from);
        let level = |n: u64| {
            let at = bed.head.nth(n << 15).address();
            paging::walk(&bed.w.m, bed.w.m.root(), at)
        };
        let before: Vec<_> = (0..4).map(level).collect();
        let numbers = |t: Totals| (t.tables, t.shared_slots, t.pages, t.boot_pages, t.saved);
        let (free, was) = (bed.w.free_pages(), numbers(bed.totals()));
        // The head's slot has a table: 512 entries. The others are one store each.
        let stores = [(FailPoint::VmemmapPmd, 3), (FailPoint::VmemmapPte, 512)];
        for (point, count) in stores {
            for k in [1, 2, 3, 300, 512].into_iter().filter(|k| *k <= count) {
                if from > 0 && point == FailPoint::VmemmapPte {
                    continue;
                }
                // Where the head's slot is a leaf, too, its store comes first.
                let k = k + u64::from(from > 0);
                bed.w.m.fail(point, Injection::Kth(k));
                let result = bed.w.fold(bed.head, ORDER);
                bed.w.m.fail(point, Injection::Never);
                assert_eq!(result, Err(HvoError::Injected), "{from}, {point:?} {k}");
                bed.check();
                if from == 0 {
                    let now: Vec<_> = (0..4).map(level).collect();
                    assert_eq!(now, before, "{point:?} {k}");
                    assert_eq!(bed.w.free_pages(), free, "{point:?} {k}");
                    assert_eq!(numbers(bed.totals()), was, "{point:?} {k}");
                } else {
                    // The table that took the place of the head's leaf stays.
                    let now: Vec<_> = (1..4).map(level).collect();
                    assert_eq!(now, before[1..], "{point:?} {k}");
                    break;
                }
            }
        }
        bed.fold();
        assert_eq!(bed.tables(), (1, 3));
    }
}

/// A single frame that is missing, tables included: nothing has changed.
#[test]
fn unfolding_to_single_frames_is_all_or_nothing() {
    let mut bed = Bed::new();
    bed.fold();
    let held = std::mem::take(&mut *bed.w.env().take_all_but(2051).expect("memory"));
    let t = bed.totals();
    // All frames but the head's, and a table for each of three slots.
    for k in [1, 512, 2047, 2048, 2049, 2050] {
        let free = bed.w.free_pages();
        // A block for a whole slot is asked for first, in vain.
        bed.w.m.fail(FailPoint::PageAlloc, Injection::Kth(1 + k));
        let result = bed.w.unfold(bed.head, ORDER, Fill::Tails);
        bed.w.m.fail(FailPoint::PageAlloc, Injection::Never);
        assert_eq!(result, Err(HvoError::NoMemory), "frame {k}");
        assert_eq!(bed.w.free_pages(), free, "frame {k}");
        let now = bed.totals();
        assert_eq!(
            (now.tables, now.shared_slots, now.pages),
            (t.tables, t.shared_slots, t.pages)
        );
        bed.check();
    }
    bed.unfold();
    assert_eq!(bed.tables(), (4, 0));
    for (block, order) in held {
        bed.w.env().free(block, order);
    }
}

/// Copy-on-write of a page of memmap whose slot shares its table: the slot gets its own.
#[test]
fn unsharing_a_page_leaves_the_shared_table_alone() {
    let mut bed = Bed::new();
    bed.fold();
    let (m, nodes) = (&bed.w.m, &bed.w.mm.nodes);
    let shared = bed.shared();
    let mark = |on| {
        let flags = bed.head.flags(m);
        bed.head.set_flags(
            m,
            match on {
                true => flags.with(Flags::HAS_HWPOISONED),
                false => flags.without(Flags::HAS_HWPOISONED),
            },
        );
    };
    mark(true);
    let unshare = |page| bed.w.vmemmap().unshare_page(m, nodes, bed.head, page);
    let (free, pages) = (bed.w.free_pages(), bed.totals().pages);
    // A frame for the page, one for the table.
    for k in [1, 2] {
        m.fail(FailPoint::PageAlloc, Injection::Kth(k));
        assert_eq!(unshare(bed.page_in(2, 100)), Err(HvoError::NoMemory));
        m.fail(FailPoint::PageAlloc, Injection::Never);
        assert_eq!((bed.w.free_pages(), bed.tables()), (free, (1, 3)));
    }
    m.fail(FailPoint::VmemmapPte, Injection::Kth(1));
    assert_eq!(unshare(bed.page_in(2, 100)), Err(HvoError::Injected));
    m.fail(FailPoint::VmemmapPte, Injection::Never);
    assert_eq!((bed.w.free_pages(), bed.tables()), (free, (1, 3)));
    bed.w.check();

    let made = [
        (2, 100, (2, 2)),
        (2, 101, (2, 2)),
        (3, 0, (3, 1)),
        (3, 511, (3, 1)),
    ];
    for (n, (slot, page, tables)) in (1..).zip(made) {
        let page = bed.page_in(slot, page);
        assert_eq!(unshare(page), Ok(true));
        // Every CPU may write what it read, at once.
        for cpu in 0..m.cpus() {
            m.on_cpu(cpu, || page.set_mapping(m, page.mapping(m)));
        }
        assert_eq!(unshare(page), Ok(false), "it has one");
        assert_eq!(bed.tables(), tables);
        assert_eq!((bed.totals().unshared, bed.totals().pages), (n, pages + n));
        let frames = bed.w.free_pages() + tables.0 - 1 + n;
        assert_eq!(frames, free, "a table once a slot");
        bed.w.check();
    }
    assert_eq!(bed.shared(), shared, "nobody writes it");
    let entry = bed.entry(bed.page_in(1, 100));
    assert_ne!(entry.pfn(), bed.entry(bed.page_in(2, 100)).pfn());

    let reshared = bed
        .w
        .vmemmap()
        .reshare_page(m, nodes, bed.head, bed.page_in(2, 101));
    assert_eq!(reshared, Ok(true));
    bed.w.check();
    bed.w.unfold(bed.head, ORDER, Fill::Tails).expect("memory");
    mark(false);
    assert_eq!((bed.tables(), bed.totals().unshared), ((0, 0), 0));
    assert_eq!(bed.shared(), shared, "nobody writes it");
    bed.folio.folded = false;
    bed.check();
}

/// A table for each node and order that needs one, and it stays.
#[test]
fn one_for_each_node_and_order() {
    let w = World::builder().ram(0, 1, 1536).ram(1, 1536, 3072).boot();
    let orders = [15, 16, 17].map(Order::of);
    let mut made = Vec::new();
    for _ in 0..2 {
        for (node, order) in [0, 1]
            .into_iter()
            .flat_map(|node| orders.map(|o| (node, o)))
        {
            let head = w.compound(node, order, true).expect("memory");
            w.fold(head, order).expect("memory");
            w.check();
            let table = w.vmemmap().existing_table(NodeId::of(node), order);
            assert_eq!(table.is_some(), order > Order::of(15), "{order}");
            made.extend(table);
            w.unfold(head, order, Fill::Unused).expect("memory");
            w.release(head, order);
            w.check();
        }
    }
    let (first, again) = made.split_at(4);
    assert_eq!(first, again, "the same as before");
    assert_eq!(w.vmemmap().ledger().totals().shared_tables, 4);
    assert_eq!(w.vmemmap().ledger().totals().tables, 4);
    let node = NodeId::of(1);
    for order in [15, 14, 7, 0].map(Order::of) {
        let table = w.vmemmap().shared_table(&w.m, &w.mm.nodes, node, order);
        assert_eq!(table, None, "{order}");
    }
}

/// Folded blocks of several slots become smaller ones, of several slots, of one and of
/// less, and back.
#[test]
fn demotion_gives_tables_where_heads_are() {
    for (to, own, shared) in [(16, 2, 2), (15, 4, 0), (9, 4, 0)] {
        let mut bed = Bed::new();
        bed.fold();
        let to = Order::of(to);
        let (m, w) = (&bed.w.m, &bed.w);
        let large = bed.shared();
        let before = bed.tables();
        let mut list = mm::page::PageList::new();
        list.push(m, bed.head);
        let done = w.vmemmap().demote_folios(m, &w.mm.nodes, &list, ORDER, to);
        list.pop(m);
        assert_eq!((done, bed.tables()), (1, (own, shared)), "to {to}");
        w.check();
        for n in 0..ORDER.pages() / to.pages() {
            let part = Folio {
                head: bed.head.nth(n * to.pages()).address(),
                order: to.get(),
                ..bed.folio.clone()
            };
            part.check(m, 61);
        }
        let promoted = w
            .vmemmap()
            .promote_folio(m, &w.mm.nodes, bed.head, ORDER, to);
        assert_eq!(promoted, Ok(()), "to {to}");
        assert_eq!((bed.tables(), bed.shared()), (before, large), "to {to}");
        bed.check();
        bed.unfold();
    }
}

/// Memory for no shared table, at either end: own ones, or a refusal.
#[test]
fn demotion_without_a_shared_table() {
    let mut bed = Bed::new();
    bed.fold();
    let to = Order::of(16);
    let (m, w) = (&bed.w.m, &bed.w);
    let mut list = mm::page::PageList::new();
    list.push(m, bed.head);
    // The small order's shared tail first, then its table.
    m.fail(FailPoint::PageAlloc, Injection::Kth(2));
    let done = w.vmemmap().demote_folios(m, &w.mm.nodes, &list, ORDER, to);
    m.fail(FailPoint::PageAlloc, Injection::Never);
    list.pop(m);
    assert_eq!((done, bed.tables()), (1, (4, 0)), "each slot its own");
    w.check();
    let promoted = w
        .vmemmap()
        .promote_folio(m, &w.mm.nodes, bed.head, ORDER, to);
    assert_eq!((promoted, bed.tables()), (Ok(()), (1, 3)));
    bed.check();
    bed.unfold();

    // Small ones that share, and no table yet for the large order.
    let w = World::builder().ram(0, 1, 2048).boot();
    let (m, nodes) = (&w.m, &w.mm.nodes);
    let parts: Vec<Page> = core::iter::from_fn(|| w.compound(0, to, true)).collect();
    let block = parts.iter().copied().find(|part| {
        let aligned = w.memmap().pfn(*part).is_aligned(ORDER);
        aligned && parts.contains(&part.nth(to.pages()))
    });
    let block = block.expect("two that are one");
    for part in [block, block.nth(to.pages())] {
        w.fold(part, to).expect("memory");
    }
    let free = w.free_pages();
    m.fail(FailPoint::PageAlloc, Injection::Kth(2));
    let promoted = w.vmemmap().promote_folio(m, nodes, block, ORDER, to);
    m.fail(FailPoint::PageAlloc, Injection::Never);
    assert_eq!(promoted, Err(HvoError::NoMemory));
    assert_eq!(w.free_pages() + 1, free, "the shared tail stays");
    w.check();
    let promoted = w.vmemmap().promote_folio(m, nodes, block, ORDER, to);
    assert_eq!(promoted, Ok(()));
    w.check();
    let entry = paging::walk(m, m.root(), block.address().offset(PAGE_SIZE * 512));
    assert_eq!(entry.level, Level::Pte);
    let table = w.vmemmap().existing_table(NodeId::ZERO, ORDER);
    assert_eq!(Some(entry.at.pfn()), table);
}
