//! Random histories: blocks of all orders come and go, are folded and unfolded,
//! alone and in batches, pools grow and shrink, allocations and stores fail, CPUs
//! speculate. After each step the audit runs, every struct page of every block is
//! compared with what it should be, as every CPU sees it, held memory must hold
//! what was written, and not a frame may be missing.

use mm::addr::{NodeId, Order, Pfn};
use mm::frames::{FrameSource, Placement};
use mm::machine::{FailPoint, Memory as _};
use mm::page::{self, Page, PageList};
use mm::vmemmap::{Fill, HvoError};
use proptest::prelude::*;
use testkit::records::{self, Folio};
use testkit::{Injection, World};

/// One step. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A new block; with `tails` written, or folded at once without ever writing
    /// them, as the pools do it.
    Alloc {
        order: u8,
        node: u8,
        tails: bool,
    },
    Fold(usize),
    Unfold(usize),
    /// Unfolds as far as needed, and frees.
    Free(usize),
    /// Every block of the order, with one flush.
    FoldAll(u8),
    UnfoldAll(u8),
    /// Writes to head and first tails of a block.
    Mark(usize, u64),
    /// Takes single pages, writes into them and keeps them.
    Hold {
        node: u8,
        pages: usize,
    },
    /// Gives some of the held pages back, the oldest first.
    Drop {
        pages: usize,
    },
    /// Huge pages for the pool.
    Grow {
        node: Option<u8>,
        count: u64,
        fold: bool,
    },
    Shrink {
        count: u64,
    },
}

/// A failure that lies in wait for a step.
#[derive(Clone, Copy, Debug)]
struct Trap {
    point: FailPoint,
    /// Which hit fails; all from there on if `rest`.
    nth: u64,
    rest: bool,
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly what shares slots with its neighbours, sometimes whole slots.
    let order = prop_oneof![4 => 7u8..=10, 1 => 11u8..=14, 1 => Just(15u8), 1 => 1u8..=6];
    let foldable = prop_oneof![7u8..=10, Just(15u8)];
    prop_oneof![
        6 => (order, 0u8..2, any::<bool>())
            .prop_map(|(order, node, tails)| Step::Alloc { order, node, tails }),
        6 => any::<usize>().prop_map(Step::Fold),
        4 => any::<usize>().prop_map(Step::Unfold),
        4 => any::<usize>().prop_map(Step::Free),
        1 => foldable.clone().prop_map(Step::FoldAll),
        1 => foldable.prop_map(Step::UnfoldAll),
        2 => (any::<usize>(), 1u64..).prop_map(|(which, mark)| Step::Mark(which, mark)),
        2 => (0u8..2, 1usize..80).prop_map(|(node, pages)| Step::Hold { node, pages }),
        2 => (1usize..80).prop_map(|pages| Step::Drop { pages }),
        1 => (proptest::option::of(0u8..2), 1u64..20, any::<bool>())
            .prop_map(|(node, count, fold)| Step::Grow { node, count, fold }),
        1 => (1u64..30).prop_map(|count| Step::Shrink { count }),
    ]
}

fn trap() -> impl Strategy<Value = Trap> {
    let point = prop_oneof![
        3 => Just(FailPoint::PageAlloc),
        1 => Just(FailPoint::VmemmapPte),
        1 => Just(FailPoint::VmemmapPmd),
    ];
    (point, 1u64..12, any::<bool>()).prop_map(|(point, nth, rest)| Trap { point, nth, rest })
}

struct Block {
    head: Page,
    order: Order,
    folio: Folio,
}

struct History {
    w: World,
    blocks: Vec<Block>,
    held: Vec<(Pfn, u64)>,
    /// All frames that change hands: never more, never fewer.
    owned: u64,
    next_mark: u64,
}

impl History {
    /// `one_size`: two sizes of one address in a TLB are a machine check.
    fn new(seed: u64, one_size: bool) -> Self {
        let builder = World::builder()
            .ram(0, 1, 384)
            .ram(1, 384, 576)
            .ram(1, 768, 960)
            .eviction(0.01, seed);
        let w = if one_size {
            builder.multi_hit(false).boot()
        } else {
            builder.boot()
        };
        let mut history = Self {
            w,
            blocks: Vec::new(),
            held: Vec::new(),
            owned: 0,
            next_mark: 1,
        };
        history.owned = history.count();
        history.check();
        history
    }

