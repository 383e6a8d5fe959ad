//! The audit of a memdesc map: what its tables, struct pages and descriptors say,
//! against each other and against the ledger. It reads memory by physical address,
//! walks the tables and decodes words itself, and shares no code with what it checks.

use core::fmt;

use super::descriptor::Kind;
use super::layout::StructPage;
use super::map::{MemdescMap, State};
use super::slab;
use crate::addr::{Order, Pfn, PhysAddr, VirtAddr};
use crate::machine::Machine;
use crate::page::PageType;

/// Something that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What does not hold.
    pub what: &'static str,
    /// Where: a frame of the map, an address, or 0 for a sum.
    pub at: u64,
    /// What should be there.
    pub expected: u64,
    /// What is.
    pub found: u64,
}

/// What an audit found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Frames of struct pages that the window's entries lead to.
    pub frames: u64,
    /// Entries that lead to a frame that another entry leads to as well.
    pub saved: u64,
    /// Blocks with such entries.
    pub folded: u64,
    /// Tables of the window.
    pub tables: u64,
    /// Blocks with a descriptor, by [`Kind`].
    pub descriptors: [u64; 4],
    /// Pages whose word says that they are free.
    pub free: u64,
    /// Pages that are broken or reserved and nobody's.
    pub withheld: u64,
    /// How many things do not hold.
    pub findings: u64,
    /// The first of them.
    pub first: Option<Finding>,
}

impl Audit {
    /// Whether everything holds.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.findings == 0
    }

    fn find(&mut self, what: &'static str, at: u64, expected: u64, found: u64) {
        self.findings += 1;
        self.first.get_or_insert(Finding {
            what,
            at,
            expected,
            found,
        });
    }

    fn equal(&mut self, what: &'static str, at: u64, expected: u64, found: u64) {
        if expected != found {
            self.find(what, at, expected, found);
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            None => write!(f, "memdesc audit: nothing found"),
            Some(first) => write!(
                f,
                "memdesc audit: {} findings; first: {}, at {:#x}: expected {:#x}, found {:#x}",
                self.findings, first.what, first.at, first.expected, first.found
            ),
        }
    }
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Type numbers, once more.
const FREE: u64 = 5;
const POISON: u64 = 11;
const EXCLUSIVE: u64 = 12;
const RESERVED: u64 = 0x10;

/// The raw last-level entry for `at`, or 0.
fn entry<M: Machine>(m: &M, at: VirtAddr) -> u64 {
    let mut table = m.root().phys();
    for shift in [39, 30, 21] {
        let raw = m.read_phys(table.offset((at.as_u64() >> shift & 511) * 8));
        if raw & PRESENT == 0 {
            return 0;
        }
        table = PhysAddr::new(raw & FRAME);
    }
    m.read_phys(table.offset((at.as_u64() >> 12 & 511) * 8))
}

/// A block under audit.
#[derive(Clone, Copy)]
struct Block {
    first: u64,
    order: u32,
    /// What its pages' words are made of.
    word: u64,
    /// What the descriptor says, or the word.
    folded: bool,
}

impl Block {
    const fn pages(self) -> u64 {
        1 << self.order
    }

    /// Whether a page of it may hold `word`.
    fn allows(self, word: u64, size: u64) -> bool {
        let free = self.word & 15 == FREE;
        let broken = word
            == (if free {
                POISON
            } else {
                self.word & !15 | POISON
            });
        let exclusive = self.word & 15 == 2 && word == self.word & !15 | EXCLUSIVE;
        word == self.word
            || size == 8 && (broken || exclusive)
            || free && (broken || word == RESERVED)
    }
}

