//! Demote and promote, step by step: under the eyes of other CPUs, in thousands of
//! interleavings, and with a failure at every allocation and every store.

use std::sync::atomic::{AtomicBool, Ordering};

use mm::addr::{NodeId, Order};
use mm::machine::{FailPoint, Testing as _};
use mm::page::{self, Page, PageList};
use mm::vmemmap::Fill;
use testkit::records::Folio;
use testkit::schedule::{Story, explore, search};
use testkit::{Injection, Sabotage, World};

/// A folded block in a machine.
struct Block {
    w: World,
    head: Page,
    from: Order,
    to: Order,
    done: AtomicBool,
}

impl Block {
    fn new(w: World, from: u8, to: u8) -> Self {
        let (from, to) = (Order::of(from), Order::of(to));
        let head = w.compound(0, from, true).expect("room for one");
        w.fold(head, from).expect("memory");
        let done = AtomicBool::new(false);
        Self {
            w,
            head,
            from,
            to,
            done,
        }
    }

    fn demote(&self) -> bool {
        let (w, m) = (&self.w, &self.w.m);
        let mut list = PageList::new();
        list.push(m, self.head);
        let done = w
            .vmemmap()
            .demote_folios(m, &w.mm.nodes, &list, self.from, self.to);
        list.pop(m);
        done == 1
    }

    fn promote(&self) -> bool {
        let w = &self.w;
        let nodes = &w.mm.nodes;
        w.vmemmap()
            .promote_folio(&w.m, nodes, self.head, self.from, self.to)
            .is_ok()
    }

    fn parts(&self) -> impl Iterator<Item = Page> + use<'_> {
        let pages = self.to.pages();
        (0..self.from.pages() / pages).map(move |n| self.head.nth(n * pages))
    }

    /// Page `n` belongs to the large folio or to its part, whatever is under way.
    fn look(&self, n: u64) {
        let m = &self.w.m;
        let page = self.head.nth(n);
        let part = self.head.nth(n & !(self.to.pages() - 1));
        assert_eq!(page.ref_count(m), 0, "page {n}");
        let folio = page::page_folio(m, page);
        assert!(
            folio == Some(self.head) || folio == Some(part),
            "page {n} is of {folio:?}, not of {:?} or {part:?}",
            self.head
        );
        let Some(head) = folio else { return };
        let pages = page::folio_nr_pages(m, head);
        if page::page_folio(m, page) == folio {
            let inside = page < head.nth(pages);
            assert!(inside, "page {n} is outside of its folio of {pages} pages");
        }
    }

    /// Every struct page of every block, as every CPU sees it; the audit.
    fn check(&self, order: Order) {
        for n in 0..self.from.pages() / order.pages() {
            let folio = Folio {
                head: self.head.nth(n * order.pages()).address(),
                node: 0,
                order: order.get(),
                folded: true,
                tails: true,
                mark: 0,
            };
            folio.check(&self.w.m, 61);
        }
        self.w.check();
    }

    /// The owner writes every head; then all of it goes.
    fn end(self, order: Order) {
        let m = &self.w.m;
        for n in 0..self.from.pages() / order.pages() {
            let head = self.head.nth(n * order.pages());
            head.set_mapping(m, 7);
            head.set_mapping(m, 0);
        }
        self.check(order);
        for n in 0..self.from.pages() / order.pages() {
            let head = self.head.nth(n * order.pages());
            self.w.unfold(head, order, Fill::Tails).expect("memory");
            self.w.dissolve(head, order);
        }
        self.w.check();
    }
}

/// One CPU demotes and promotes, two others look.
struct UnderReaders {
    sabotage: Sabotage,
}

impl Story for UnderReaders {
    type State = Block;

    fn cpus(&self) -> usize {
        3
    }

    fn begin(&self, _: &mut fastrand::Rng) -> Block {
        let w = World::builder().ram(0, 0, 8).cpus(self.cpus()).boot();
        let block = Block::new(w, 9, 7);
        assert!(
            block.demote() && block.promote(),
            "the shared tails are made"
        );
        block.w.m.sabotage(self.sabotage);
        block
    }

