//! Random histories of a memdesc map, against a model: blocks of all kinds come and go,
//! are folded and unfolded, pages break or become exclusive, allocations and stores
//! fail, CPUs speculate. After each step the audit runs, every page is compared with
//! the model as every CPU sees it, and not a frame may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use lab::memdesc::{
    Bare, DEFAULT_BASE, Descriptor, Folio, MemdescError, MemdescMap, Page, Page8, Page16, Page32,
    Page64, PageFlags, Ptdesc, Slab, StructPage,
};
use mm::addr::{Order, Pfn};
use mm::frames::Placement;
use mm::machine::{FailPoint, Memory as _};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use testkit::{Injection, World};

/// Order of the map: 16 MiB.
const MAP: u8 = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Anon(Folio),
    File(Folio),
    Slab(Slab),
    Ptdesc(Ptdesc),
    Bare(Bare),
}

/// One step. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Alloc {
        kind: u8,
        order: u8,
    },
    /// A reference by some page of a block.
    Get(usize, u64),
    /// Drops one by some page; what has no count is freed.
    Put(usize, u64),
    Fold(usize),
    Unfold(usize),
    Poison(u64),
    Reserve(u64),
    Exclusive(usize, u64, bool),
}

#[derive(Clone, Copy, Debug)]
struct Trap {
    point: FailPoint,
    nth: u64,
    rest: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![2 => 0u8..=6, 4 => 7u8..=11, 1 => Just(MAP)];
    prop_oneof![
        6 => (0u8..5, order).prop_map(|(kind, order)| Step::Alloc { kind, order }),
        2 => any::<(usize, u64)>().prop_map(|(which, page)| Step::Get(which, page)),
        6 => any::<(usize, u64)>().prop_map(|(which, page)| Step::Put(which, page)),
        6 => any::<usize>().prop_map(Step::Fold),
        3 => any::<usize>().prop_map(Step::Unfold),
        1 => any::<u64>().prop_map(Step::Poison),
        1 => any::<u64>().prop_map(Step::Reserve),
        4 => any::<(usize, u64, bool)>().prop_map(|(which, page, on)| Step::Exclusive(which, page, on)),
    ]
}

fn trap() -> impl Strategy<Value = Trap> {
    let point = prop_oneof![3 => Just(FailPoint::PageAlloc), 1 => Just(FailPoint::VmemmapPte)];
    (point, 1u64..12, any::<bool>()).prop_map(|(point, nth, rest)| Trap { point, nth, rest })
}

/// A block of the model. Pages and frames are numbered from the map's start.
#[derive(Clone, Debug)]
struct Block {
    what: What,
    order: u8,
    refs: u32,
    /// Frames of memmap that share.
    shared: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Model {
    blocks: BTreeMap<u64, Block>,
    /// Free blocks that are folded: order, frames that share.
    folded: BTreeMap<u64, (u8, BTreeSet<u64>)>,
    poisoned: BTreeSet<u64>,
    reserved: BTreeSet<u64>,
    exclusive: BTreeSet<u64>,
}

impl Model {
    fn owner(&self, page: u64) -> Option<(u64, &Block)> {
        let (first, block) = self.blocks.range(..=page).next_back()?;
        (page < first + (1 << block.order)).then_some((*first, block))
    }

    fn is_free(&self, page: u64) -> bool {
        let withheld = self.poisoned.contains(&page) || self.reserved.contains(&page);
        self.owner(page).is_none() && !withheld
    }

    fn lowest_free(&self, order: u8) -> Option<u64> {
        let size = 1 << order;
        (0..1 << MAP)
            .step_by(size)
            .find(|first| (*first..first + size as u64).all(|page| self.is_free(page)))
    }

    fn folded_in(&self, first: u64, order: u8) -> Vec<u64> {
        let end = first + (1 << order);
        let meets = |(at, (order, _)): (&u64, &(u8, BTreeSet<u64>))| {
            (*at < end && first < at + (1 << order)).then_some(*at)
        };
        self.folded.iter().filter_map(meets).collect()
    }

