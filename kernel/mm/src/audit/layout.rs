//! Table entries and struct pages as bytes, from the manual and the design, not
//! from the code that is being checked.

use crate::addr::{NodeId, Order, Pfn, PhysAddr, VirtAddr};
use crate::machine::Machine;

/// Entries in a table.
pub(super) const ENTRIES: u64 = 512;
/// Bytes behind a level-2 entry: the struct pages of 128 MiB.
pub(super) const SLOT_BYTES: u64 = 0x20_0000;
/// Frames in a section.
pub(super) const SECTION_PAGES: u64 = 0x8000;
/// Bytes of a struct page.
pub(super) const RECORD_BYTES: u64 = if cfg!(page_size = "64") { 0x40 } else { 0x38 };
/// Frames that a section's struct pages fill.
pub(super) const SECTION_FRAMES: u64 = SECTION_PAGES * RECORD_BYTES / 0x1000;

/// In the fifth word of the first page of an allocated block, beside its order.
const ALLOCATED: u64 = 0xa110_c000_0000_0000;
/// First page of a free block, as a page type.
pub(super) const TYPE_FREE: u32 = 0xf000_0000;
/// Page table, as a page type.
pub(super) const TYPE_TABLE: u32 = 0xf200_0000;
/// Shared tail page, as a page type.
pub(super) const TYPE_TAILS: u32 = 0xf900_0000;

/// The lowest order that can be folded.
pub(super) const MIN_FOLDED: u8 = 7;
/// The highest order.
pub(super) const MAX_ORDER: u8 = 22;

/// A table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    const P: u64 = 0x001;
    const W: u64 = 0x002;
    const U: u64 = 0x004;
    const A: u64 = 0x020;
    const D: u64 = 0x040;
    const PS: u64 = 0x080;
    const G: u64 = 0x100;
    const XD: u64 = 0x8000_0000_0000_0000;

    /// The bits that say who may do what, and whether somebody wrote.
    const RIGHTS: u64 = Self::P | Self::W | Self::U | Self::XD;
    /// Rights of a page of memmap: writable data.
    pub(super) const DATA: u64 = Self::P | Self::W | Self::XD;
    /// Rights, and dirty bit, of an entry for a shared tail page.
    pub(super) const TAIL: u64 = Self::P | Self::XD;

    /// All of an entry for the shared tail page `frame`, but for the accessed bit: that one
    /// is the processor's.
    #[inline]
    pub(super) const fn tail(frame: Pfn) -> u64 {
        frame.as_u64() << 12 | Self::TAIL | Self::G
    }

    /// All bits but the accessed one.
    #[inline]
    pub(super) const fn but_accessed(self) -> u64 {
        self.0 & !Self::A
    }

    #[inline]
    pub(super) const fn present(self) -> bool {
        self.0 & Self::P != 0
    }

    #[inline]
    pub(super) const fn writable(self) -> bool {
        self.0 & Self::W != 0
    }

    #[inline]
    pub(super) const fn user(self) -> bool {
        self.0 & Self::U != 0
    }

    #[inline]
    pub(super) const fn executable(self) -> bool {
        self.0 & Self::XD == 0
    }

    /// Maps memory, if it stands at `level`.
    #[inline]
    pub(super) const fn maps(self, level: u8) -> bool {
        self.present() && (level == 1 || self.0 & Self::PS != 0)
    }

    #[inline]
    pub(super) const fn rights(self) -> u64 {
        self.0 & Self::RIGHTS
    }

    #[inline]
    pub(super) const fn rights_and_dirty(self) -> u64 {
        self.0 & (Self::RIGHTS | Self::D)
    }

    #[inline]
    pub(super) const fn frame(self) -> Pfn {
        Pfn::new((self.0 >> 12) & 0xff_ffff_ffff)
    }
}

/// Bytes behind an entry of `level`, 1 to 4.
#[inline]
pub(super) const fn span(level: u8) -> u64 {
    0x1000 << (9 * (level - 1))
}

/// Whether folded blocks of an order share one frame of tails on a node.
pub(super) const SHARED_TAILS: bool = cfg!(any(encoding = "mask", encoding = "order"));

/// What a tail of a block of `order` with head `head` has in its second word.
pub(super) const fn tail_info(head: VirtAddr, order: Order) -> u64 {
    if cfg!(encoding = "order") {
        return order.get() as u64 * 2 + 1;
    }
    if cfg!(not(encoding = "mask")) {
        return head.as_u64() + 1;
    }
    let mut mask = u64::MAX;
    let mut bit = 0;
    while bit < order.get() as u32 + 6 {
        mask &= !(1 << bit);
        bit += 1;
    }
    mask | 1
}

/// The 64 bytes that every struct page in a shared tail page must be.
#[inline]
pub(super) const fn tail_record(node: NodeId, order: Order) -> [u64; 8] {
    let flags = (node.get() as u64) << 58;
    let info = tail_info(VirtAddr::new(0), order);
    // Map count -1 in the low half of the seventh word, count 0 in the high half.
    [flags, info, 0, 0, 0, 0, 0x0000_0000_ffff_ffff, 0]
}

/// What the audit needs of a struct page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    flags: u64,
    /// The second word: `compound_info`.
    pub(super) info: u64,
    /// The sixth word: a free block's order, or a folio's in its first tail.
    pub(super) private: u64,
    index: u64,
    counts: u64,
}