    /// All of `steps`, and then everything goes back.
    fn tell(mut self, steps: &[(Step, Option<Trap>)]) {
        for (step, trap) in steps {
            self.run(step, *trap);
            self.check();
        }
        self.end();
    }

    /// Half of the time nothing is cached to begin with; then CPUs cache what the
    /// step is working on at the very moment they can see it.
    fn provoke(&self, step: &Step) {
        let all = self.w.window();
        let which = match step {
            Step::Fold(which) | Step::Unfold(which) | Step::Free(which) => *which,
            _ => return self.w.m.speculate(all, 0.02, self.next_mark),
        };
        let len = self.blocks.len().max(1);
        let Some(block) = self.blocks.get(which % len) else {
            return;
        };
        if which & (1 << 20) == 0 {
            self.w.m.evict_all();
        }
        let range = block
            .head
            .address()
            .range(block.order.pages() * records::RECORD);
        self.w.m.speculate(range, 0.5, which as u64);
    }

    fn run(&mut self, step: &Step, trap: Option<Trap>) {
        self.provoke(step);
        let m = &self.w.m;
        if let Some(Trap { point, nth, rest }) = trap {
            m.fail(
                point,
                if rest {
                    Injection::From(nth)
                } else {
                    Injection::Kth(nth)
                },
            );
        }
        self.take_step(step, trap);
        for point in [
            FailPoint::PageAlloc,
            FailPoint::VmemmapPte,
            FailPoint::VmemmapPmd,
        ] {
            self.w.m.fail(point, Injection::Never);
        }
    }

    /// Whether the failure that lay in wait has struck.
    fn failed(&self, trap: Option<Trap>) -> bool {
        trap.is_some_and(|trap| self.w.m.hits(trap.point).1 > 0)
    }

    fn take_step(&mut self, step: &Step, trap: Option<Trap>) {
        match *step {
            Step::Alloc { order, node, tails } => self.alloc(order, node, tails, trap),
            Step::Fold(which) => self.fold(which, trap),
            Step::Unfold(which) => self.unfold(which, trap),
            Step::Free(which) => self.free(which, trap),
            Step::FoldAll(order) => self.fold_all(Order::of(order), trap),
            Step::UnfoldAll(order) => self.unfold_all(Order::of(order), trap),
            Step::Mark(which, mark) => {
                let m = &self.w.m;
                let len = self.blocks.len().max(1);
                if let Some(block) = self.blocks.get_mut(which % len)
                    && block.order >= Order::of(6)
                {
                    m.on_cpu(which % 2, || block.folio.write_mark(m, mark));
                }
            }
            Step::Hold { node, pages } => self.hold(node, pages),
            Step::Drop { pages } => {
                for (pfn, _) in self.held.drain(..pages.min(self.held.len())) {
                    self.w.mm.nodes.free(&self.w.m, pfn, Order::PAGE);
                }
            }
            Step::Grow { node, count, fold } => self.grow(node, count, fold, trap),
            Step::Shrink { count } => self.shrink(count, trap),
        }
    }

    fn alloc(&mut self, order: u8, node: u8, tails: bool, trap: Option<Trap>) {
        let order = Order::of(order);
        // Blocks that cannot be folded get their tails at once.
        let tails = tails || order < Order::of(7);
        let Some(head) = self.w.compound(node, order, tails) else {
            return;
        };
        let at = head.address();
        let folio = Folio {
            head: at,
            node,
            order: order.get(),
            folded: false,
            tails,
            mark: 0,
        };
        self.blocks.push(Block { head, order, folio });
        if !tails {
            let last = self.blocks.len() - 1;
            self.fold(last, trap);
            let folio = &mut self.blocks[last].folio;
            if !folio.folded {
                page::prep_compound_tails(&self.w.m, head, order);
                folio.tails = true;
            }
        }
    }

    fn fold(&mut self, which: usize, trap: Option<Trap>) {
        let len = self.blocks.len().max(1);
        let Some(block) = self.blocks.get_mut(which % len) else {
            return;
        };
        let free = self.w.free_pages();
        let result = self.w.fold(block.head, block.order);
        let expected = if block.order < Order::of(7) {
            Err(HvoError::OrderOutOfBounds(block.order.get()))
        } else if block.folio.folded {
            Err(HvoError::AlreadyOptimized)
        } else {
            Ok(())
        };
        if result == Err(HvoError::NoMemory) || result == Err(HvoError::Injected) {
            assert_eq!(expected, Ok(()));
            let (struck, free_now) = (self.failed(trap), self.w.free_pages());
            assert!(struck || free < 8, "{result:?} out of nowhere");
            // A new shared tail page may stay.
            assert!(
                free - free_now <= 2,
                "{} pages are missing",
                free - free_now
            );
            return;
        }
        assert_eq!(result, expected);
        block.folio.folded |= result.is_ok();
        block.folio.tails |= result.is_ok();
    }