    /// Frame `frame` gets a page that differs from the others of its block.
    fn dirty(&mut self, page: u64, frame: u64) {
        let unshare = |shared: &mut BTreeSet<u64>| {
            if shared.contains(&frame) {
                if shared.len() <= 2 {
                    shared.clear();
                } else {
                    shared.remove(&frame);
                }
            }
        };
        for (first, block) in &mut self.blocks {
            if (*first..first + (1 << block.order)).contains(&page) {
                unshare(&mut block.shared);
            }
        }
        self.folded.retain(|first, (order, shared)| {
            if (*first..*first + (1 << *order)).contains(&page) {
                unshare(shared);
            }
            !shared.is_empty()
        });
    }

    /// Frames saved, and folded blocks.
    fn saved(&self) -> (u64, u64) {
        let used = self.blocks.values().map(|block| &block.shared);
        let shared = used.chain(self.folded.values().map(|(_, shared)| shared));
        shared
            .filter(|shared| !shared.is_empty())
            .fold((0, 0), |(saved, folded), shared| {
                (saved + shared.len() as u64 - 1, folded + 1)
            })
    }
}

struct History<L: StructPage> {
    w: World,
    map: MemdescMap<L>,
    model: Model,
    /// Frames that change hands: never more, never fewer.
    owned: u64,
    /// Struct pages in a frame, and the smallest order to fold, known here by heart.
    per_frame: u64,
    least: u8,
    steps: usize,
}

fn memmap<L: StructPage>(map: &MemdescMap<L>) -> mm::addr::VirtRange {
    let range = map.range();
    mm::addr::VirtRange {
        start: map.page(range.start).address(),
        end: map.page(range.end).address(),
    }
}

impl<L: StructPage> History<L> {
    fn new(seed: u64) -> Self {
        let w = World::builder()
            .ram(0, 1, 64)
            .ram(1, 64, 128)
            .eviction(0.01, seed)
            .boot();
        let placement = Placement::Only(mm::addr::NodeId::of(1));
        let (nodes, kernel) = (&w.mm.nodes, w.memmap());
        let map = MemdescMap::new(&w.m, nodes, kernel, DEFAULT_BASE, Order::of(MAP), placement)
            .expect("enough memory");
        w.m.speculate(memmap(&map), 0.05, seed);
        let (per_frame, least) = match size_of_page::<L>() {
            64 => (64, 7),
            32 => (128, 8),
            16 => (256, 9),
            8 => (512, 10),
            size => panic!("no model for {size} bytes"),
        };
        let mut history = Self {
            w,
            map,
            model: Model::default(),
            owned: 0,
            per_frame,
            least,
            steps: 0,
        };
        history.owned = history.count();
        history.check();
        history
    }

    fn count(&self) -> u64 {
        let totals = self.map.totals(&self.w.m);
        self.w.free_pages() + totals.frames + totals.descriptor_frames
    }

    fn page(&self, n: u64) -> Page<L> {
        self.map.page(self.map.range().start.offset(n))
    }

    fn number(&self, pfn: Pfn) -> u64 {
        pfn.as_u64() - self.map.range().start.as_u64()
    }

    fn pick(&self, which: usize) -> Option<u64> {
        let len = self.model.blocks.len().max(1);
        self.model.blocks.keys().nth(which % len).copied()
    }

    fn run(&mut self, step: &Step, trap: Option<Trap>) {
        if let Some(Trap { point, nth, rest }) = trap {
            let plan = if rest {
                Injection::From(nth)
            } else {
                Injection::Kth(nth)
            };
            self.w.m.fail(point, plan);
        }
        self.steps += 1;
        let cpu = self.steps % 2;
        match *step {
            Step::Alloc { kind, order } => self.alloc(cpu, kind, order, trap),
            Step::Get(which, page) => self.get(which, page),
            Step::Put(which, page) => self.put(which, page),
            Step::Fold(which) => self.fold(cpu, which, trap),
            Step::Unfold(which) => self.unfold(which, trap),
            Step::Poison(page) => self.poison(page % (1 << MAP), trap),
            Step::Reserve(page) => self.reserve(page % (1 << MAP), trap),
            Step::Exclusive(which, page, on) => self.exclusive(which, page, on, trap),
        }
        for point in [FailPoint::PageAlloc, FailPoint::VmemmapPte] {
            self.w.m.fail(point, Injection::Never);
        }
    }

