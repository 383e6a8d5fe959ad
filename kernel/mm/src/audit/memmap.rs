//! The walk over the struct pages and what maps them, section by section.

use super::layout::{
    ENTRIES, Entry, MIN_FOLDED, RECORD_BYTES, Record, SECTION_FRAMES, SECTION_PAGES, SHARED_TAILS,
    SLOT_BYTES, span, tail_info,
};
use super::{At, Audit, Check, Input};
use crate::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr, VirtAddr};
use crate::machine::Machine;
use crate::vmemmap::RamRange;

/// The compound page that the walk is in the middle of.
#[derive(Clone, Copy)]
struct Block {
    /// Address of the head's struct page.
    head: VirtAddr,
    /// The frame that it lies in.
    head_frame: Pfn,
    /// First frame behind it.
    end: Pfn,
    node: NodeId,
    order: Order,
    folded: bool,
    /// Some of its frames are broken.
    poisoned: bool,
}

/// The walk: it goes up once, and remembers what it is in the middle of.
pub(super) struct Walk<'w, 'a, M, R> {
    audit: &'w mut Audit<'a, M>,
    ram: R,
    /// First frame whose struct page is not accounted for by a block before it.
    next: Pfn,
    block: Option<Block>,
    /// The range of RAM looked at last.
    here: PfnRange,
    /// The last-level table met last: it may belong to two sections.
    table: Option<Pfn>,
}

impl<'w, 'a, M: Machine, R: Iterator<Item = RamRange> + Clone> Walk<'w, 'a, M, R> {
    /// Walks all of `input`'s RAM.
    pub(super) fn over<T>(audit: &'w mut Audit<'a, M>, input: &Input<R, T>) {
        let start = Pfn::new(0);
        let mut walk = Self {
            audit,
            ram: input.ram.clone(),
            next: start,
            block: None,
            here: PfnRange::EMPTY,
            table: None,
        };
        let mut done = 0;
        for RamRange { range, .. } in input.ram.clone() {
            let first = range.start.as_u64() / SECTION_PAGES;
            let end = range.end.as_u64().div_ceil(SECTION_PAGES);
            for section in first.max(done)..end {
                walk.section(Pfn::new(section * SECTION_PAGES));
            }
            done = end.max(done);
        }
    }

    fn section(&mut self, first: Pfn) {
        let start = self.audit.reader.address(first);
        let mut slot = Entry(0);
        for n in 0..SECTION_FRAMES {
            let at = start.offset(n * PAGE_SIZE);
            if n == 0 || at.is_aligned(SLOT_BYTES) {
                let Some(found) = self.audit.reader.slot(at) else {
                    self.audit.report.find(Check::NoMemmap, At::Virt(at), 1, 0);
                    return;
                };
                slot = found;
                self.slot(
                    slot,
                    at,
                    first.offset((n * PAGE_SIZE).div_ceil(RECORD_BYTES)),
                );
            }
            let index = at.as_u64() / span(1) % ENTRIES;
            let leaf = slot.maps(2);
            let entry = if leaf {
                Entry(slot.0 + index * span(1))
            } else {
                self.audit.reader.entry(slot.frame(), index)
            };
            // The frames whose struct pages begin here.
            let begin = |n: u64| first.offset((n * PAGE_SIZE).div_ceil(RECORD_BYTES));
            let pages = PfnRange::new(begin(n), begin(n + 1));
            match self.folded_around(pages.start) {
                Some(_) if leaf => {
                    self.audit
                        .report
                        .find(Check::FoldedLeaf, At::Virt(at), 0, slot.0);
                }
                Some(block) => self.tail_page(block, entry, at, pages),
                None => {
                    if !leaf {
                        self.check_rights(entry, at);
                    }
                    if entry.present() {
                        self.audit.report.memmap_pages += 1;
                        // What belongs to somebody else holds no struct pages.
                        if self.audit.claim(entry.frame(), At::Virt(at)) {
                            self.records(pages, entry.frame());
                        }
                    }
                }
            }
        }
        self.audit.report.sections += 1;
    }

    /// A level-2 entry under which struct pages lie, from `at` on, the first of them that of
    /// `first`. All that an entry of a shared table maps is looked at as ever; but nobody
    /// may use one but its own node's and order's blocks.
    fn slot(&mut self, slot: Entry, at: VirtAddr, first: Pfn) {
        if slot.maps(2) {
            self.audit.report.leaves += 1;
            self.check_rights(slot, at);
        } else if self.audit.rows.is_table(slot.frame()) {
            let block = self.folded_around(first);
            let table = block.and_then(|block| self.audit.rows.table(block.node, block.order));
            if table != Some(slot.frame()) {
                let found = slot.frame().as_u64();
                let expected = table.map_or(0, Pfn::as_u64);
                self.audit
                    .report
                    .find(Check::StrayTable, At::Virt(at), expected, found);
            }
        } else if self.table != Some(slot.frame()) {
            self.table = Some(slot.frame());
            self.audit.report.tables += 1;
        }
    }

