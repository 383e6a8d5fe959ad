//! A fixed block of memory under an allocator and pools of its own: nobody but the case
//! decides what its struct pages hold, so what they cannot hold is known exactly.

use alloc::boxed::Box;

use ktest::{Outcome, Stop, check, check_eq, fail, skip};
use mm::addr::{NodeId, Order, Pfn};
use mm::buddy::Buddy;
use mm::frames::Placement;
use mm::hugetlb::HugeTlb;
use mm::machine::Machine;
use mm::page::{self, CompoundInfo, Flags, Page, PageType, STRUCT_PAGE_SIZE};
use mm::sync::{IrqLock, LockClass};

use crate::{Env, sweep};

/// In `private` of a hugetlb folio's head while the folio is on its pool's free list.
#[doc(alias = "HPageFreed")]
const HPG_FREED: u64 = 1;

/// The block, and who decides about it.
pub(super) struct Arena<'a, 'b, M: Machine> {
    pub(super) env: &'a Env<'b, M>,
    pub(super) buddy: IrqLock<Buddy>,
    /// Pools that only folios of the block are put into.
    pub(super) pools: Box<HugeTlb>,
    /// First frame of the block.
    block: Pfn,
    pub(super) order: Order,
    pub(super) node: NodeId,
    /// The orders it is cut into, lowest first.
    pub(super) orders: &'static [Order],
}

impl<'a, 'b, M: Machine> Arena<'a, 'b, M> {
    /// Runs `case` in a free block, the largest from `smallest` to `largest` that there is,
    /// cut into `orders`; all of it must be free, and clean, at the end.
    pub(super) fn with(
        env: &'a Env<'b, M>,
        (smallest, largest): (Order, Order),
        orders: &'static [Order],
        case: impl FnOnce(&Self) -> Outcome,
    ) -> Outcome {
        let (m, near) = (env.m, Placement::local(env.m));
        // The upper half is nobody's: a free neighbour would be merged with, and belongs
        // to another allocator.
        let mut sizes = Order::range_inclusive(smallest, largest).rev();
        let taken = sizes.find_map(|order| {
            let both = order.up()?;
            Some((env.alloc(both, near)?, order, both))
        });
        let Some((block, order, both)) = taken else {
            skip!(
                "no free block twice as large as one of order {smallest}, for the case and for nobody"
            );
        };
        let (first, memmap) = (env.page(block), env.mm.vmemmap.memmap());
        let mark = first.index(m);
        first.set_index(m, 0);
        let node = first.node(m);
        let mut buddy = Buddy::new(node, memmap);
        buddy.add_range(m, block.block(order));
        let pools = Box::new(HugeTlb::new());
        pools.init(m, memmap);
        let arena = Self {
            env,
            buddy: IrqLock::new(LockClass::Buddy, buddy),
            pools,
            block,
            order,
            node,
            orders,
        };
        let outcome = case(&arena);
        if outcome.is_err() {
            first.set_index(m, mark);
            if sweep::wipe(env, block, both) {
                env.free(block, both);
            }
            return outcome;
        }
        let whole = arena.buddy.lock(m).alloc(m, order);
        check_eq!(whole, Some(block), "the block is not free as a whole");
        for n in 0..order.pages() {
            if let Err(bad) = page::check_unused(m, first.nth(n)) {
                fail!("page {n} of a free block: {bad}");
            }
        }
        first.set_index(m, mark);
        env.free(block, both);
        Ok(())
    }

    /// Struct pages in it.
    pub(super) const fn pages(&self) -> u64 {
        self.order.pages()
    }

    /// Its `n`th struct page.
    pub(super) fn page(&self, n: u64) -> Page {
        self.env.page(self.block).nth(n)
    }

    /// Whether a block can start at the `n`th page.
    fn starts_block(&self, n: u64) -> bool {
        n.is_multiple_of(self.orders[0].pages())
    }

    /// Whether `raw` can be a link to a page that a block starts with, or none.
    fn is_link(&self, raw: u64) -> bool {
        let first = self.page(0).address().as_u64();
        let n = raw.wrapping_sub(first) / STRUCT_PAGE_SIZE;
        let whole = raw.wrapping_sub(first).is_multiple_of(STRUCT_PAGE_SIZE);
        raw == 0 || (whole && n < self.pages() && self.starts_block(n))
    }

    /// Whether `raw` is the order of a block that may be cut.
    fn is_order(&self, raw: u64) -> bool {
        (u64::from(self.orders[0].get())..=u64::from(self.order.get())).contains(&raw)
    }