impl<L: StructPage> MemdescMap<L> {
    /// Checks everything. Nobody takes or drops references meanwhile.
    pub fn audit<M: Machine>(&self, m: &M) -> Audit {
        let state = &*self.lock(m);
        let mut audit = Audit::default();
        let mut pfn = self.range().start.as_u64();
        while pfn < self.range().end.as_u64() {
            pfn = self.audit_block(m, &mut audit, pfn);
        }
        self.audit_tables(m, &mut audit);
        let t = &state.totals;
        audit.equal("frames of struct pages", 0, t.frames, audit.frames);
        audit.equal("frames saved", 0, t.saved, audit.saved);
        audit.equal("folded blocks", 0, t.folded, audit.folded);
        audit.equal("tables", 0, t.tables, audit.tables);
        let all = self.range().pages() * L::SIZE / 4096;
        audit.equal(
            "frames and saved frames",
            0,
            all,
            audit.frames + audit.saved,
        );
        for kind in Kind::ALL {
            let found = audit.descriptors[kind as usize];
            audit.equal(
                "descriptors in use",
                kind as u64,
                t.descriptors[kind as usize],
                found,
            );
        }
        audit_slabs(m, &mut audit, state);
        audit
    }

    fn address(&self, pfn: u64) -> VirtAddr {
        self.page(Pfn::new(pfn)).address()
    }

    /// A word of the struct page of `pfn`, by physical address.
    fn raw<M: Machine>(&self, m: &M, pfn: u64, offset: u64) -> u64 {
        let at = self.address(pfn).as_u64() + offset;
        let frame = entry(m, VirtAddr::new(at)) & FRAME;
        m.read_phys(PhysAddr::new(frame | at & 0xff8))
    }

    fn word<M: Machine>(&self, m: &M, pfn: u64) -> u64 {
        self.raw(m, pfn, if L::SIZE == 8 { 0 } else { 8 })
    }

    /// The block that starts at `pfn`, or a page that is in none; where it ends.
    fn audit_block<M: Machine>(&self, m: &M, audit: &mut Audit, pfn: u64) -> u64 {
        if entry(m, self.address(pfn)) & PRESENT == 0 {
            audit.find("struct page not mapped", pfn, PRESENT, 0);
            return pfn + 1;
        }
        let word = self.word(m, pfn);
        let (kind, rest) = (word & 15, word & !15);
        if word == POISON || word == RESERVED {
            // Perhaps the first page of a free, folded block: look at its last.
            let next = pfn + 1;
            self.audit_page(m, audit, pfn, word, None);
            self.audit_single_entry(m, audit, pfn);
            audit.withheld += 1;
            return next;
        }
        if kind == FREE && rest == 0 {
            self.audit_page(m, audit, pfn, word, None);
            self.audit_single_entry(m, audit, pfn);
            audit.free += 1;
            return pfn + 1;
        }
        let block = if kind == FREE {
            let order = u32::try_from(rest >> 4).unwrap_or(u32::MAX).min(22);
            Block {
                first: pfn >> order << order,
                order,
                word,
                folded: true,
            }
        } else if let Some(block) = described(m, audit, word, pfn) {
            block
        } else {
            return pfn + 1;
        };
        let aligned = block.first >> block.order << block.order == block.first;
        let range = self.range();
        let inside = block.first >= range.start.as_u64()
            && block.first + block.pages() <= range.end.as_u64();
        // Before the block's first page only withheld pages of a free block can lie.
        let started = block.first == pfn || kind == FREE;
        if !(aligned && inside && started) {
            audit.find("place of a block", pfn, block.first, u64::from(block.order));
            return pfn + 1;
        }
        for page in pfn..block.first + block.pages() {
            let word = self.word(m, page);
            self.audit_page(m, audit, page, word, Some(block));
            match word & 15 {
                FREE => audit.free += 1,
                POISON | 0 if word & !15 <= RESERVED => audit.withheld += 1,
                _ => {}
            }
        }
        self.audit_entries(m, audit, block, pfn);
        block.first + block.pages()
    }