    fn struck(&self, trap: Option<Trap>) -> bool {
        trap.is_some_and(|trap| self.w.m.hits(trap.point).1 > 0)
    }

    fn alloc(&mut self, cpu: usize, kind: u8, order: u8, trap: Option<Trap>) {
        let (m, nodes, map) = (&self.w.m, &self.w.mm.nodes, &self.map);
        let of = Order::of(order);
        let result = m.on_cpu(cpu, || match kind {
            0 => map.alloc_folio(m, nodes, of).map(What::Anon),
            1 => map.alloc_file_folio(m, nodes, of).map(What::File),
            2 => map.alloc_slab(m, nodes, of).map(What::Slab),
            3 => map.alloc_ptdesc(m, nodes, of).map(What::Ptdesc),
            _ => map.alloc_bare(m, nodes, of).map(What::Bare),
        });
        let first = self.model.lowest_free(order);
        let what = match (result, first) {
            (Ok(what), _) => what,
            (Err(MemdescError::NoSpace(_)), None) => return,
            (Err(MemdescError::NoMemory), Some(first)) => {
                assert!(self.struck(trap), "out of memory out of nowhere");
                // Some of what was in the way may have been unfolded before that.
                for at in self.model.folded_in(first, order) {
                    let pages = 1 << self.model.folded[&at].0;
                    let page = (at..at + pages).find(|page| self.model.is_free(*page));
                    let page = self.page(page.expect("a free block"));
                    if self
                        .map
                        .page_memdesc(&self.w.m, page)
                        .folded_order()
                        .is_none()
                    {
                        self.model.folded.remove(&at);
                    }
                }
                return;
            }
            (Err(error), first) => panic!("{error}, and the model has {first:?}"),
        };
        let pfn = match what {
            What::Anon(folio) | What::File(folio) => folio.pfn(m),
            What::Slab(slab) => slab.pfn(m),
            What::Ptdesc(ptdesc) => ptdesc.pfn(m),
            What::Bare(bare) => bare.pfn(m),
        };
        let first = first.expect("the model has none free");
        assert_eq!(self.number(pfn), first, "the lowest free block");
        let mut shared = BTreeSet::new();
        for at in self.model.folded_in(first, order) {
            let folded = self.model.folded.remove(&at).expect("just found");
            if folded.0 == order {
                shared = folded.1;
            }
        }
        let refs = u32::from(!matches!(what, What::Slab(_) | What::Ptdesc(_)));
        self.model.blocks.insert(
            first,
            Block {
                what,
                order,
                refs,
                shared,
            },
        );
    }

    fn some_page(&self, first: u64, page: u64) -> Page<L> {
        self.page(first + page % (1 << self.model.blocks[&first].order))
    }

    fn get(&mut self, which: usize, page: u64) {
        let Some(first) = self.pick(which) else {
            return;
        };
        let page = self.some_page(first, page);
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let block = self.model.blocks.get_mut(&first).expect("picked");
        match block.what {
            What::Anon(folio) | What::File(folio) => {
                assert_eq!(self.map.folio_try_get(m, nodes, page), Some(folio));
            }
            What::Bare(_) => {
                assert_eq!(self.map.folio_try_get(m, nodes, page), None);
                self.map.get_page(m, page).expect("bare pages have a count");
            }
            What::Slab(_) | What::Ptdesc(_) => {
                assert_eq!(self.map.folio_try_get(m, nodes, page), None);
                self.map.get_page(m, page).expect_err("no count");
                return;
            }
        }
        block.refs += 1;
    }

    fn put(&mut self, which: usize, page: u64) {
        let Some(first) = self.pick(which) else {
            return;
        };
        let page = self.some_page(first, page);
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let block = self.model.blocks.get_mut(&first).expect("picked");
        match block.what {
            What::Slab(slab) => self.map.free_slab(m, nodes, slab),
            What::Ptdesc(ptdesc) => self.map.free_ptdesc(m, nodes, ptdesc),
            _ => {
                block.refs -= 1;
                let last = block.refs == 0;
                assert_eq!(self.map.put_page(m, nodes, page), Ok(last));
                if !last {
                    return;
                }
            }
        }
        let block = self.model.blocks.remove(&first).expect("picked");
        let end = first + (1 << block.order);
        self.model
            .exclusive
            .retain(|page| !(first..end).contains(page));
        if !block.shared.is_empty() {
            self.model.folded.insert(first, (block.order, block.shared));
        }
    }