    fn check_rights(&mut self, entry: Entry, at: VirtAddr) {
        let found = entry.rights();
        if found != Entry::DATA {
            self.audit
                .report
                .find(Check::MemmapRights, At::Virt(at), Entry::DATA, found);
        }
    }

    /// The folded block of which `pfn`, the first of a page of memmap, is a tail.
    fn folded_around(&self, pfn: Pfn) -> Option<Block> {
        self.block.filter(|block| block.folded && pfn < block.end)
    }

    /// A page of memmap that must be the shared tail page.
    fn tail_page(&mut self, block: Block, entry: Entry, at: VirtAddr, pages: PfnRange) {
        let tail = if SHARED_TAILS {
            self.audit.rows.tail(block.node, block.order)
        } else {
            Some(block.head_frame)
        };
        if block.poisoned && entry.present() && Some(entry.frame()) != tail {
            self.unshared_page(block, entry, at, pages);
            return;
        }
        let report = &mut self.audit.report;
        let rights = entry.rights_and_dirty();
        if rights != Entry::TAIL {
            report.find(Check::TailRights, At::Virt(at), Entry::TAIL, rights);
        }
        let Some(tail) = tail else {
            return;
        };
        if entry.present() && entry.frame() == tail {
            self.audit.rows.count(block.node, block.order);
            self.audit.report.saved += 1;
        } else {
            let (expected, found) = (tail.as_u64(), entry.frame().as_u64());
            self.audit
                .report
                .find(Check::WrongTail, At::Virt(at), expected, found);
        }
    }

    /// A page of memmap of a folded block with broken frames that has a frame of its own.
    fn unshared_page(&mut self, block: Block, entry: Entry, at: VirtAddr, pages: PfnRange) {
        self.check_rights(entry, at);
        self.audit.report.unshared += 1;
        self.audit.report.memmap_pages += 1;
        if !self.audit.claim(entry.frame(), At::Virt(at)) {
            return;
        }
        for pfn in pages.iter() {
            let record = self.audit.reader.record_in(entry.frame(), pfn);
            self.check_tail(block, &record, pfn);
        }
    }

    /// The struct pages of `pages`, which begin in `frame`.
    fn records(&mut self, pages: PfnRange, frame: Pfn) {
        let PfnRange { start, end } = pages;
        if let Some(block) = self.block.filter(|block| start < block.end) {
            // An unfolded block: one record a page is looked at, or all if one of them
            // may say that its frame is broken.
            let looked_at = if block.poisoned { pages.pages() } else { 1 };
            for n in 0..looked_at {
                let record = self.audit.reader.record_in(frame, start.offset(n));
                self.check_tail(block, &record, start.offset(n));
            }
        }
        self.next = self.next.max(start);
        while self.next < end {
            let here = self.next;
            let record = self.audit.reader.record_in(frame, here);
            let order = if record.page_type() == super::layout::TYPE_FREE {
                self.free_block(here, &record)
            } else if record.head() {
                let second = self.audit.reader.record(here.offset(1));
                let order = second.and_then(|second| second.order());
                let order = self.compound(here, &record, order, frame);
                if record.has_poisoned()
                    && let Some(third) = self.audit.reader.record(here.offset(2))
                {
                    self.poison_list(here.block(order), third);
                }
                let tails_end = here.offset(order.pages()).min(end);
                for tail in here.offset(1).as_u64()..tails_end.as_u64() {
                    let tail = Pfn::new(tail);
                    let record = self.audit.reader.record_in(frame, tail);
                    if let Some(block) = self.block {
                        self.check_tail(block, &record, tail);
                    }
                }
                order
            } else {
                self.single(here, &record);
                Order::PAGE
            };
            self.next = here.offset(order.pages());
        }
    }

    /// A page that is neither free nor a head.
    fn single(&mut self, pfn: Pfn, record: &Record) {
        let at = At::Virt(self.audit.reader.address(pfn));
        if record.tail() {
            self.audit
                .report
                .find(Check::OrphanTail, at, 0, record.info);
        }
        if record.folded() {
            self.audit.report.find(Check::StrayFlag, at, 0, 1);
        }
        if record.has_poisoned() {
            self.audit.report.find(Check::StrayPoison, at, 0, 1);
        }
        if record.poisoned() {
            self.audit.report.poisoned += 1;
            // One in use is claimed by who has it.
            if !record.reserved() && !record.allocated() {
                self.audit.claim(pfn, at);
            }
        }
        if !record.reserved() && !self.is_ram(pfn) {
            self.audit.report.find(Check::HoleNotReserved, at, 1, 0);
        }
    }