    fn act(&self, s: &Block, cpu: usize, random: &mut fastrand::Rng) {
        if cpu == 0 {
            assert!(s.demote(), "memory");
            for part in s.parts() {
                // The owner may write, and reads what it has written.
                part.set_mapping(&s.w.m, 9);
                assert_eq!(part.mapping(&s.w.m), 9);
                part.set_mapping(&s.w.m, 0);
            }
            assert!(s.promote(), "nothing fails");
            return s.done.store(true, Ordering::Relaxed);
        }
        for _ in 0..2000 {
            s.look(random.u64(..s.from.pages()));
            if s.done.load(Ordering::Relaxed) {
                break;
            }
        }
    }

    fn end(&self, s: Block) {
        let order = s.from;
        s.end(order);
    }
}

/// D-1, in 400 schedules.
#[test]
fn every_page_always_has_its_head() {
    let story = UnderReaders {
        sabotage: Sabotage::None,
    };
    explore("every_page_always_has_its_head", &story, 400);
}

/// One CPU demotes, another with no stale translation follows tails, once.
struct FollowedOnce;

impl Story for FollowedOnce {
    type State = Block;

    fn cpus(&self) -> usize {
        2
    }

    fn begin(&self, random: &mut fastrand::Rng) -> Block {
        let sabotage = Sabotage::None;
        UnderReaders { sabotage }.begin(random)
    }

    fn act(&self, s: &Block, cpu: usize, random: &mut fastrand::Rng) {
        if cpu == 0 {
            assert!(s.demote(), "memory");
            return s.done.store(true, Ordering::Relaxed);
        }
        for _ in 0..2000 {
            s.w.m.evict_all();
            let n = random.u64(..s.from.pages());
            let head = s.head.nth(n).compound_head(&s.w.m);
            assert!(head.is_head(&s.w.m), "page {n} leads to {head:?}");
            if s.done.load(Ordering::Relaxed) {
                break;
            }
        }
    }

    fn end(&self, s: Block) {
        let order = s.to;
        s.end(order);
    }
}

/// Heads first: a tail leads to a head at once.
#[test]
fn a_tail_leads_to_a_head() {
    explore("a_tail_leads_to_a_head", &FollowedOnce, 300);
}

/// What the stories above are worth: the first notices a flush in which nobody else takes part.
#[test]
fn a_flush_left_out_is_noticed() {
    let story = UnderReaders {
        sabotage: Sabotage::LocalRoundsOnly,
    };
    assert!(search(&story, 300).is_err(), "nothing was noticed");
}

/// 8 parts of 8 pages of memmap, in one slot; parts that are slots of their own; parts of
/// two slots, of which the second shares its table before and after.
const SHAPES: [(u8, u8); 3] = [(12, 9), (16, 15), (17, 16)];

fn world() -> World {
    World::builder().ram(0, 1, 1024).boot()
}

/// Memory that runs out at the `k`th allocation: nothing has been begun.
#[test]
fn demoting_when_memory_runs_out() {
    for (from, to) in SHAPES {
        let block = Block::new(world(), from, to);
        assert!(
            block.demote() && block.promote(),
            "the shared tails are made"
        );
        let heads = (1 << (from - to)) - 1;
        // A slot that shared its table and gets a head gets a table, too.
        let tables = if from > 15 { heads } else { 0 };
        for k in 1..=heads + tables {
            let before = (block.w.free_pages(), block.w.vmemmap().ledger().totals());
            block.w.m.fail(FailPoint::PageAlloc, Injection::Kth(k));
            assert!(!block.demote(), "allocation {k} is needed");
            block.w.m.fail(FailPoint::PageAlloc, Injection::Never);
            let after = (block.w.free_pages(), block.w.vmemmap().ledger().totals());
            assert_eq!(after, before, "allocation {k}: nothing is kept, no flush");
            block.check(block.from);
        }
        assert!(block.demote(), "memory is back");
        let order = block.to;
        block.check(order);
        block.end(order);
    }
}