    fn unfold(&mut self, which: usize, trap: Option<Trap>) {
        let len = self.blocks.len().max(1);
        let Some(block) = self.blocks.get_mut(which % len) else {
            return;
        };
        let free = self.w.free_pages();
        match self.w.unfold(block.head, block.order, Fill::Tails) {
            Ok(()) => block.folio.folded = false,
            Err(error) => {
                assert_eq!(error, HvoError::NoMemory);
                let free_now = self.w.free_pages();
                assert_eq!(free, free_now, "a failed restore keeps nothing");
                assert!(
                    self.failed(trap) || free < 4096,
                    "out of memory out of nowhere"
                );
            }
        }
    }

    fn free(&mut self, which: usize, trap: Option<Trap>) {
        let len = self.blocks.len().max(1);
        let Some(block) = self.blocks.get_mut(which % len) else {
            return;
        };
        let was_folded = block.folio.folded;
        if let Err(error) = self.w.unfold(block.head, block.order, Fill::Unused) {
            assert_eq!(error, HvoError::NoMemory);
            assert!(self.failed(trap) || self.w.free_pages() < 4096);
            return;
        }
        let mut block = self.blocks.swap_remove(which % len);
        if block.order >= Order::of(6) {
            block.folio.write_mark(&self.w.m, 0);
        }
        if was_folded {
            self.w.release(block.head, block.order);
        } else {
            self.w.dissolve(block.head, block.order);
        }
    }

    fn batch(&mut self, order: Order) -> PageList {
        let mut list = PageList::new();
        for block in self.blocks.iter().filter(|block| block.order == order) {
            list.push(&self.w.m, block.head);
        }
        list
    }

    fn empty(&self, mut list: PageList) {
        while list.pop(&self.w.m).is_some() {}
    }

    fn fold_all(&mut self, order: Order, trap: Option<Trap>) {
        let list = self.batch(order);
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let before = self.rounds();
        let folded = self.w.vmemmap().optimize_folios(m, nodes, &list, order);
        let failed = self.failed(trap);
        assert!(
            failed || self.rounds() - before <= 1,
            "one flush for a batch"
        );
        self.empty(list);
        let mut now = 0;
        for block in self.blocks.iter_mut().filter(|block| block.order == order) {
            let is_folded = mm::vmemmap::is_optimized(&self.w.m, block.head);
            assert!(
                is_folded || !block.folio.folded,
                "a batch unfolded {:?}",
                block.head
            );
            assert!(is_folded || failed || self.w.mm.nodes.total_free(&self.w.m) < 8);
            now += u64::from(is_folded && !block.folio.folded);
            block.folio.folded = is_folded;
            block.folio.tails |= is_folded;
        }
        assert_eq!(folded, now, "optimize_folios miscounts");
    }

    fn unfold_all(&mut self, order: Order, trap: Option<Trap>) {
        let list = self.batch(order);
        let (m, nodes, len) = (&self.w.m, &self.w.mm.nodes, list.len());
        let vmemmap = self.w.vmemmap();
        let done = vmemmap.restore_folios(m, nodes, &list, order, Fill::Tails);
        assert!(done == len || self.failed(trap) || self.w.free_pages() < 4096);
        // From the front on, which is the order in which they were pushed, reversed.
        let mut next = list.first();
        let mut restored = Vec::new();
        for _ in 0..done {
            let head = next.expect("as many as were counted");
            restored.push(head);
            next = list.next(m, head);
        }
        self.empty(list);
        for block in &mut self.blocks {
            if restored.contains(&block.head) {
                block.folio.folded = false;
            }
        }
    }

    /// Rounds of flushing so far: each CPU takes part in each.
    fn rounds(&self) -> u64 {
        self.w.vmemmap().ledger().totals().flushes
    }

    fn hold(&mut self, node: u8, pages: usize) {
        let placement = Placement::Only(NodeId::of(node));
        for _ in 0..pages {
            let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
            let Some(pfn) = nodes.alloc(m, Order::PAGE, placement) else {
                break;
            };
            let mark = self.next_mark;
            self.next_mark += 1;
            m.fill_words(pfn.phys(), mark, 512);
            self.held.push((pfn, mark));
        }
    }

