//! The buddy allocator against a set of free frames.
//!
//! Eager merging makes the free blocks a function of the free frames: the model
//! keeps the frames and computes what blocks there must be.

use mm::addr::{NodeId, Order, Pfn, PfnRange};
use mm::buddy::Misuse;
use mm::frames::{FrameSource, Placement};
use mm::machine::{FailPoint, Memory as _};
use mm::page::{Flags, PageType};
use proptest::prelude::*;
use std::collections::BTreeMap;
use testkit::model::FreeFrames;
use testkit::{Injection, World};

#[derive(Clone, Debug)]
enum Step {
    Alloc {
        order: u8,
        node: u8,
        strict: bool,
    },
    /// Frees one of the blocks there are.
    Free(usize),
    /// Frees one of the blocks page by page, in an order that the number gives.
    FreeInPieces(usize, u64),
    /// Frees one of the blocks as a range after splitting it.
    FreeAsRange(usize),
}

struct Model {
    w: World,
    free: BTreeMap<u8, FreeFrames>,
    blocks: Vec<(u8, Pfn, Order)>,
}

impl Model {
    fn new() -> Self {
        // Node 0 has a hole; the nodes meet at an odd MiB, in the middle of what
        // would be a larger block, with free memory on both sides.
        let w = World::builder()
            .ram(0, 0, 9)
            .ram(0, 11, 21)
            .ram(1, 21, 29)
            .boot();
        let mut free: BTreeMap<u8, FreeFrames> = BTreeMap::new();
        for node in 0..2 {
            let frames = free.entry(node).or_default();
            w.mm.nodes.get(NodeId::of(node)).with_buddy(&w.m, |buddy| {
                for order in Order::range_inclusive(Order::PAGE, Order::MAX) {
                    for block in buddy.blocks(&w.m, order) {
                        frames.insert(block.block(order));
                    }
                }
            });
        }
        let model = Self {
            w,
            free,
            blocks: Vec::new(),
        };
        let edge = |pfn| model.free.values().any(|frames| frames.contains(pfn));
        assert!(
            edge(0x14ff) && edge(0x1500),
            "both sides of the border are free"
        );
        model.check();
        model
    }

    fn run(&mut self, step: &Step) {
        let len = self.blocks.len().max(1);
        match *step {
            Step::Alloc {
                order,
                node,
                strict,
            } => self.alloc(Order::of(order), node, strict),
            Step::Free(which) if which % len < self.blocks.len() => {
                let (node, block, order) = self.blocks.swap_remove(which % len);
                self.w.mm.nodes.free(&self.w.m, block, order);
                self.give(node, block.block(order));
            }
            Step::FreeInPieces(which, seed) if which % len < self.blocks.len() => {
                let (node, block, order) = self.blocks.swap_remove(which % len);
                self.w.mm.nodes.split(&self.w.m, block, order);
                // An odd multiplier visits every page once.
                for n in 0..order.pages() {
                    let page = block.offset(n.wrapping_mul(seed | 1) % order.pages());
                    self.w.mm.nodes.free(&self.w.m, page, Order::PAGE);
                    self.give(node, page.block(Order::PAGE));
                    if n % 7 == 0 {
                        self.check();
                    }
                }
            }
            Step::FreeAsRange(which) if which % len < self.blocks.len() => {
                let (node, block, order) = self.blocks.swap_remove(which % len);
                self.w.mm.nodes.split(&self.w.m, block, order);
                let cut = order.pages() / 3;
                let nodes = &self.w.mm.nodes;
                nodes.free_pages(&self.w.m, block.offset(cut), order.pages() - cut);
                nodes.free_pages(&self.w.m, block, cut);
                self.give(node, block.block(order));
            }
            _ => {}
        }
    }

    fn give(&mut self, node: u8, range: PfnRange) {
        self.free.entry(node).or_default().insert(range);
    }