    /// One struct page: its word, its flags, and nothing else in it.
    fn audit_page<M: Machine>(
        &self,
        m: &M,
        audit: &mut Audit,
        pfn: u64,
        word: u64,
        block: Option<Block>,
    ) {
        if let Some(block) = block
            && !block.allows(word, L::SIZE)
        {
            audit.find("word of a page of a block", pfn, block.word, word);
        }
        if L::SIZE == 8 {
            return;
        }
        let flags = self.raw(m, pfn, 0);
        let node = u64::from(self.node().get());
        audit.equal("node in the flags", pfn, node, flags >> 58);
        let (broken, reserved) = (flags >> 1 & 1, flags & 1);
        audit.equal("reserved flag", pfn, u64::from(word == RESERVED), reserved);
        if word & !15 == 0 {
            audit.equal("poison flag", pfn, u64::from(word == POISON), broken);
        }
        for rest in (16..L::SIZE).step_by(8) {
            audit.equal("unused bytes", pfn, 0, self.raw(m, pfn, rest));
        }
    }

    /// The entry of a page that lies in no folded block.
    fn audit_single_entry<M: Machine>(&self, m: &M, audit: &mut Audit, pfn: u64) {
        let at = self.address(pfn);
        if !at.is_aligned(4096) {
            return;
        }
        let raw = entry(m, at);
        if raw & WRITABLE == 0 {
            // A withheld page may start a free, folded block.
            let next = self.word(m, pfn | (4096 / L::SIZE - 1));
            audit.find("read-only entry outside a block", at.as_u64(), next, raw);
            return;
        }
        self.audit_owned(m, audit, at, raw);
    }

    /// An entry with a frame of its own.
    fn audit_owned<M: Machine>(&self, m: &M, audit: &mut Audit, at: VirtAddr, raw: u64) {
        audit.frames += 1;
        audit.equal("execute right", at.as_u64(), NO_EXECUTE, raw & NO_EXECUTE);
        let index = (at.as_u64() - self.address(self.range().start.as_u64()).as_u64()) >> 12;
        let page = self.kernel().page(PhysAddr::new(raw & FRAME).pfn());
        audit.equal("home of a frame", at.as_u64(), index + 1, page.private(m));
        if page.page_type(m) == PageType::BUDDY {
            audit.find("free frame mapped", at.as_u64(), 0, raw);
        }
    }

    /// The entries of a block's memmap from that of page `from` on.
    fn audit_entries<M: Machine>(&self, m: &M, audit: &mut Audit, block: Block, from: u64) {
        let (start, end) = (
            self.address(from).as_u64().next_multiple_of(4096),
            self.address(block.first + block.pages()).as_u64(),
        );
        let (mut shared, mut sharers) = (0, 0);
        for at in (start..end).step_by(4096) {
            let raw = entry(m, VirtAddr::new(at));
            if raw & WRITABLE != 0 {
                self.audit_owned(m, audit, VirtAddr::new(at), raw);
                continue;
            }
            let frame = raw & FRAME;
            if sharers == 0 {
                shared = frame;
            }
            sharers += 1;
            audit.equal("shared frame of a block", at, shared, frame);
            audit.equal(
                "rights of a shared frame",
                at,
                NO_EXECUTE,
                raw & (NO_EXECUTE | DIRTY),
            );
        }
        audit.equal(
            "folded flag",
            block.first,
            u64::from(block.folded),
            u64::from(sharers > 1),
        );
        if sharers == 0 {
            return;
        }
        audit.frames += 1;
        audit.saved += sharers - 1;
        audit.folded += 1;
        let page = self.kernel().page(PhysAddr::new(shared).pfn());
        let first = self.address(self.range().start.as_u64()).as_u64();
        let home = first + (page.private(m) << 12).wrapping_sub(4096);
        let whole = self.address(block.first).as_u64()..end;
        if !whole.contains(&home) {
            audit.find("home of a shared frame", block.first, start, home);
        }
        let raw = entry(m, VirtAddr::new(home & !0xfff));
        if raw & WRITABLE != 0 && raw & FRAME == shared {
            audit.find("writable alias of a shared frame", home, 0, raw);
        }
        if page.page_type(m) == PageType::BUDDY {
            audit.find("free frame mapped", block.first, 0, shared);
        }
    }