    fn is_ram(&mut self, pfn: Pfn) -> bool {
        if !self.here.contains(pfn) {
            let mut ranges = self.ram.clone().map(|ram| ram.range);
            self.here = ranges
                .find(|range| range.contains(pfn))
                .unwrap_or(self.here);
        }
        self.here.contains(pfn)
    }

    /// The first page of a free block; the block's order, 0 if that is bad.
    fn free_block(&mut self, first: Pfn, record: &Record) -> Order {
        let Some(order) = self.shape(first, record, record.free_order()) else {
            return Order::PAGE;
        };
        if record.folded() || record.head() || record.poisoned() || record.has_poisoned() {
            let at = At::Virt(self.audit.reader.address(first));
            self.audit.report.find(Check::StrayFlag, at, 0, 1);
        }
        self.audit.report.free_pages += order.pages();
        if let Some(pfn) = self.audit.claims.claim_block(first, order) {
            self.audit
                .report
                .find(Check::FreeFrameInUse, At::Frame(pfn), 0, first.as_u64());
        }
        order
    }

    /// A head; the compound page's order, 0 if that is bad.
    fn compound(
        &mut self,
        head: Pfn,
        record: &Record,
        order: Option<Order>,
        head_frame: Pfn,
    ) -> Order {
        self.block = None;
        let Some(order) = self.shape(head, record, order) else {
            return Order::PAGE;
        };
        let at = At::Virt(self.audit.reader.address(head));
        if order == Order::PAGE || record.tail() {
            self.audit
                .report
                .find(Check::BlockShape, at, 0, record.info);
            return Order::PAGE;
        }
        let node = record.node();
        let folded = record.folded();
        if folded {
            self.audit.report.folded += 1;
            let no_tail = SHARED_TAILS && self.audit.rows.tail(node, order).is_none();
            if order.get() < MIN_FOLDED || no_tail {
                self.audit
                    .report
                    .find(Check::NoTail, at, 1, u64::from(order.get()));
            }
        }
        let end = head.offset(order.pages());
        self.block = Some(Block {
            head: self.audit.reader.address(head),
            head_frame,
            end,
            node,
            order,
            folded,
            poisoned: record.has_poisoned(),
        });
        if record.poisoned() {
            self.audit.report.poisoned += 1;
        }
        order
    }

    /// The list of broken frames of the folio of `block`, on its third record: bit 0 aside
    /// the address of a node, which holds that of the next and a frame's number plus 1.
    fn poison_list(&mut self, block: PfnRange, third: Record) {
        let mut node = third.private & !1;
        for _ in 0..=block.pages() {
            if node == 0 {
                return;
            }
            let at = PhysAddr::new(node);
            let frame = self.audit.reader.word(at.offset(8)).wrapping_sub(1);
            let named = block.contains(Pfn::new(frame));
            if !named || self.audit.reader.is_free(Pfn::new(node / PAGE_SIZE)) {
                break;
            }
            self.audit.report.poisoned += 1;
            node = self.audit.reader.word(at);
        }
        self.audit
            .report
            .find(Check::PoisonList, At::Frame(block.start), 0, node);
    }

    /// `order`, if a block of it can start at `first` with that struct page.
    fn shape(&mut self, first: Pfn, record: &Record, order: Option<Order>) -> Option<Order> {
        let good = order.filter(|order| {
            let inside = self.ram.clone().any(|ram| {
                ram.node == record.node()
                    && ram.range.contains(first)
                    && first.offset(order.pages()) <= ram.range.end
            });
            inside && first.as_u64().is_multiple_of(order.pages()) && !record.reserved()
        });
        if good.is_none() {
            let at = At::Virt(self.audit.reader.address(first));
            self.audit
                .report
                .find(Check::BlockShape, at, 0, record.private);
        }
        good
    }

    fn check_tail(&mut self, block: Block, record: &Record, pfn: Pfn) {
        if record.poisoned() {
            self.audit.report.poisoned += 1;
        }
        let expected = tail_info(block.head, block.order);
        if record.info != expected {
            let at = At::Virt(self.audit.reader.address(pfn));
            self.audit
                .report
                .find(Check::TailMask, at, expected, record.info);
        }
    }
}