    fn alloc(&mut self, order: Order, node: u8, strict: bool) {
        let id = NodeId::of(node);
        let placement = if strict {
            Placement::Only(id)
        } else {
            Placement::Prefer(id)
        };
        let smallest = |node: u8| {
            let blocks = self.free[&node].blocks();
            blocks
                .into_values()
                .filter(|free| *free >= order.get())
                .min()
        };
        let other = (!strict).then_some(1 - node);
        let expected = [Some(node), other]
            .into_iter()
            .flatten()
            .find_map(|node| Some((node, smallest(node)?)));
        let found = self.w.mm.nodes.alloc(&self.w.m, order, placement);
        let Some((from, split)) = expected else {
            assert_eq!(found, None, "order {order} out of nothing");
            return;
        };
        let block = found.unwrap_or_else(|| panic!("order {order}: node {from} has one"));
        assert!(block.is_aligned(order));
        let blocks = self.free[&from].blocks();
        let (start, around) = blocks.range(..=block.as_u64()).next_back().expect("free");
        assert!(
            block.as_u64() + order.pages() <= start + (1 << around),
            "not free"
        );
        assert_eq!(*around, split, "a larger block than needed was split");
        let frames = self.free.get_mut(&from).expect("has frames");
        frames.remove(block.block(order));
        self.blocks.push((from, block, order));
    }

