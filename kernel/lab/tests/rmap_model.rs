//! Mappings, pins and frees in random order against a model that knows who has what, and
//! nothing of struct pages or tables. Any allocation on the way may fail.

use std::collections::{BTreeMap, BTreeSet};

use lab::rmap::{AddressSpace, FolioFields, Gfp, Gup, Pages, Policy, VmError, page_mapcount};
use mm::addr::{Order, PAGE_SIZE, PUD_SIZE, VirtAddr, VirtRange};
use mm::machine::{FailPoint, Testing as _};
use mm::page::Page;
use mm::paging::Level;
use proptest::prelude::*;
use testkit::{EmulatedMachine, World};

/// As it was asked for, whatever the policy takes it for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bare,
    Compound,
    Folio,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc(Kind, u8),
    MapPages {
        space: usize,
        slot: u64,
        which: usize,
        first: u64,
        nr: u64,
    },
    MapWhole {
        space: usize,
        slot: u64,
        which: usize,
    },
    Insert {
        space: usize,
        slot: u64,
        which: usize,
        first: u64,
        nr: u64,
    },
    Unmap {
        space: usize,
        slot: u64,
        nr: u64,
    },
    Get {
        space: usize,
        slot: u64,
    },
    Pin {
        space: usize,
        slot: u64,
    },
    PutGot(usize),
    Unpin(usize),
    PutOwn(usize),
    Exit(usize),
}

/// Slots are pages; the first dozen end a table of 1 GiB, a dozen start the next.
const SLOTS: u64 = 24;
const BEFORE: u64 = 12;
/// 2 MiB in slots.
const HUGE: u64 = 512;

fn at(slot: u64) -> VirtAddr {
    VirtAddr::new(2 * PUD_SIZE - BEFORE * PAGE_SIZE + slot * PAGE_SIZE)
}

/// What a block was allocated as, and who has it.
struct Block {
    kind: Kind,
    head: Page,
    order: u8,
    own: bool,
    /// Pages that were found by GUP.
    got: Vec<u64>,
    pinned: Vec<u64>,
}

impl Block {
    fn pages(&self) -> u64 {
        1 << self.order
    }
}

/// An entry: a block, and the page of it, or all.
type Entry = (usize, Option<u64>);

struct Run<'a> {
    pages: &'a Pages<'a, EmulatedMachine>,
    m: &'a EmulatedMachine,
    blocks: BTreeMap<usize, Block>,
    next: usize,
    spaces: Vec<AddressSpace<'a, EmulatedMachine>>,
    /// By slot; a whole one is in its first.
    maps: [BTreeMap<u64, Entry>; 2],
}

/// What the policy is said to take a kind for: the rules of the debate, once more.
fn is_taken_for_folio(policy: Policy, kind: Kind) -> bool {
    match kind {
        Kind::Folio => true,
        Kind::Compound => policy == Policy::Today,
        Kind::Bare => !matches!(policy, Policy::NotRmappable | Policy::NotAFolio(_)),
    }
}

fn is_counted(policy: Policy, kind: Kind) -> bool {
    is_taken_for_folio(policy, kind) || (kind == Kind::Compound && policy == Policy::Rfc)
}

/// References of a pin, and whether `_pincount` goes up with them.
fn pin_is(policy: Policy, block: &Block) -> Option<(u32, bool)> {
    let usual = if block.order > 0 {
        (1, true)
    } else {
        (1024, false)
    };
    match (policy, block.kind) {
        _ if is_taken_for_folio(policy, block.kind) => Some(usual),
        (Policy::Rfc | Policy::SubClass, _) | (Policy::NotRmappable, Kind::Bare) => Some(usual),
        (Policy::NotAFolio(Gup::PlainReference), _) => Some((1, false)),
        _ => None,
    }
}

fn can_get(policy: Policy, kind: Kind) -> bool {
    kind == Kind::Folio || policy != Policy::NotAFolio(Gup::Fail)
}

