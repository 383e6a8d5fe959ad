//! What a case that ended early has left behind: found by looking at the machine, and given back.
//!
//! No case has to say what it holds. Whatever is allocated or mapped now, was not before it and is
//! no part of the memmap is the case's: blocks, folios taken from pools, page tables, frames that
//! it has marked broken.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use mm::addr::{ENTRIES, Order, PAGE_SIZE, Pfn, PhysAddr};
use mm::hugetlb::Hstate;
use mm::hwpoison::PoisonPolicy;
use mm::machine::{FailPoint, Machine};
use mm::page::{self, Flags, Page, PageType};
use mm::paging::{self, Level, Pte, PteFlags};
use mm::vmemmap::{self, Fill};
use spin::Mutex;

use crate::Env;
use crate::env::Snapshot;

/// Most blocks that are kept account of. With more in use, as after `memfill`, it cannot be told
/// what is a case's, and nothing is swept.
const MOST: usize = 4096;

/// What is no case's, and stays.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<State>>);

#[derive(Debug)]
struct State {
    /// The numbers of the machine when it was looked at.
    numbers: Snapshot,
    /// First frames of blocks in use; `None` if they are more than [`MOST`].
    blocks: Option<BTreeSet<Pfn>>,
    /// Frames that were broken.
    broken: u64,
    /// Which entries of the top-level table were present.
    windows: BTreeSet<u64>,
    switches: Switches,
}

/// What a case may switch for its length.
#[derive(Clone, Copy, Debug)]
struct Switches {
    optimize: bool,
    policy: PoisonPolicy,
    soft_offline: bool,
    ceiling: u64,
}

impl Switches {
    fn of<M: Machine>(env: &Env<'_, M>) -> Self {
        Self {
            optimize: env.mm.hugetlb.optimizes(),
            policy: env.mm.hwpoison.policy(),
            soft_offline: env.mm.hwpoison.soft_offline_enabled(),
            ceiling: paging::full_flush_ceiling(),
        }
    }

    fn restore<M: Machine>(self, env: &Env<'_, M>) {
        env.mm.hugetlb.set_optimize(self.optimize);
        env.mm.hwpoison.set_policy(self.policy);
        env.mm.hwpoison.enable_soft_offline(self.soft_offline);
        paging::set_full_flush_ceiling(self.ceiling);
    }
}

impl Kept {
    /// Knows nothing yet: the first case that is run looks.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Notes that `head` is in use by somebody else than the case that runs now, or no longer.
    pub(crate) fn set_aside(&self, head: Pfn, aside: bool) {
        let mut state = self.0.lock();
        let Some(blocks) = state.as_mut().and_then(|state| state.blocks.as_mut()) else {
            return;
        };
        if aside {
            blocks.insert(head);
        } else {
            blocks.remove(&head);
        }
    }

    /// Looks at the machine before a case. The blocks are looked at only if the machine's numbers
    /// are not those of the last look.
    pub(crate) fn look<M: Machine>(&self, env: &Env<'_, M>) {
        let numbers = env.snapshot();
        let mut state = self.0.lock();
        let before = state.take().filter(|state| state.numbers == numbers);
        let blocks = match before {
            Some(before) => before.blocks,
            None => blocks_in_use(env),
        };
        *state = Some(State {
            numbers,
            blocks,
            broken: env.mm.hwpoison.known(),
            windows: (0..ENTRIES)
                .filter(|n| top_entry(env, *n).is_present())
                .collect(),
            switches: Switches::of(env),
        });
    }

    /// Puts the folios of `h`, of pools that are the case's own, that somebody still has.
    pub(crate) fn put_folios<M: Machine>(&self, env: &Env<'_, M>, h: &Hstate) {
        let state = self.0.lock();
        let Some(kept) = state.as_ref().and_then(|state| state.blocks.as_ref()) else {
            return;
        };
        each_block(env, |pfn, order| {
            let head = env.page(pfn);
            let is_folio = head.page_type(env.m) == PageType::HUGETLB && order == h.order();
            if is_folio && !kept.contains(&pfn) && !h.has_free(env.m, head) {
                unmark(env, head);
                h.put(env.m, head);
            }
        });
    }