    /// Frames of a block's memmap, and those in which no page differs.
    fn frames(&self, first: u64, order: u8) -> (u64, BTreeSet<u64>) {
        let frames = first / self.per_frame..(first + (1 << order)) / self.per_frame;
        let differs =
            |page: u64| self.model.poisoned.contains(&page) || self.model.exclusive.contains(&page);
        let clean =
            |frame: &u64| !(frame * self.per_frame..(frame + 1) * self.per_frame).any(differs);
        (frames.end - frames.start, frames.filter(clean).collect())
    }

    fn fold(&mut self, cpu: usize, which: usize, trap: Option<Trap>) {
        let Some(first) = self.pick(which) else {
            return;
        };
        let block = &self.model.blocks[&first];
        let (m, nodes, map) = (&self.w.m, &self.w.mm.nodes, &self.map);
        let result = m.on_cpu(cpu, || match block.what {
            What::Anon(folio) | What::File(folio) => map.fold(m, nodes, folio),
            What::Slab(slab) => map.fold(m, nodes, slab),
            What::Ptdesc(ptdesc) => map.fold(m, nodes, ptdesc),
            What::Bare(bare) => map.fold(m, nodes, bare),
        });
        if block.order < self.least {
            let (order, least) = (Order::of(block.order), Order::of(self.least));
            assert_eq!(result, Err(MemdescError::OrderTooSmall { order, least }));
            return;
        }
        let mut shared = self.frames(first, block.order).1;
        shared.extend(&block.shared);
        if shared.len() < 2 {
            shared = block.shared.clone();
        }
        let count = |shared: &BTreeSet<u64>| shared.len().max(1) as u64 - 1;
        match result {
            Ok(freed) => assert_eq!(freed, count(&shared) - count(&block.shared)),
            Err(error) => {
                assert_eq!(error, MemdescError::Injected);
                assert!(self.struck(trap), "{error} out of nowhere");
                return;
            }
        }
        self.model.blocks.get_mut(&first).expect("picked").shared = shared;
    }

    fn unfold(&mut self, which: usize, trap: Option<Trap>) {
        let Some(first) = self.pick(which) else {
            return;
        };
        let (m, nodes, map) = (&self.w.m, &self.w.mm.nodes, &self.map);
        let block = self.model.blocks.get_mut(&first).expect("picked");
        let result = match block.what {
            What::Anon(folio) | What::File(folio) => map.unfold(m, nodes, folio),
            What::Slab(slab) => map.unfold(m, nodes, slab),
            What::Ptdesc(ptdesc) => map.unfold(m, nodes, ptdesc),
            What::Bare(bare) => map.unfold(m, nodes, bare),
        };
        match result {
            Ok(()) => block.shared.clear(),
            Err(error) => {
                assert_eq!(error, MemdescError::NoMemory);
                assert!(self.struck(trap), "{error} out of nowhere");
            }
        }
    }

    fn poison(&mut self, n: u64, trap: Option<Trap>) {
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        match self.map.set_hwpoison(m, nodes, self.page(n)) {
            Ok(()) => {
                if self.model.poisoned.insert(n) && !self.model.reserved.contains(&n) {
                    self.model.dirty(n, n / self.per_frame);
                }
            }
            Err(error) => {
                assert_eq!(error, MemdescError::NoMemory);
                assert!(self.struck(trap), "{error} out of nowhere");
            }
        }
    }

    fn reserve(&mut self, n: u64, trap: Option<Trap>) {
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let free = self.model.is_free(n);
        match self.map.reserve(m, nodes, self.page(n)) {
            Ok(()) => {
                assert!(free, "page {n} is in use");
                self.model.reserved.insert(n);
                self.model.dirty(n, n / self.per_frame);
            }
            Err(MemdescError::WrongState(_)) => assert!(!free, "page {n} is free"),
            Err(error) => {
                assert_eq!(error, MemdescError::NoMemory);
                assert!(self.struck(trap), "{error} out of nowhere");
            }
        }
    }