impl Record {
    fn of(word: impl Fn(u64) -> u64) -> Self {
        Self {
            flags: word(0),
            info: word(1),
            private: word(5),
            index: word(4),
            counts: word(6),
        }
    }

    #[inline]
    pub(super) const fn reserved(&self) -> bool {
        self.flags & 0b0001 != 0
    }

    /// An allocated block starts here.
    #[inline]
    pub(super) const fn allocated(&self) -> bool {
        self.index & ALLOCATED == ALLOCATED
    }

    #[inline]
    pub(super) const fn head(&self) -> bool {
        self.flags & 0b0010 != 0
    }

    #[inline]
    pub(super) const fn folded(&self) -> bool {
        self.flags & 0b0100 != 0
    }

    /// The frame is broken.
    #[inline]
    pub(super) const fn poisoned(&self) -> bool {
        self.flags & 0b1000 != 0
    }

    /// A frame of the folio of which this is the head is broken.
    #[inline]
    pub(super) const fn has_poisoned(&self) -> bool {
        self.flags & 0b1_0000 != 0
    }

    #[inline]
    pub(super) const fn tail(&self) -> bool {
        self.info & 1 != 0
    }

    #[inline]
    pub(super) const fn node(&self) -> NodeId {
        NodeId::of((self.flags >> 58) as u8)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    #[inline]
    pub(super) const fn page_type(&self) -> u32 {
        self.counts as u32
    }

    /// The order in `private`, if it is one.
    #[inline]
    pub(super) fn order(&self) -> Option<Order> {
        u8::try_from(self.private).ok().and_then(Order::new)
    }

    /// The order of the free block that starts here, if one does.
    #[inline]
    pub(super) fn free_order(&self) -> Option<Order> {
        (self.page_type() == TYPE_FREE && !self.tail())
            .then(|| self.order())
            .flatten()
    }
}

/// Reads tables and struct pages by physical address.
#[derive(Debug)]
pub(super) struct Reader<'a, M> {
    machine: &'a M,
    base: VirtAddr,
}

impl<'a, M: Machine> Reader<'a, M> {
    #[inline]
    pub(super) const fn new(machine: &'a M, base: VirtAddr) -> Self {
        Self { machine, base }
    }

    #[inline]
    pub(super) fn root(&self) -> Pfn {
        self.machine.root()
    }

    #[inline]
    pub(super) fn word(&self, at: PhysAddr) -> u64 {
        self.machine.read_phys(at)
    }

    /// Entry `index` of `table`.
    #[inline]
    pub(super) fn entry(&self, table: Pfn, index: u64) -> Entry {
        Entry(self.word(table.phys().offset(index * 8)))
    }

    /// Address of the struct page of `pfn`.
    #[inline]
    pub(super) fn address(&self, pfn: Pfn) -> VirtAddr {
        self.base.offset(pfn.as_u64() * RECORD_BYTES)
    }

    /// The level-2 entry for `at`, unless a higher one is absent.
    pub(super) fn slot(&self, at: VirtAddr) -> Option<Entry> {
        let mut table = self.root();
        for level in [4, 3] {
            let entry = self.entry(table, at.as_u64() / span(level) % ENTRIES);
            if !entry.present() || entry.maps(level) {
                return None;
            }
            table = entry.frame();
        }
        let entry = self.entry(table, at.as_u64() / span(2) % ENTRIES);
        entry.present().then_some(entry)
    }

    /// The struct page of `pfn`, the frame of whose first byte is `frame`. One that lies in
    /// two frames is read through the tables, and all zero if the second is missing.
    pub(super) fn record_in(&self, frame: Pfn, pfn: Pfn) -> Record {
        let at = self.address(pfn);
        let offset = at.as_u64() % span(1);
        let inside = |n: u64| self.word(frame.phys().offset(offset + n * 8));
        let through = |n: u64| {
            let at = at.offset(n * 8);
            let frame = self.frame(at);
            frame.map_or(0, |frame| {
                self.word(frame.phys().offset(at.as_u64() % span(1)))
            })
        };
        if offset + RECORD_BYTES <= span(1) {
            Record::of(inside)
        } else {
            Record::of(through)
        }
    }

    /// The struct page of `pfn`, if there is one.
    #[inline]
    pub(super) fn record(&self, pfn: Pfn) -> Option<Record> {
        let frame = self.frame(self.address(pfn))?;
        Some(self.record_in(frame, pfn))
    }

    /// The frame behind `at`, if there is one.
    fn frame(&self, at: VirtAddr) -> Option<Pfn> {
        let slot = self.slot(at)?;
        let index = at.as_u64() / span(1) % ENTRIES;
        if slot.maps(2) {
            return Some(slot.frame().offset(index));
        }
        let entry = self.entry(slot.frame(), index);
        entry.present().then(|| entry.frame())
    }

    /// Whether `pfn` lies in a free block.
    #[inline]
    pub(super) fn is_free(&self, pfn: Pfn) -> bool {
        (0..=MAX_ORDER).filter_map(Order::new).any(|order| {
            let first = Pfn::new(pfn.as_u64() >> order.get() << order.get());
            let around = self.record(first).and_then(|record| record.free_order());
            around.is_some_and(|around| around >= order)
        })
    }
}