    /// Gives back what is not kept. Called with no failure injected any more, by the CPU that ran
    /// the case, when all others are done with it.
    pub(crate) fn sweep<M: Machine>(&self, env: &Env<'_, M>) {
        for point in FailPoint::ALL {
            env.m.fail_nth(point, None);
        }
        let state = self.0.lock();
        let Some(State {
            blocks: Some(kept),
            broken,
            windows,
            switches,
            ..
        }) = state.as_ref()
        else {
            return;
        };
        unmap(env, (0..ENTRIES).filter(|n| !windows.contains(n)));
        if env.mm.hwpoison.known() > *broken {
            mend(env);
        }
        // What is folded needs memory to unfold, which the rest may have.
        for folded in [false, true] {
            let mut left = Vec::new();
            each_block(env, |pfn, order| {
                let head = env.page(pfn);
                let is_folded = head.is_head(env.m) && vmemmap::is_optimized(env.m, head);
                if !kept.contains(&pfn) && is_folded == folded {
                    left.push((pfn, order));
                }
            });
            if left.is_empty() {
                continue;
            }
            let used = used_by_memmap(env);
            for (pfn, order) in left {
                if !used.contains(&pfn) {
                    give_back(env, pfn, order);
                }
            }
        }
        switches.restore(env);
    }
}

/// The first frames of the blocks in use, unless they are more than [`MOST`].
pub(crate) fn blocks_in_use<M: Machine>(env: &Env<'_, M>) -> Option<BTreeSet<Pfn>> {
    let mut blocks = Some(BTreeSet::new());
    each_block(env, |pfn, _| {
        blocks = blocks.take().filter(|seen| seen.len() < MOST);
        if let Some(seen) = &mut blocks {
            seen.insert(pfn);
        }
    });
    blocks
}

/// Calls `each` with every block that is in use: allocated, and neither free in a pool nor a frame
/// of struct pages or shared tails.
fn each_block<M: Machine>(env: &Env<'_, M>, mut each: impl FnMut(Pfn, Order)) {
    each_run(env, |pfn, page| match page.page_type(env.m) {
        PageType::BUDDY => free_order(env.m, page),
        PageType::MEMMAP | PageType::TAILS => Some(Order::PAGE),
        PageType::HUGETLB => {
            let order = page::folio_order(env.m, page);
            if !is_in_pool(env, page, order) {
                each(pfn, order);
            }
            Some(order)
        }
        _ => page::allocated_order(env.m, page).inspect(|order| each(pfn, *order)),
    });
}

/// Whether the folio with head `head` is on the free list of its pool.
fn is_in_pool<M: Machine>(env: &Env<'_, M>, head: Page, order: Order) -> bool {
    let h = env.mm.hugetlb.hstate(order);
    h.is_some_and(|h| h.has_free(env.m, head))
}

fn top_entry<M: Machine>(env: &Env<'_, M>, n: u64) -> Pte {
    Pte::from_raw(env.m.read_phys(entry_at(env.m.root(), n)))
}

const fn entry_at(table: Pfn, n: u64) -> PhysAddr {
    table.phys().offset(n * 8)
}

/// Adds `table`, of `level`, and all tables below it.
fn tables_below<M: Machine>(m: &M, table: Pfn, level: Level, found: &mut BTreeSet<Pfn>) {
    if !found.insert(table) {
        return;
    }
    let Some(below) = level.down() else { return };
    for n in 0..ENTRIES {
        let entry = Pte::from_raw(m.read_phys(entry_at(table, n)));
        if entry.is_present() && !entry.is_leaf(level) {
            tables_below(m, entry.pfn(), below, found);
        }
    }
}

/// Empties the entries of the top-level table that `chosen` names, and gives their tables back.
fn unmap<M: Machine>(env: &Env<'_, M>, chosen: impl Iterator<Item = u64>) {
    let mut tables = BTreeSet::new();
    for n in chosen {
        let entry = top_entry(env, n);
        if entry.is_present() {
            tables_below(env.m, entry.pfn(), Level::Pud, &mut tables);
            env.m.write_phys(entry_at(env.m.root(), n), 0);
        }
    }
    if tables.is_empty() {
        return;
    }
    env.m.on_each_cpu(&|| env.m.flush_all_local());
    for table in tables {
        let page = env.page(table);
        if page::allocated_order(env.m, page) == Some(Order::PAGE) {
            page.set_page_type(env.m, PageType::NONE);
            env.free(table, Order::PAGE);
        }
    }
}