    /// Tables of the window: each once.
    fn audit_tables<M: Machine>(&self, m: &M, audit: &mut Audit) {
        let start = self.address(self.range().start.as_u64()).as_u64();
        let end = self.address(self.range().end.as_u64()).as_u64();
        let mut last = [0; 3];
        for at in (start & !0x1f_ffff..end).step_by(1 << 21) {
            let mut table = m.root().phys();
            for (shift, last) in [39, 30, 21].into_iter().zip(&mut last) {
                let raw = m.read_phys(table.offset((at >> shift & 511) * 8));
                if raw & PRESENT == 0 {
                    break;
                }
                table = PhysAddr::new(raw & FRAME);
                audit.tables += u64::from(*last != table.as_u64());
                *last = table.as_u64();
            }
        }
    }
}

/// The block whose descriptor `word` leads to.
fn described<M: Machine>(m: &M, audit: &mut Audit, word: u64, pfn: u64) -> Option<Block> {
    let at = PhysAddr::new(word & FRAME | word & 0xff0);
    let header = m.read_phys(PhysAddr::new(word & FRAME));
    let kind = match word & 15 {
        1..=3 | EXCLUSIVE => 0,
        4 => 1,
        9 => 2,
        8 => 3,
        POISON => header & 0xff,
        _ => {
            audit.find("type of a page", pfn, 0, word);
            return None;
        }
    };
    audit.equal(
        "cache of a descriptor",
        pfn,
        0x6d65_6d64_6573_6300 | kind,
        header,
    );
    let index = usize::try_from(kind).ok().filter(|kind| *kind < 4)?;
    let read = |offset| m.read_phys(at.offset(offset));
    let (flags, count, first, order) = (read(0), read(8) & 0xffff_ffff, read(16), read(24));
    let counted = kind == 0 || kind == 3;
    audit.equal(
        "whether there is a count",
        pfn,
        u64::from(counted),
        u64::from(count > 0),
    );
    let base = flags >> 8 & 15;
    let order = Order::new(u8::try_from(order & 0xffff_ffff).ok()?)?;
    audit.descriptors[index] += 1;
    Some(Block {
        first,
        order: u32::from(order.get()),
        word: word & !15 | base,
        folded: flags & 1 == 1,
    })
}

/// The caches' frames: their lists, their counts, their free objects.
fn audit_slabs<M: Machine>(m: &M, audit: &mut Audit, state: &State) {
    let mut frames = 0;
    for (kind, cache) in Kind::ALL.into_iter().zip(&state.caches) {
        let mut in_use = 0;
        for (list, has_room) in cache.lists().into_iter().zip([true, false]) {
            let mut next = list;
            while let Some(frame) = next {
                frames += 1;
                if frames > state.totals.descriptor_frames {
                    audit.find(
                        "frames of descriptors",
                        0,
                        state.totals.descriptor_frames,
                        frames,
                    );
                    return;
                }
                let (used, mut free) = slab::header(m, frame);
                let at = frame.phys().as_u64();
                in_use += used;
                let capacity = slab::capacity(kind);
                audit.equal(
                    "list of a slab",
                    at,
                    u64::from(has_room),
                    u64::from(used < capacity),
                );
                let mut length = 0;
                while free != 0 && length <= capacity {
                    length += 1;
                    let object = PhysAddr::new(free);
                    audit.equal("frame of a free object", at, at, free & FRAME);
                    let count = m.read_phys(object.offset(8)) & 0xffff_ffff;
                    audit.equal("count of a free object", free, 0, count);
                    audit.equal(
                        "mark of a free object",
                        free,
                        slab::FREED,
                        m.read_phys(object.offset(24)),
                    );
                    free = m.read_phys(object.offset(16));
                }
                audit.equal(
                    "free objects of a slab",
                    at,
                    capacity - used.min(capacity),
                    length,
                );
                next = slab::next(m, frame);
            }
        }
        let counted = state.totals.descriptors[kind as usize];
        audit.equal("objects in use", kind as u64, counted, in_use);
    }
    audit.equal(
        "frames of descriptors",
        0,
        state.totals.descriptor_frames,
        frames,
    );
}