    fn exclusive(&mut self, which: usize, page: u64, on: bool, trap: Option<Trap>) {
        let Some(first) = self.pick(which) else {
            return;
        };
        let (m, nodes) = (&self.w.m, &self.w.mm.nodes);
        let block = &self.model.blocks[&first];
        let n = first + page % (1 << block.order);
        let hidden = size_of_page::<L>() == 8 && self.model.poisoned.contains(&n);
        let anon = matches!(block.what, What::Anon(_)) && !hidden;
        match self.map.set_anon_exclusive(m, nodes, self.page(n), on) {
            Ok(()) => {
                assert!(anon, "page {n} is no anonymous folio's");
                if on && self.model.exclusive.insert(n) {
                    self.model.dirty(n, n / self.per_frame);
                } else if !on {
                    self.model.exclusive.remove(&n);
                }
            }
            Err(MemdescError::WrongState(_)) => assert!(!anon, "page {n} of an anonymous folio"),
            Err(error) => {
                assert_eq!(error, MemdescError::NoMemory);
                assert!(self.struck(trap), "{error} out of nowhere");
            }
        }
    }

    fn check(&self) {
        let m = &self.w.m;
        let audit = self.map.audit(m);
        assert!(audit.is_ok(), "{audit}");
        let totals = self.map.totals(m);
        assert_eq!(
            (totals.saved, totals.folded),
            self.model.saved(),
            "saved, folded"
        );
        assert_eq!(self.owned, self.count(), "frames");
        for cpu in 0..2 {
            m.on_cpu(cpu, || (0..1 << MAP).for_each(|n| self.check_page(n)));
        }
    }

    /// What every lookup says of page `n`, against the model.
    fn check_page(&self, n: u64) {
        let (m, page, model) = (&self.w.m, self.page(n), &self.model);
        let block = model.owner(n);
        let what = block.map(|(_, block)| block.what);
        let folio = match what {
            Some(What::Anon(folio) | What::File(folio)) => Some(folio),
            _ => None,
        };
        let slab = if let Some(What::Slab(slab)) = what {
            Some(slab)
        } else {
            None
        };
        let ptdesc = if let Some(What::Ptdesc(ptdesc)) = what {
            Some(ptdesc)
        } else {
            None
        };
        assert_eq!(self.map.page_folio(m, page), folio, "folio of page {n}");
        assert_eq!(self.map.page_slab(m, page), slab, "slab of page {n}");
        assert_eq!(self.map.page_ptdesc(m, page), ptdesc, "ptdesc of page {n}");
        let head = match (what, block) {
            (Some(What::Bare(_)), Some((first, _))) => Some(self.page(first)),
            (Some(_), _) => None,
            (None, _) => Some(page),
        };
        assert_eq!(
            self.map.try_compound_head(m, page).ok(),
            head,
            "head of page {n}"
        );
        if let (Some(folio), Some((first, block))) = (folio, block) {
            assert_eq!(
                folio.ref_count(m),
                block.refs,
                "references of page {n}'s folio"
            );
            assert_eq!(self.number(folio.pfn(m)), first);
            assert_eq!(folio.is_folded(m), !block.shared.is_empty());
        }
        let flags = self.map.page_flags(m, page);
        assert_eq!(flags.node().get(), 1);
        assert_eq!(
            flags.contains(PageFlags::HWPOISON),
            model.poisoned.contains(&n)
        );
        // The type can say one thing of a page only.
        let hidden = size_of_page::<L>() == 8 && model.poisoned.contains(&n);
        let flag = |of| flags.contains(of) || hidden;
        assert_eq!(
            flag(PageFlags::RESERVED),
            model.reserved.contains(&n) || hidden
        );
        assert_eq!(
            flag(PageFlags::ANON_EXCLUSIVE),
            model.exclusive.contains(&n) || hidden
        );
    }