/// Takes the tables of the scratch window back, which no case needs after it.
pub(crate) fn clear_scratch<M: Machine>(env: &Env<'_, M>) {
    unmap(env, core::iter::once(Level::Pgd.index(env.scratch)));
}

/// Repairs every frame that is broken.
fn mend<M: Machine>(env: &Env<'_, M>) {
    let memmap = env.mm.vmemmap.memmap();
    each_run(env, |pfn, page| {
        if page.page_type(env.m) == PageType::BUDDY {
            return free_order(env.m, page);
        }
        if env.mm.hugetlb.is_raw_hwpoison(env.m, memmap, page) {
            // A folio that does not know which of its frames are broken keeps them.
            let _ = env.mm.unpoison_memory(env.m, pfn);
        }
        None
    });
}

/// Calls `each` with the page of each frame of RAM; what it says is a block is passed over.
fn each_run<M: Machine>(env: &Env<'_, M>, mut each: impl FnMut(Pfn, Page) -> Option<Order>) {
    for ram in env.ram {
        let mut pfn = ram.range.start;
        while pfn < ram.range.end {
            pfn = pfn.offset(each(pfn, env.page(pfn)).map_or(1, Order::pages));
        }
    }
}

/// The order of the free block that starts at `page`.
fn free_order<M: Machine>(m: &M, page: Page) -> Option<Order> {
    u8::try_from(page.private(m)).ok().and_then(Order::new)
}

/// The page tables in use, and the shared ones, whether or not anything points to them.
fn used_by_memmap<M: Machine>(env: &Env<'_, M>) -> BTreeSet<Pfn> {
    let mut used = BTreeSet::new();
    tables_below(env.m, env.m.root(), Level::Pgd, &mut used);
    for node in env.mm.nodes.online() {
        let orders = Order::range_inclusive(Order::PAGE, Order::MAX);
        used.extend(orders.filter_map(|order| env.mm.vmemmap.existing_table(node, order)));
    }
    used
}

/// Makes the folio with head `head` one that a single user has, without what cases write to tell it
/// again.
fn unmark<M: Machine>(env: &Env<'_, M>, head: Page) {
    head.set_mapping(env.m, 0);
    head.set_ref_count(env.m, 1);
}

/// Gives a block back in whatever state it is.
fn give_back<M: Machine>(env: &Env<'_, M>, block: Pfn, order: Order) {
    let head = env.page(block);
    if head.page_type(env.m) == PageType::HUGETLB {
        if let Some(h) = env.mm.hugetlb.hstate(order) {
            unmark(env, head);
            env.mm.hugetlb.put(env.m, env.backing(), h, head);
        }
        return;
    }
    if wipe(env, block, order) {
        env.free(block, order);
    }
}

/// Makes the struct pages of an allocated block what they were when it was allocated, whatever is
/// in them: compound pages, folded or not, or blocks of another allocator. Returns false if some
/// cannot be written, where a case has found the machine broken or there is no memory to unfold
/// them: the block is lost then.
pub(crate) fn wipe<M: Machine>(env: &Env<'_, M>, block: Pfn, order: Order) -> bool {
    let (m, first) = (env.m, env.page(block));
    let (mark, node) = (first.index(m), first.node(m));
    let mut n = 0;
    while n < order.pages() {
        let head = first.nth(n);
        let mut pages = 1;
        if head.is_head(m) && vmemmap::is_optimized(m, head) {
            let Some(order) = page::folio_order_seen(m, head) else {
                return false;
            };
            head.set_ref_count(m, 0);
            let vmemmap = &env.mm.vmemmap;
            if vmemmap.restore_folio(m, &env.mm.nodes, head, order, Fill::Tails) != Ok(()) {
                return false;
            }
            pages = order.pages();
        }
        n += pages;
    }
    let (mut at, end) = (first.address(), first.nth(order.pages()).address());
    while at < end {
        let leaf = paging::leaf(m, m.root(), at);
        if !leaf.is_some_and(|leaf| leaf.pte.flags().contains(PteFlags::WRITABLE)) {
            return false;
        }
        at = at.align_down(PAGE_SIZE).offset(PAGE_SIZE);
    }
    let clean = page::clean_record(node, Flags::empty());
    for n in 0..order.pages() {
        first.nth(n).set_record(m, &clean);
    }
    first.set_index(m, mark);
    true
}