    fn check(&self) {
        for (node, frames) in &self.free {
            let mut found = BTreeMap::new();
            let node = self.w.mm.nodes.get(NodeId::of(*node));
            node.with_buddy(&self.w.m, |buddy| {
                assert_eq!(buddy.free_pages(), frames.len());
                for order in Order::range_inclusive(Order::PAGE, Order::MAX) {
                    let before = found.len() as u64;
                    for block in buddy.blocks(&self.w.m, order) {
                        found.insert(block.as_u64(), order.get());
                    }
                    assert_eq!(buddy.free_blocks(order), found.len() as u64 - before);
                }
            });
            assert_eq!(found, frames.blocks(), "left: free lists, right: model");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![3 => 0u8..4, 2 => 4u8..10, 1 => 10u8..=22];
    prop_oneof![
        5 => (order, 0u8..2, any::<bool>())
            .prop_map(|(order, node, strict)| Step::Alloc { order, node, strict }),
        3 => any::<usize>().prop_map(Step::Free),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(n, seed)| Step::FreeInPieces(n, seed)),
        1 => any::<usize>().prop_map(Step::FreeAsRange),
    ]
}

proptest! {
    #![proptest_config(testkit::same_in_every_run(64))]

    #[test]
    fn free_blocks_are_what_the_free_frames_make(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        while !model.blocks.is_empty() {
            model.run(&Step::Free(0));
        }
        model.check();
        model.w.check();
    }
}

#[test]
fn all_of_it_can_be_had_and_comes_back() {
    let mut model = Model::new();
    let before = model.free.clone();
    for order in [0, 3, 9] {
        for node in 0..2 {
            let mut got = 0;
            while model
                .w
                .mm
                .nodes
                .get(NodeId::of(node))
                .free_pages(&model.w.m)
                >= 1 << order
            {
                let had = model.blocks.len();
                model.alloc(Order::of(order), node, true);
                if model.blocks.len() == had {
                    break;
                }
                got += 1;
            }
            assert!(got > 0);
            if order == 0 {
                assert_eq!(model.free[&node].len(), 0, "to the last page");
            }
            model.check();
        }
        while !model.blocks.is_empty() {
            model.run(&Step::Free(model.blocks.len() / 2));
        }
        assert_eq!(model.free, before);
        model.check();
    }
}

#[test]
fn a_node_that_is_empty_is_no_reason_to_fail() {
    let mut model = Model::new();
    while !model.free[&1].is_empty() {
        model.alloc(Order::PAGE, 1, true);
    }
    model.alloc(Order::of(3), 1, true);
    let had = model.blocks.len();
    model.alloc(Order::of(3), 1, false);
    assert_eq!(model.blocks[had].0, 0, "from the other node");
    model.check();
}

#[test]
fn an_injected_failure_changes_nothing() {
    let model = Model::new();
    model.w.m.fail(FailPoint::PageAlloc, Injection::Kth(1));
    let placement = Placement::Prefer(NodeId::ZERO);
    assert_eq!(
        model.w.mm.nodes.alloc(&model.w.m, Order::PAGE, placement),
        None
    );
    assert_eq!(model.w.m.hits(FailPoint::PageAlloc), (1, 1));
    model.check();
}

/// The text of the panic that `work` ends with.
fn panic_of(work: impl FnOnce()) -> String {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let panic = outcome.expect_err("misuse must not pass");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn misuse_is_named_and_changes_nothing() {
    let w = World::builder().ram(0, 0, 64).ram(1, 256, 288).boot();
    let nodes = &w.mm.nodes;
    let only = |node| Placement::Only(NodeId::of(node));
    let four = Order::of(2);
    let block = nodes.alloc(&w.m, four, only(0)).expect("empty machine");
    let other = nodes.alloc(&w.m, four, only(1)).expect("empty machine");
    let eight = Order::of(3);
    let wide = nodes.alloc(&w.m, eight, only(0)).expect("empty machine");
    let gone = nodes.alloc(&w.m, four, only(0)).expect("empty machine");
    nodes.free(&w.m, gone, four);

    let hole = Pfn::new(0x8000);
    let beyond = Pfn::new(0x40_0000);
    let reserved = Pfn::new(0);
    let free_before = w.free_pages();
    let cases = [
        (gone, four, "double free"),
        (gone.offset(1), Order::PAGE, "double free"),
        (block, Order::PAGE, "free with the wrong order"),
        (wide, four, "free with the wrong order"),
        (block.offset(1), Order::PAGE, "free of a foreign frame"),
        (block.offset(1), four, "free of a misaligned block"),
        (hole, Order::PAGE, "free of a foreign frame"),
        (beyond, Order::PAGE, "free of a foreign frame"),
        (reserved, Order::PAGE, "free of a foreign frame"),
    ];
    for (pfn, order, expected) in cases {
        let misuse = nodes.check_free(&w.m, pfn, order).expect_err(expected);
        assert!(
            misuse.to_string().starts_with(expected),
            "{misuse}, not {expected}"
        );
        let text = panic_of(|| nodes.free(&w.m, pfn, order));
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(&format!("{pfn:?}")), "{text} names the frame");
        assert_eq!(w.free_pages(), free_before);
    }
    // A block of another node, given to the wrong allocator.
    let foreign = w.mm.nodes.get(NodeId::ZERO);
    let misuse = foreign.with_buddy(&w.m, |buddy| buddy.check_free(&w.m, other, four));
    assert_eq!(misuse, Err(Misuse::Foreign { block: other }));
    nodes.free(&w.m, block, four);
    nodes.free(&w.m, other, four);
    nodes.free(&w.m, wide, eight);
    w.check();
}

/// A block whose struct pages were scribbled on is refused by the page checks,
/// whatever the field.
#[test]
fn a_page_in_a_bad_state_is_refused() {
    type Damage = fn(&World, mm::page::Page);
    let cases: [(&str, Damage); 7] = [
        ("a flag is set", |w, p| {
            p.set_flags(&w.m, p.flags(&w.m).with(Flags::HWPOISON))
        }),
        ("nonzero _refcount", |w, p| p.set_ref_count(&w.m, 1)),
        ("nonzero mapcount", |w, p| {
            p.set_page_type(&w.m, PageType::HUGETLB)
        }),
        ("corrupted mapping", |w, p| p.set_mapping(&w.m, 0x400)),
        ("private is set", |w, p| p.set_private(&w.m, 9)),
        ("index is set", |w, p| p.set_index(&w.m, 1)),
        ("compound_info", |w, p| {
            w.m.store64(p.address().offset(8), 0xffff_ffff_ffff_8001)
        }),
    ];
    for (expected, damage) in cases {
        let w = World::builder().ram(0, 0, 64).boot();
        let order = Order::of(5);
        let block = w.compound(0, order, false).map(|head| w.memmap().pfn(head));
        let block = block.expect("empty machine");
        mm::page::undo_compound_head(&w.m, w.memmap().page(block), order);
        damage(&w, w.memmap().page(block).nth(17));
        let text = panic_of(|| w.mm.nodes.free(&w.m, block, order));
        assert!(
            text.contains("Bad page state") && text.contains(expected),
            "{text}"
        );
        assert!(text.contains("17 into a block of order 5"), "{text}");
    }
}