impl Run<'_> {
    fn policy(&self) -> Policy {
        self.pages.policy()
    }

    fn which(&self, n: usize) -> Option<usize> {
        let len = self.blocks.len().max(1);
        self.blocks.keys().nth(n % len).copied()
    }

    /// The entry over `slot` of a space.
    fn entry(&self, space: usize, slot: u64) -> Option<(u64, Entry)> {
        let (first, entry) = self.maps[space].range(..=slot).next_back()?;
        let slots = if entry.1.is_none() { HUGE } else { 1 };
        (slot < first + slots).then_some((*first, *entry))
    }

    fn is_free(&self, space: usize, slot: u64, nr: u64) -> bool {
        (slot..slot + nr).all(|slot| self.entry(space, slot).is_none())
    }

    fn references(&self, id: usize) -> u32 {
        let block = &self.blocks[&id];
        let mapped = self.maps.iter().flat_map(BTreeMap::values);
        let mapped = mapped.filter(|(other, _)| *other == id).count();
        let pin = pin_is(self.policy(), block).map_or(0, |(refs, _)| refs);
        u32::from(block.own)
            + u32::try_from(mapped + block.got.len()).expect("few")
            + pin * u32::try_from(block.pinned.len()).expect("few")
    }

    /// Forgets blocks that nobody has.
    fn sweep(&mut self) {
        let gone: Vec<usize> = self.blocks.keys().copied().collect();
        for id in gone {
            if self.references(id) == 0 {
                self.blocks.remove(&id);
            }
        }
    }

    /// A result that the model says is good, or bad; no memory is always an excuse if
    /// some was to fail. Whether it was done.
    fn settle<T>(&self, result: Result<T, VmError>, good: bool, failing: bool, what: Step) -> bool {
        match result {
            Ok(_) => assert!(good, "{what:?} under {} went through", self.policy()),
            Err(VmError::NoMemory) if failing => return false,
            Err(error) => assert!(!good, "{what:?} under {}: {error}", self.policy()),
        }
        good
    }

    fn step(&mut self, step: Step, fail: Option<u64>) {
        self.m.fail_nth(FailPoint::PageAlloc, fail);
        self.act(step, fail.is_some());
        self.m.fail_nth(FailPoint::PageAlloc, None);
        self.sweep();
    }

    fn act(&mut self, step: Step, failing: bool) {
        let policy = self.policy();
        match step {
            Step::Alloc(kind, order) => {
                let order = if kind == Kind::Bare { 0 } else { order };
                let made = match kind {
                    Kind::Folio => self.pages.folio_alloc(Order::of(order)),
                    Kind::Bare | Kind::Compound => {
                        self.pages.alloc_pages(Order::of(order), Gfp::COMP)
                    }
                };
                let Ok(head) = made else {
                    assert!(failing, "{made:?}");
                    return;
                };
                let (got, pinned) = (Vec::new(), Vec::new());
                // A page alone is bare, however it was asked for.
                let kind = match (kind, order) {
                    (Kind::Compound, 0) => Kind::Bare,
                    _ => kind,
                };
                let own = true;
                self.blocks.insert(
                    self.next,
                    Block {
                        kind,
                        head,
                        order,
                        own,
                        got,
                        pinned,
                    },
                );
                self.next += 1;
            }
            Step::MapPages {
                space,
                slot,
                which,
                first,
                nr,
            } => {
                let Some(id) = self.which(which) else { return };
                let block = &self.blocks[&id];
                let good = is_taken_for_folio(policy, block.kind)
                    && first + nr <= block.pages()
                    && self.is_free(space, slot, nr);
                let done = self.spaces[space].map_folio_pages(at(slot), block.head, first, nr);
                if self.settle(done, good, failing, step) {
                    self.maps[space].extend((0..nr).map(|n| (slot + n, (id, Some(first + n)))));
                }
            }
            Step::Insert {
                space,
                slot,
                which,
                first,
                nr,
            } => {
                let Some(id) = self.which(which) else { return };
                let block = &self.blocks[&id];
                let nr = nr.min(block.pages().saturating_sub(first));
                let list: Vec<Page> = (0..nr).map(|n| block.head.nth(first + n)).collect();
                let refused = policy == Policy::OrderZeroOnly && block.order > 0;
                let good = nr == 0 || (!refused && self.is_free(space, slot, nr));
                let done = self.spaces[space].vm_insert_pages(at(slot), &list);
                if self.settle(done, good, failing, step) {
                    self.maps[space].extend((0..nr).map(|n| (slot + n, (id, Some(first + n)))));
                }
            }
            Step::MapWhole { space, slot, which } => {
                let Some(id) = self.which(which) else { return };
                let slot = BEFORE + slot * HUGE;
                let block = &self.blocks[&id];
                let good = is_taken_for_folio(policy, block.kind)
                    && block.order == 9
                    && self.is_free(space, slot, HUGE);
                let done = self.spaces[space].map_folio(at(slot), block.head);
                if self.settle(done, good, failing, step) {
                    self.maps[space].insert(slot, (id, None));
                }
            }
            Step::Unmap { space, slot, nr } => {
                // In tables of 2 MiB now and then, so that large entries can go.
                let (slot, nr) = match nr {
                    9.. => (BEFORE, HUGE * (nr - 8)),
                    nr => (slot, nr),
                };
                let inside: Vec<u64> = self.maps[space]
                    .range(slot..slot + nr)
                    .map(|(slot, _)| *slot)
                    .collect();
                let cut = [slot, slot + nr].iter().any(|edge| {
                    let entry = self.entry(space, *edge);
                    nr > 0 && entry.is_some_and(|(first, _)| first < *edge)
                });
                let range = VirtRange {
                    start: at(slot),
                    end: at(slot + nr),
                };
                let done = self.spaces[space].munmap(range);
                if self.settle(done, !cut, false, step) {
                    assert_eq!(done, Ok(inside.len() as u64), "{step:?}");
                    for slot in inside {
                        self.maps[space].remove(&slot);
                    }
                }
            }
            Step::Get { space, slot } | Step::Pin { space, slot } => {
                let pin = matches!(step, Step::Pin { .. });
                let here = self.spaces[space].vm_normal_page(at(slot));
                let entry = self.entry(space, slot);
                let done = match pin {
                    true => self.spaces[space].pin_user_page(at(slot)),
                    false => self.spaces[space].get_user_page(at(slot)),
                };
                let Some((first, (id, page))) = entry else {
                    assert_eq!((here, done), (None, Err(VmError::NotMapped(at(slot)))));
                    return;
                };
                let n = page.unwrap_or(slot - first);
                let block = &self.blocks[&id];
                let good = match pin {
                    true => pin_is(policy, block).is_some(),
                    false => can_get(policy, block.kind),
                };
                assert_eq!(here, Some(block.head.nth(n)), "{step:?}");
                let folio = self.spaces[space].vm_normal_folio(at(slot));
                let none = matches!(policy, Policy::NotAFolio(_)) && block.kind != Kind::Folio;
                assert_eq!(folio, (!none).then_some(block.head), "{step:?}");
                if self.settle(done, good, false, step) {
                    assert_eq!(done, Ok(block.head.nth(n)), "{step:?}");
                    let block = self.blocks.get_mut(&id).expect("just seen");
                    if pin {
                        &mut block.pinned
                    } else {
                        &mut block.got
                    }
                    .push(n);
                }
            }
            Step::PutGot(which) => self.give_up(which, |pages, block| {
                let n = block.got.pop()?;
                Some(pages.put_page(block.head.nth(n)))
            }),
            Step::Unpin(which) => self.give_up(which, |pages, block| {
                let n = block.pinned.pop()?;
                Some(pages.unpin(block.head.nth(n)))
            }),
            Step::PutOwn(which) => self.give_up(which, |pages, block| {
                std::mem::take(&mut block.own).then(|| pages.put_page(block.head))
            }),
            Step::Exit(space) => {
                self.m.fail_nth(FailPoint::PageAlloc, None);
                self.spaces[space] = AddressSpace::new(self.pages).expect("memory");
                self.maps[space].clear();
            }
        }
    }

    fn give_up(
        &mut self,
        which: usize,
        drop: impl FnOnce(&Pages<'_, EmulatedMachine>, &mut Block) -> Option<Result<bool, VmError>>,
    ) {
        let Some(id) = self.which(which) else { return };
        let block = self.blocks.get_mut(&id).expect("just chosen");
        let Some(freed) = drop(self.pages, block) else {
            return;
        };
        assert_eq!(freed, Ok(self.references(id) == 0), "block {id}");
    }

    /// Every count of every page, and every entry and table of every space.
    fn check(&self) {
        let (m, policy) = (self.m, self.policy());
        for (id, block) in &self.blocks {
            assert_eq!(block.head.ref_count(m), self.references(*id), "block {id}");
            let counted = is_counted(policy, block.kind);
            let entries = || self.maps.iter().flat_map(BTreeMap::values);
            let mut each: BTreeMap<u64, u32> = BTreeMap::new();
            let (mut whole, mut all) = (0, 0);
            for (_, page) in entries().filter(|(other, _)| counted && other == id) {
                all += 1;
                match page {
                    Some(n) => *each.entry(*n).or_default() += 1,
                    None => whole += 1,
                }
            }
            // What a kind that does not count is marked with is no count.
            let marked = policy == Policy::NotRmappable && block.kind != Kind::Folio;
            for n in (0..block.pages()).filter(|_| !marked) {
                let expected = each.get(&n).copied().unwrap_or(0);
                assert_eq!(
                    page_mapcount(m, block.head.nth(n)),
                    expected,
                    "page {n} of {id}"
                );
            }
            if block.order == 0 {
                continue;
            }
            let pins = pin_is(policy, block).is_some_and(|(_, counted)| counted);
            let pincount = if pins { block.pinned.len() } else { 0 };
            // Where nobody initialised the fields, they start at zero bytes.
            let raw = u32::from(!is_taken_for_folio(policy, block.kind));
            let each = u32::try_from(each.len()).expect("few");
            let expected = FolioFields {
                large_mapcount: all + raw,
                entire_mapcount: whole + raw,
                nr_pages_mapped: each + if whole > 0 { 0x80_0000 } else { 0 },
                pincount: u32::try_from(pincount).expect("few"),
                nr_pages: if raw == 0 { 1 << block.order } else { 0 },
            };
            assert_eq!(FolioFields::of(m, block.head), expected, "fields of {id}");
        }
        for (space, map) in self.spaces.iter().zip(&self.maps) {
            let everything = VirtRange {
                start: at(0),
                end: at(BEFORE + 8 * HUGE),
            };
            let memmap = self.pages.memmap();
            let found: Vec<_> = space
                .leaves(everything)
                .map(|leaf| {
                    (
                        leaf.at,
                        leaf.level == Level::Pmd,
                        memmap.page(leaf.pte.pfn()),
                    )
                })
                .collect();
            let expected: Vec<_> = map
                .iter()
                .map(|(slot, (id, page))| {
                    let page_of = self.blocks[id].head.nth(page.unwrap_or(0));
                    (at(*slot), page.is_none(), page_of)
                })
                .collect();
            assert_eq!(found, expected, "entries");
            // A table for what is mapped below it, by size of what it covers.
            let mut tables = BTreeSet::new();
            for (slot, (_, page)) in map {
                let at = at(*slot).as_u64();
                tables.extend([(39, at >> 39), (30, at >> 30)]);
                if page.is_some() {
                    tables.insert((21, at >> 21));
                }
            }
            assert_eq!(space.tables(), tables.len() as u64 + 1, "tables");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(Step, Option<u64>)>> {
    let kind = prop_oneof![Just(Kind::Bare), Just(Kind::Compound), Just(Kind::Folio)];
    let order = prop_oneof![Just(0u8), Just(1), Just(2), Just(9)];
    let place = (0..2usize, 0..SLOTS, 0..8usize, 0..5u64, 0..6u64);
    let step = prop_oneof![
        3 => (kind, order).prop_map(|(kind, order)| Step::Alloc(kind, order)),
        4 => place.clone().prop_map(|(space, slot, which, first, nr)| Step::MapPages { space, slot, which, first, nr }),
        4 => place.prop_map(|(space, slot, which, first, nr)| Step::Insert { space, slot, which, first, nr }),
        3 => (0..2usize, 0..3u64, 0..8usize).prop_map(|(space, slot, which)| Step::MapWhole { space, slot, which }),
        3 => (0..2usize, 0..SLOTS, 0..11u64).prop_map(|(space, slot, nr)| Step::Unmap { space, slot, nr }),
        2 => (0..2usize, 0..SLOTS).prop_map(|(space, slot)| Step::Get { space, slot }),
        3 => (0..2usize, 0..SLOTS).prop_map(|(space, slot)| Step::Pin { space, slot }),
        2 => (0..8usize).prop_map(Step::PutGot),
        2 => (0..8usize).prop_map(Step::Unpin),
        2 => (0..8usize).prop_map(Step::PutOwn),
        1 => (0..2usize).prop_map(Step::Exit),
    ];
    let fail = prop_oneof![4 => Just(None), 1 => (0..4u64).prop_map(Some)];
    proptest::collection::vec((step, fail), 1..120)
}

proptest! {
    #![proptest_config(testkit::same_in_every_run(140))]

    #[test]
    fn counts_are_those_of_the_model(
        policy in proptest::sample::select(Policy::ALL.to_vec()),
        steps in steps(),
    ) {
        let w = World::builder().ram(0, 0, 128).boot();
        let free = w.free_pages();
        let pages = Pages::new(&w.m, &w.mm, policy);
        let space = || AddressSpace::new(&pages).expect("memory");
        let mut run = Run {
            pages: &pages,
            m: &w.m,
            blocks: BTreeMap::new(),
            next: 0,
            spaces: vec![space(), space()],
            maps: [BTreeMap::new(), BTreeMap::new()],
        };
        for (step, fail) in steps {
            run.step(step, fail);
            run.check();
        }
        for space in 0..2 {
            run.step(Step::Exit(space), None);
        }
        while let Some((_, block)) = run.blocks.first_key_value() {
            let step = match block {
                Block { own: true, .. } => Step::PutOwn(0),
                Block { got, .. } if !got.is_empty() => Step::PutGot(0),
                _ => Step::Unpin(0),
            };
            run.step(step, None);
            run.check();
        }
        drop(run);
        prop_assert_eq!(pages.bad_pages(), 0);
        prop_assert_eq!(w.free_pages(), free);
        w.check();
    }
}