    fn end(mut self) {
        while let Some(first) = self.pick(0) {
            let refs = self.model.blocks[&first].refs.max(1);
            (0..refs).for_each(|_| self.put(0, 0));
        }
        self.check();
        let nodes = &self.w.mm.nodes;
        assert!(
            self.map.destroy(&self.w.m, nodes).is_ok(),
            "an empty map goes"
        );
        self.w.check();
    }
}

/// By the distance of two struct pages.
fn size_of_page<L: StructPage>() -> u64 {
    let first = Page::<L>::at(DEFAULT_BASE);
    first.nth(1).address().as_u64() - first.address().as_u64()
}

fn history<L: StructPage>(steps: &[(Step, Option<Trap>)], seed: u64) {
    let mut history = History::<L>::new(seed);
    for (step, trap) in steps {
        history.run(step, *trap);
        history.check();
    }
    history.end();
}

macro_rules! histories {
    ($($name:ident: $layout:ty, $seed:literal;)*) => { $(
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: 24,
                rng_seed: RngSeed::Fixed($seed),
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            #[test]
            fn $name(
                steps in prop::collection::vec(
                    (step(), prop::option::weighted(0.3, trap())), 1..60),
                seed in any::<u64>(),
            ) {
                history::<$layout>(&steps, seed);
            }
        }
    )* };
}

histories! {
    page_64: Page64, 64;
    page_32: Page32, 32;
    page_16: Page16, 16;
    page_8: Page8, 8;
}

/// The panic of `compound_head` names the page, what it is, and what would be right.
#[test]
fn compound_head_of_a_folio_is_a_bug() {
    let w = World::small();
    let (m, nodes) = (&w.m, &w.mm.nodes);
    let order = Order::of(9);
    let placement = Placement::local(m);
    let map = MemdescMap::<Page32>::new(m, nodes, w.memmap(), DEFAULT_BASE, order, placement)
        .expect("enough memory");
    let folio = map
        .alloc_folio(m, nodes, Order::of(2))
        .expect("enough memory");
    let page = map.page(folio.pfn(m)).nth(3);
    let panic = catch_unwind(AssertUnwindSafe(|| map.compound_head(m, page)));
    let text = *panic
        .expect_err("a bug")
        .downcast::<String>()
        .expect("text");
    for part in [
        "BUG: compound_head()",
        "Anon",
        "page_folio()",
        "only bare pages",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(map.folio_put(m, nodes, folio));
}

/// MD-2: a flag or a word of its own in a frame that others are mapped to as well is
/// found, whoever put it there.
fn audit_finds_what_is_shared<L: StructPage>(flag: u64, finding: &str) {
    let w = World::small();
    let (m, nodes) = (&w.m, &w.mm.nodes);
    let (order, place) = (Order::of(11), Placement::local(m));
    let map = MemdescMap::<L>::new(m, nodes, w.memmap(), DEFAULT_BASE, order, place)
        .expect("enough memory");
    let folio = map.alloc_folio(m, nodes, order).expect("room");
    map.fold(m, nodes, folio).expect("enough pages");
    let page = map.page(folio.pfn(m).offset(order.pages() - 1)).address();
    let frame = mm::paging::translate(m, m.root(), page).expect("mapped");
    let clean = m.read_phys(frame);
    assert!(map.audit(m).is_ok(), "{}", map.audit(m));
    m.write_phys(frame, clean ^ flag);
    let found = map.audit(m).first.expect("nothing found");
    assert_eq!(found.what, finding, "{found:?}");
    m.write_phys(frame, clean);
    assert!(map.audit(m).is_ok(), "{}", map.audit(m));
    map.put_page(m, nodes, map.page(folio.pfn(m)))
        .expect("ours");
    assert!(map.destroy(m, nodes).is_ok(), "an empty map goes");
}

#[test]
fn audit_finds_flags_in_a_shared_frame() {
    let flags = "flags in a read-only frame";
    for flag in [PageFlags::HWPOISON, PageFlags::ANON_EXCLUSIVE] {
        audit_finds_what_is_shared::<Page64>(flag.raw(), flags);
        audit_finds_what_is_shared::<Page32>(flag.raw(), flags);
        audit_finds_what_is_shared::<Page16>(flag.raw(), flags);
    }
    // Of 8 bytes there is only the word: 2 for anonymous becomes 12 for exclusive.
    audit_finds_what_is_shared::<Page8>(2 ^ 12, "word in a read-only frame");
}