    /// Fails if the `n`th struct page holds, in any field, what no state of any block
    /// that it may belong to can have put there. A field is one load, so each is judged
    /// by itself.
    pub(super) fn check(&self, n: u64) -> Outcome {
        let (m, page) = (self.env.m, self.page(n));
        let record = page.record(m);
        let starts = self.starts_block(n);
        let huge = self.orders.contains(&Order::PMD) && n.is_multiple_of(Order::PMD.pages());
        let flags = Flags::from_raw(record[0]);
        let bits = [
            Flags::empty(),
            Flags::HEAD,
            Flags::HEAD.with(Flags::VMEMMAP_OPTIMIZED),
        ];
        let info = CompoundInfo::from_raw(record[1]);
        let (page_type, count) = halves(record[6]);
        let good = [
            flags.node() == self.node
                && bits[..if starts { 3 } else { 1 }]
                    .iter()
                    .any(|bits| bits.bits() == flags.bits()),
            self.is_info(n, info),
            if starts {
                self.is_link(record[2])
            } else {
                record[2] == 0
            },
            record[3] == 0,
            record[4] == 0 || (starts && self.is_order(record[4] & 0xffff_ffff)),
            record[5] == 0
                || (starts && (self.is_order(record[5]) || record[5] == HPG_FREED))
                || (n > 0 && self.starts_block(n - 1) && self.is_folio_order(record[5])),
            page_type == PageType::NONE.raw()
                || (starts && page_type == PageType::BUDDY.raw())
                || (huge && page_type == PageType::HUGETLB.raw()),
            u64::from(count) <= if huge { m.cpus() as u64 } else { 0 },
            record.get(7).is_none_or(|unused| *unused == 0),
        ];
        if let Some(which) = good.iter().position(|good| !good) {
            const FIELDS: [&str; 9] = [
                "flags",
                "compound_info",
                "lru.prev",
                "mapping",
                "index",
                "private",
                "page type",
                "count",
                "unused",
            ];
            fail!("page {n}: impossible {}: {record:x?}", FIELDS[which]);
        }
        self.check_head(n, page)
    }

    /// What the accessors say, each a load of its own.
    fn check_head(&self, n: u64, page: Page) -> Outcome {
        let m = self.env.m;
        let head = page.compound_head(m);
        let known = head == page
            || self
                .orders
                .iter()
                .any(|order| head == self.page(n / order.pages() * order.pages()));
        check!(known, "page {n}: its head cannot be {head:?}");
        check_eq!(page.node(m), self.node, "page {n}");
        check!(
            !page.is_head(m) || self.starts_block(n),
            "page {n} is a head"
        );
        Ok(())
    }

    fn is_folio_order(&self, raw: u64) -> bool {
        let mut orders = self.orders.iter();
        orders.any(|order| u64::from(order.get()) == raw)
    }

    /// A tail of a block that page `n` is not the first of, or a link or nothing.
    fn is_info(&self, n: u64, info: CompoundInfo) -> bool {
        if !info.is_tail() {
            return info == CompoundInfo::NONE
                || (self.starts_block(n) && self.is_link(info.raw()));
        }
        let mut orders = self.orders.iter().filter(|order| **order <= self.order);
        orders.any(|order| {
            let head = self.page(n / order.pages() * order.pages());
            info == head.tail_info(*order) && !n.is_multiple_of(order.pages())
        })
    }

    /// As a walker over pfns does: takes a reference on the folio of page `n` if it has
    /// one, looks again, and drops it. Whether it got one. With `raw` it does not look for
    /// the head first.
    pub(super) fn get_and_put(&self, n: u64, raw: bool) -> Result<bool, Stop> {
        let (m, page) = (self.env.m, self.page(n));
        let head = if raw { page } else { page.compound_head(m) };
        if !page::folio_try_get(m, head) {
            return Ok(false);
        }
        // Whoever has a reference has the folio: now nothing of it changes.
        check!(
            head.is_head(m) && head.page_type(m) == PageType::HUGETLB,
            "a reference on page {n}, which is no folio: {:x?}",
            head.record(m)
        );
        let order = page::folio_order(m, head);
        // The page may have gone to another folio before the reference was there.
        if page.compound_head(m) == head {
            for tail in [1, page::HEAD_PAGES, order.pages() - 1].map(|n| head.nth(n)) {
                let found = (tail.compound_head(m), tail.ref_count(m));
                check_eq!(found, (head, 0), "{tail:?} of a folio of order {order}");
            }
        }
        let Some(h) = self.pools.hstate(order) else {
            fail!("page {n}: a reference on a folio of order {order}");
        };
        check!(head.ref_count(m) > 0, "page {n}: my reference is gone");
        h.put(m, head);
        Ok(true)
    }
}

/// The lower and the upper 4 bytes.
const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