    fn grow(&mut self, node: Option<u8>, count: u64, fold: bool, trap: Option<Trap>) {
        let hugetlb = &self.w.mm.hugetlb;
        let h = hugetlb
            .hstate(Order::PMD)
            .expect("every CPU has 2 MiB pages");
        let before = h.total(&self.w.m).nr;
        hugetlb.set_optimize(fold);
        let node = node.map(NodeId::of);
        let added = hugetlb.grow(&self.w.m, self.w.mm.backing(), h, node, count);
        assert!(added <= count);
        assert_eq!(h.total(&self.w.m).nr, before + added);
        let said = self
            .w
            .m
            .take_log()
            .iter()
            .any(|(_, line)| line.contains("Only allocated"));
        assert_eq!(
            said,
            added < count,
            "what does not fit is said, and nothing else"
        );
        assert!(
            added == count || self.failed(trap) || self.is_tight(),
            "{added} of {count}"
        );
    }

    /// Whether some node has too little left for huge pages.
    fn is_tight(&self) -> bool {
        let nodes = &self.w.mm.nodes;
        nodes
            .online()
            .any(|node| nodes.get(node).free_pages(&self.w.m) < 20_000)
    }

    fn shrink(&mut self, count: u64, trap: Option<Trap>) {
        let hugetlb = &self.w.mm.hugetlb;
        let h = hugetlb
            .hstate(Order::PMD)
            .expect("every CPU has 2 MiB pages");
        let before = h.total(&self.w.m).nr;
        let removed = hugetlb.shrink(&self.w.m, self.w.mm.backing(), h, None, count);
        let now = h.total(&self.w.m);
        assert_eq!(now.nr, before - removed);
        assert_eq!(now.free, now.nr, "nobody took any");
        assert!(
            removed == count.min(before) || self.failed(trap),
            "{removed} of {count}"
        );
        assert!(now.surplus <= now.nr);
    }

    /// Frames by owner, added up.
    fn count(&self) -> u64 {
        let totals = self.w.vmemmap().ledger().totals();
        let hugetlb = self
            .w
            .mm
            .hugetlb
            .hstate(Order::PMD)
            .map_or(0, |h| h.total(&self.w.m).nr);
        let blocks: u64 = self.blocks.iter().map(|block| block.order.pages()).sum();
        self.w.free_pages()
            + blocks
            + self.held.len() as u64
            + hugetlb * Order::PMD.pages()
            + totals.boot_pages
            + totals.pages
            + totals.tables
            + totals.tails
    }

    fn check(&self) {
        self.w.check();
        assert_eq!(self.count(), self.owned, "frames got lost, or too many");
        for (pfn, mark) in &self.held {
            for word in [0, 1, 511] {
                let found = self.w.m.read_phys(pfn.phys().offset(word * 8));
                assert_eq!(found, *mark, "word {word} of {pfn:?}");
            }
        }
        for block in &self.blocks {
            // Other ones in each page of memmap, and in several.
            block.folio.check(&self.w.m, 61);
        }
        assert_eq!(
            mm::paging::unspent_flushes(),
            0,
            "a flush was owed and dropped"
        );
    }

    /// Frees everything: the machine is then as it was, but for tables and tails.
    fn end(mut self) {
        while !self.blocks.is_empty() {
            self.run(&Step::Free(0), None);
        }
        self.run(&Step::Drop { pages: usize::MAX }, None);
        self.run(&Step::Shrink { count: u64::MAX }, None);
        self.check();
        let totals = self.w.vmemmap().ledger().totals();
        assert_eq!((totals.folded, totals.saved), (0, 0));
    }
}

/// Two halves, so that two CPUs do not wait for one, and fewer where the memmap is mapped by 4 KiB
/// pages from boot on, since pages may not change size.
macro_rules! histories {
    ($($name:ident: $seed:literal, $cases:literal, $multi_hit:literal;)*) => { $(
        proptest! {
            #![proptest_config(testkit::same_from($seed, $cases))]

            #[test]
            fn $name(
                seed in any::<u64>(),
                steps in prop::collection::vec(
                    (step(), prop::option::weighted(0.3, trap())), 1..50),
            ) {
                History::new(seed, $multi_hit).tell(&steps);
            }
        }
    )* };
}

histories! {
    every_step_leaves_everything_in_order: 0x7a11_f01d, 24, false;
    every_step_leaves_everything_in_order_too: 0x7a11_f01e, 24, false;
    so_does_it_where_sizes_never_change: 383, 16, true;
}
