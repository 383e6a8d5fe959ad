//! The audit of one block: its descriptor, its struct pages, its entries.

use super::super::layout::StructPage;
use super::super::map::MemdescMap;
use super::Audit;
use super::raw::{
    DIRTY, EXCLUSIVE, FRAME, FREE, NO_EXECUTE, POISON, PRESENT, RESERVED, WRITABLE, entry,
};
use mm::addr::{Order, PhysAddr, VirtAddr};
use mm::machine::Machine;
use mm::page::PageType;

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
    /// The block that starts at `pfn`, or a page that is in none; where it ends.
    pub(super) fn audit_block<M: Machine>(&self, m: &M, audit: &mut Audit, pfn: u64) -> u64 {
        if entry(m, self.address(pfn)) & PRESENT == 0 {
            audit.find("struct page not mapped", pfn, PRESENT, 0);
            return pfn + 1;
        }
        let word = self.word(m, pfn);
        let (kind, rest) = (word & 15, word & !15);
        if word == POISON || word == RESERVED {
            // It may lie in a free, folded block, in a frame of its own.
            self.audit_page(m, audit, pfn, word, None);
            self.audit_single_entry(m, audit, pfn);
            audit.withheld += 1;
            return pfn + 1;
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
        let shared = entry(m, self.address(pfn)) & WRITABLE == 0;
        if let Some(block) = block.filter(|_| shared) {
            audit.equal("word in a read-only frame", pfn, block.word, word);
        }
        if L::SIZE == 8 {
            return;
        }
        let flags = self.raw(m, pfn, 0);
        let node = u64::from(self.node().get());
        audit.equal("node in the flags", pfn, node, flags >> 58);
        if shared {
            audit.equal("flags in a read-only frame", pfn, node << 58, flags);
        }
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
            let at = at.as_u64();
            audit.find("read-only entry outside a folded block", at, WRITABLE, raw);
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