/// A store that fails, each in turn, there and back: entries, frames and records are as
/// they were, as every CPU sees them.
#[test]
fn each_store_that_fails_is_undone() {
    for (from, to) in SHAPES {
        let block = Block::new(world(), from, to);
        block.w.speculate(0.3, 5);
        assert!(
            block.demote() && block.promote(),
            "the shared tails are made"
        );
        let stores = (1 << (from - 6)) - 1;
        let step = if from > 12 { 37 << (from - 16) } else { 1 };
        let numbers = |w: &World| {
            let totals = w.vmemmap().ledger().totals();
            (
                w.free_pages(),
                totals.pages,
                totals.boot_pages,
                totals.saved,
                (totals.tables, totals.shared_slots),
            )
        };
        for there in [true, false] {
            let before = numbers(&block.w);
            for k in (1..=stores).step_by(step).chain([stores]) {
                block.w.m.fail(FailPoint::VmemmapPte, Injection::Kth(k));
                let done = if there {
                    block.demote()
                } else {
                    block.promote()
                };
                let (_, failures) = block.w.m.hits(FailPoint::VmemmapPte);
                block.w.m.fail(FailPoint::VmemmapPte, Injection::Never);
                assert!(!done && failures == 1, "store {k} of {stores}");
                assert_eq!(numbers(&block.w), before, "store {k}");
                block.check(if there { block.from } else { block.to });
            }
            if there && from > 15 {
                block.w.m.fail(FailPoint::VmemmapPmd, Injection::Kth(1));
                assert!(!block.demote(), "no table for the head's slot");
                block.w.m.fail(FailPoint::VmemmapPmd, Injection::Never);
                assert_eq!(numbers(&block.w), before, "a table's store");
                block.check(block.from);
            }
            if there {
                assert!(block.demote(), "nothing fails any more");
            }
        }
        assert!(block.promote(), "nothing fails any more");
        let order = block.from;
        block.end(order);
    }
}

/// What is not a folded frozen block of that order, or has parts that are not, is refused
/// and not touched.
#[test]
fn what_does_not_fit_is_refused() {
    let block = Block::new(world(), 12, 9);
    let m = &block.w.m;
    block.head.set_ref_count(m, 1);
    assert!(!block.demote(), "somebody has it");
    block.head.set_ref_count(m, 0);
    assert!(!block.promote(), "it is large already");
    assert!(block.demote());
    let part = block.head.nth(512 * 3);
    part.set_ref_count(m, 1);
    assert!(!block.promote(), "somebody has a part");
    part.set_ref_count(m, 0);
    block.w.unfold(part, block.to, Fill::Tails).expect("memory");
    assert!(!block.promote(), "a part is not folded");
    block.w.fold(part, block.to).expect("memory");
    assert!(block.promote());
    let order = block.from;
    block.end(order);
}

/// A whole gibibyte, folded or not, under readers on three other CPUs, with stale
/// translations: the pools' own way there and back.
#[test]
fn a_gibibyte_under_readers() {
    for on in [true, false] {
        let w = World::builder()
            .ram(0, 0, 3072)
            .cpus(4)
            .eviction(0.01, 3)
            .boot();
        w.speculate(0.02, 7);
        let (m, mm) = (&w.m, &w.mm);
        let backing = mm.backing();
        mm.hugetlb.set_optimize(on);
        let large = mm.hugetlb.hstate(Order::PUD).expect("1 GiB pages");
        assert_eq!(mm.hugetlb.set_nr(m, backing, large, None, 1), 1);
        let head = large.take(m, NodeId::ZERO).expect("one");
        large.put(m, head);
        let done = AtomicBool::new(false);
        m.run_on_each(&|cpu| {
            if cpu == 0 {
                assert_eq!(mm.hugetlb.demote(m, backing, large, None, 1), 1);
                assert_eq!(mm.hugetlb.promote(m, backing, large, None, 1), 1);
                return done.store(true, Ordering::Relaxed);
            }
            let mut random = fastrand::Rng::with_seed(cpu as u64);
            while !done.load(Ordering::Relaxed) {
                let n = random.u64(..Order::PUD.pages());
                let part = head.nth(n & !511);
                let folio = page::page_folio(m, head.nth(n));
                assert!(
                    folio == Some(head) || folio == Some(part),
                    "page {n} is of {folio:?}"
                );
            }
        });
        w.check();
        assert_eq!(mm.hugetlb.set_nr(m, backing, large, None, 0), 0);
        w.check();
    }
}
