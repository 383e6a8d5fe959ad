//! The audit notices: each check is shown one machine on which it must speak, and
//! says what is wrong and where.

use mm::addr::{NodeId, Order, Pfn, PhysAddr, VirtAddr};
use mm::audit::{self, At, Check, Input, Report, ScratchTooSmall, TailClaim};
use mm::frames::{FrameSource, Placement};
use mm::machine::Memory as _;
use mm::page::Page;
use mm::vmemmap::RamRange;
use testkit::raw::{self, bit};
use testkit::{World, records};

/// A world with one folded 2 MiB block, one that is not, and a folded one of
/// order 12 on the other node.
struct Scene {
    w: World,
    folded: Page,
    plain: Page,
    other: Page,
}

impl Scene {
    fn new() -> Self {
        let w = World::two_nodes();
        let order = Order::PMD;
        let block = |node, order| w.compound(node, order, true).expect("empty machine");
        let (folded, plain, other) = (block(0, order), block(0, order), block(1, Order::of(12)));
        w.fold(folded, order).expect("memory");
        w.fold(other, Order::of(12)).expect("memory");
        let scene = Self {
            w,
            folded,
            plain,
            other,
        };
        scene.w.check();
        scene
    }

    fn root(&self) -> u64 {
        self.w.m.root().as_u64() << 12
    }

    /// Where the entry of `level` for `at` lies.
    fn entry_at(&self, at: VirtAddr, level: u8) -> PhysAddr {
        let index = |level: u8| at.as_u64() >> (12 + 9 * (level - 1)) & 511;
        let mut table = self.root();
        for here in (level + 1..=4).rev() {
            let entry = PhysAddr::new(table + index(here) * 8);
            table = self.w.m.peek(entry).expect("a table") & 0x000f_ffff_ffff_f000;
        }
        PhysAddr::new(table + index(level) * 8)
    }

    /// Where the entry for the `n`th page of memmap of `head`'s block lies.
    fn memmap_entry(&self, head: Page, n: u64) -> PhysAddr {
        self.entry_at(head.address().offset(n << 12), 1)
    }

    /// Where word `n` of the struct page lies.
    fn word_at(&self, page: Page, n: u64) -> PhysAddr {
        let at = page.address().offset(n * 8);
        let leaf = raw::translate(&self.w.m, self.w.m.root(), at).expect("populated");
        PhysAddr::new(leaf.pa + (at.as_u64() - leaf.va))
    }

    /// What the audit says with the word at `at` changed; changes it back.
    fn with(&self, at: PhysAddr, change: impl FnOnce(u64) -> u64) -> Report {
        let before = self.w.m.read_phys(at);
        self.w.m.write_phys(at, change(before));
        let report = self.w.audit();
        self.w.m.write_phys(at, before);
        self.w.check();
        report
    }

    fn shared_tail(&self, head: Page) -> Pfn {
        let at = head.address().offset(0x1000);
        let leaf = raw::translate(&self.w.m, self.w.m.root(), at).expect("populated");
        PhysAddr::new(leaf.pa).pfn()
    }
}

/// The one finding of `check`, at `at` if given, and that its text is as told.
fn expect(report: &Report, check: Check, at: Option<At>, text: &str) {
    let found: Vec<_> = report
        .findings()
        .filter(|found| found.check == check)
        .collect();
    assert!(!found.is_empty(), "no finding of {check:?} in: {report}");
    if let Some(at) = at {
        assert!(
            found.iter().any(|found| found.at == at),
            "{check:?} not at {at:?}: {report}"
        );
    }
    let printed = report.to_string();
    assert!(printed.contains(text), "\"{text}\" is not in: {printed}");
    assert!(!printed.ends_with("ok"), "{printed}");
}

fn virt(page: Page, n: u64) -> Option<At> {
    Some(At::Virt(page.address().offset(n << 12)))
}

#[test]
fn a_quiet_machine_gets_one_line() {
    let scene = Scene::new();
    let line = scene.w.audit().to_string();
    assert_eq!(
        line,
        "audit: 7 sections, 3514 memmap pages, 70 saved by 2 folded blocks and 2 tails, \
         2 of 5 page tables, 187456 free pages: ok"
            .replace("187456", &scene.w.free_pages().to_string())
    );
}

#[test]
fn entries_of_tails() {
    let s = Scene::new();
    let entry = s.memmap_entry(s.folded, 3);
    let at = virt(s.folded, 3);
    for flip in [bit::RW, bit::D, bit::US, bit::XD, bit::P] {
        let report = s.with(entry, |pte| pte ^ flip);
        expect(
            &report,
            Check::TailRights,
            at,
            "rights of a tail's entry at 0xffffea",
        );
    }
    let own = s.shared_tail(s.folded).as_u64();
    let wrong = s.shared_tail(s.other).as_u64();
    let report = s.with(entry, |pte| pte + (wrong << 12) - (own << 12));
    expect(
        &report,
        Check::WrongTail,
        at,
        &format!("expected pfn {own:#x}, found {wrong:#x}"),
    );
    expect(&report, Check::TailEntries, None, "claimed 7, found 6");
    expect(
        &report,
        Check::Sum("frames saved"),
        Some(At::Ledger),
        "frames saved: claimed 70, found 69",
    );
}

#[test]
fn entries_of_private_memmap() {
    let s = Scene::new();
    for (page, name) in [
        (s.folded, "a folded block's head"),
        (s.plain, "a plain block"),
    ] {
        let entry = s.memmap_entry(page, 0);
        for flip in [bit::RW, bit::US, bit::XD] {
            let report = s.with(entry, |pte| pte ^ flip);
            expect(
                &report,
                Check::MemmapRights,
                virt(page, 0),
                "rights of a page of memmap",
            );
            assert!(report.count() >= 1, "{name}");
        }
        let tail = s.shared_tail(s.folded).as_u64();
        let report = s.with(entry, |pte| pte & !0x000f_ffff_ffff_f000 | tail << 12);
        expect(
            &report,
            Check::StrayTail,
            virt(page, 0),
            "a shared tail page reached from elsewhere",
        );
    }
    // Two pages of memmap in one frame, and one in a frame that is free.
    let entry = s.memmap_entry(s.plain, 2);
    let report = s.with(entry, |pte| pte - 0x1000);
    expect(
        &report,
        Check::SecondOwner,
        virt(s.plain, 2),
        "a frame with two owners",
    );
    // One that the walk has met as free before, so that it reads no freed frame.
    let free = s.w.mm.nodes.get(NodeId::ZERO).with_buddy(&s.w.m, |buddy| {
        let orders = Order::range_inclusive(Order::PAGE, Order::MAX);
        orders
            .flat_map(|order| buddy.blocks(&s.w.m, order).collect::<Vec<_>>())
            .min()
    });
    let free = free.expect("a free block");
    assert!(free < s.w.memmap().pfn(s.plain));
    let free = free.as_u64();
    let report = s.with(entry, |pte| pte & !0x000f_ffff_ffff_f000 | free << 12);
    expect(&report, Check::FreeFrameInUse, None, "a free frame in use");
    let beyond = 0x10_0000u64;
    let report = s.with(entry, |pte| pte & !0x000f_ffff_ffff_f000 | beyond << 12);
    expect(
        &report,
        Check::NotRam,
        virt(s.plain, 2),
        "a frame that is no RAM",
    );
}

#[test]
fn sections_and_holes() {
    let s = Scene::new();
    let section = s.w.memmap().page(Pfn::new(768 << 8)).address();
    let report = s.with(s.entry_at(section, 2), |_| 0);
    expect(
        &report,
        Check::NoMemmap,
        Some(At::Virt(section)),
        "RAM without struct pages",
    );
    expect(
        &report,
        Check::Sum("sections"),
        Some(At::Ledger),
        "sections: claimed 7, found 6",
    );

    let hole = section.offset(8 * 0x20_0000);
    let report = s.with(s.entry_at(hole, 2), |_| {
        0x10_0000 | bit::P | bit::PS | bit::XD
    });
    expect(
        &report,
        Check::MemmapOfHole,
        Some(At::Virt(hole)),
        "struct pages for a hole",
    );
}

#[test]
fn holes_within_a_section() {
    let s = Scene::new();
    // 576 MiB is where node 1's first range ends, in the middle of a section.
    let page = s.w.memmap().page(Pfn::new(600 << 8));
    let report = s.with(s.word_at(page, 0), |flags| flags & !1);
    let text = "a page of a hole that is not reserved";
    expect(&report, Check::HoleNotReserved, virt(page, 0), text);
}

#[test]
fn a_folded_block_under_a_leaf() {
    let s = Scene::new();
    // A block that has its section, and so its leaf, to itself.
    let head = s.w.compound(0, Order::of(15), true).expect("memory");
    let report = s.with(s.word_at(head, 0), |flags| flags | records::FOLDED);
    expect(
        &report,
        Check::FoldedLeaf,
        virt(head, 1),
        "a folded block under a 2 MiB leaf",
    );
}

#[test]
fn marks_and_masks() {
    let s = Scene::new();
    let flags = |page| s.word_at(page, 0);
    let report = s.with(flags(s.folded), |word| word ^ records::FOLDED);
    expect(
        &report,
        Check::StrayTail,
        virt(s.folded, 1),
        "a shared tail page reached",
    );
    let report = s.with(flags(s.plain), |word| word ^ records::FOLDED);
    expect(
        &report,
        Check::WrongTail,
        virt(s.plain, 1),
        "frame of a tail's entry",
    );
    let report = s.with(flags(s.plain), |word| word ^ records::HEAD);
    expect(&report, Check::OrphanTail, None, "a tail without a head");
    let single = s.w.memmap().page(Pfn::new(0x100));
    let report = s.with(flags(single), |word| word | records::FOLDED);
    expect(
        &report,
        Check::StrayFlag,
        virt(single, 0),
        "a folded mark on a page that is no head",
    );

    for tail in [1, 63, 64, 448] {
        let at = s.word_at(s.plain.nth(tail), 1);
        let report = s.with(at, |word| word << 1 | 1);
        expect(
            &report,
            Check::TailMask,
            None,
            "expected 0xffffffffffff8001, found 0xffffffffffff0003",
        );
    }
    // The order in the first tail: too large, not aligned, not a number of one.
    for order in [23, 11, 0, 1 << 40] {
        let report = s.with(s.word_at(s.plain.nth(1), 5), |_| order);
        expect(
            &report,
            Check::BlockShape,
            virt(s.plain, 0),
            "order or alignment of a block",
        );
    }
    // A folded block whose node or order has no shared tail page.
    let report = s.with(s.word_at(s.folded, 0), |word| word | 1 << 58);
    expect(
        &report,
        Check::BlockShape,
        virt(s.folded, 0),
        "order or alignment",
    );
    let report = s.with(s.word_at(s.folded.nth(1), 5), |_| 8);
    expect(
        &report,
        Check::NoTail,
        virt(s.folded, 0),
        "a folded block without a shared tail page",
    );
}

#[test]
fn the_shared_pages_themselves() {
    let s = Scene::new();
    let tail = s.shared_tail(s.folded);
    for (word, change) in [
        (0, 1u64),
        (1, 1 << 20),
        (3, 7),
        (6, 1 << 32),
        (510, 1),
        (511, 1),
    ] {
        let report = s.with(tail.phys().offset(word * 8), |old| old ^ change);
        let text = format!(
            "word {word} of a shared tail page at pfn {:#x}",
            tail.as_u64()
        );
        expect(
            &report,
            Check::TailContent(word),
            Some(At::Frame(tail)),
            &text,
        );
    }
    let page = s.w.memmap().page(tail);
    let report = s.with(s.word_at(page, 6), |word| word | 0xffff_ffff);
    expect(
        &report,
        Check::TailType,
        Some(At::Frame(tail)),
        "page type of a shared tail page",
    );
    // On the free list.
    let report = s.with(s.word_at(page, 6), |word| word & !0xffff_ffff | 0xf000_0000);
    expect(
        &report,
        Check::FreeFrameInUse,
        Some(At::Frame(tail)),
        "a free frame in use",
    );
}

#[test]
fn free_blocks() {
    let s = Scene::new();
    let block = s.w.compound(0, Order::of(4), true).expect("memory");
    s.w.dissolve(block, Order::of(4));
    let first = s.w.mm.nodes.get(NodeId::ZERO).with_buddy(&s.w.m, |buddy| {
        let mut orders = Order::range_inclusive(Order::of(4), Order::MAX);
        orders.find_map(|order| Some((buddy.blocks(&s.w.m, order).next()?, order)))
    });
    let (first, order) = first.expect("a free block");
    let page = s.w.memmap().page(first);
    let report = s.with(s.word_at(page, 5), |order| order - 1);
    let claimed = s.w.free_pages();
    let text = format!("claimed {claimed}, found {}", claimed - order.pages() / 2);
    expect(&report, Check::Sum("free pages"), Some(At::Ledger), &text);
    let report = s.with(s.word_at(page, 5), |_| 22);
    expect(
        &report,
        Check::BlockShape,
        virt_of(page),
        "order or alignment",
    );
    let report = s.with(s.word_at(page, 0), |flags| flags | records::HEAD);
    expect(&report, Check::StrayFlag, virt_of(page), "a folded mark");
}

fn virt_of(page: Page) -> Option<At> {
    Some(At::Virt(page.address()))
}

#[test]
fn rights_anywhere() {
    let s = Scene::new();
    let (m, nodes) = (&s.w.m, &s.w.mm.nodes);
    let at = 0xffff_ffff_8000_0000;
    let map = |entry: u64| {
        raw::poke(m, m.root(), at, 2, entry, || {
            let placement = Placement::Only(NodeId::ZERO);
            let table = nodes.alloc(m, Order::PAGE, placement).expect("memory");
            m.fill_words(table.phys(), 0, 512);
            table
        });
        s.w.audit()
    };
    let leaf = 0x20_0000 | bit::P | bit::PS;
    let found = Some(At::Virt(VirtAddr::new(at)));
    let report = map(leaf | bit::RW);
    expect(
        &report,
        Check::WritableExecutable,
        found,
        "a page both writable and executable",
    );
    assert_eq!(report.count(), 1, "{report}");
    for (entry, name) in [(leaf, "executable"), (leaf | bit::RW | bit::XD, "writable")] {
        let report = map(entry);
        assert!(report.is_ok(), "{name} alone is allowed: {report}");
    }
    // User access needs all levels.
    let report = map(leaf | bit::US);
    assert!(report.is_ok(), "{report}");
    for level in [3, 4] {
        let entry = s.entry_at(VirtAddr::new(at), level);
        m.write_phys(entry, m.read_phys(entry) | bit::US);
    }
    let report = map(leaf | bit::US);
    expect(
        &report,
        Check::UserAccess,
        found,
        "a page open to user mode",
    );
    assert_eq!(report.count(), 1, "{report}");

    // A table that is given back while an entry still points to it.
    map(leaf);
    let table = s.entry_at(VirtAddr::new(at), 2).pfn();
    nodes.free(m, table, Order::PAGE);
    let report = s.w.audit();
    let found = Some(At::Virt(VirtAddr::new(at)));
    expect(&report, Check::FreeFrameInUse, found, "a free frame in use");
}

/// Damage to the claims rather than to the machine.
#[test]
fn the_ledger_is_checked_in_every_line() {
    let s = Scene::new();
    let audit = |change: &dyn Fn(&mut Input<_, std::vec::IntoIter<TailClaim>>)| {
        let honest = audit::input(&s.w.m, &s.w.mm, s.w.ram());
        let mut input = Input {
            base: honest.base,
            ram: s.w.ram(),
            tails: honest.tails.collect::<Vec<_>>().into_iter(),
            totals: honest.totals,
            free_pages: honest.free_pages,
            poisoned: honest.poisoned,
        };
        change(&mut input);
        let mut scratch = vec![0; audit::scratch_words(Pfn::new(0x10_0000))];
        audit::audit(&s.w.m, &input, &mut scratch).expect("enough")
    };
    assert!(audit(&|_| ()).is_ok());
    let sum = |name, report: Report| expect(&report, Check::Sum(name), Some(At::Ledger), name);
    sum("sections", audit(&|i| i.totals.sections += 1));
    sum("frames of memmap", audit(&|i| i.totals.pages += 1));
    sum("frames of memmap", audit(&|i| i.totals.boot_pages -= 1));
    sum("frames saved", audit(&|i| i.totals.saved += 1));
    sum(
        "last-level tables of the vmemmap",
        audit(&|i| i.totals.tables += 1),
    );
    sum("shared tail pages", audit(&|i| i.totals.tails += 1));
    sum("shared tables", audit(&|i| i.totals.shared_tables += 1));
    sum(
        "slots with a shared table",
        audit(&|i| i.totals.shared_slots += 1),
    );
    sum("folded blocks", audit(&|i| i.totals.folded -= 1));
    sum("free pages", audit(&|i| i.free_pages += 1));

    let claims: Vec<TailClaim> = audit::input(&s.w.m, &s.w.mm, s.w.ram()).tails.collect();
    let tails = |change: &dyn Fn(&mut Vec<TailClaim>)| {
        let mut claims = claims.clone();
        change(&mut claims);
        audit(&|i| i.tails = claims.clone().into_iter())
    };
    let report = tails(&|claims| claims[0].entries += 1);
    expect(
        &report,
        Check::TailEntries,
        Some(At::Frame(claims[0].frame)),
        "claimed 8, found 7",
    );
    let report = tails(&|claims| claims.push(claims[0]));
    expect(
        &report,
        Check::TailClaim,
        Some(At::Frame(claims[0].frame)),
        "node and order",
    );
    let report = tails(&|claims| claims[0].order = Order::of(6));
    expect(
        &report,
        Check::TailClaim,
        Some(At::Frame(claims[0].frame)),
        "node and order",
    );
    let report = tails(&|claims| claims[0].node = NodeId::of(5));
    expect(
        &report,
        Check::TailContent(0),
        Some(At::Frame(claims[0].frame)),
        "word 0",
    );
    let report = tails(&|claims| {
        claims.remove(0);
    });
    expect(&report, Check::NoTail, None, "without a shared tail page");
}

#[test]
fn too_little_scratch_is_an_error() {
    let s = Scene::new();
    let input = audit::input(&s.w.m, &s.w.mm, s.w.ram());
    let end = Pfn::new(960 << 8);
    let needed = audit::scratch_words(end);
    let short = audit::audit(&s.w.m, &input, &mut vec![0; needed - 1]);
    let error = short.expect_err("one word is missing");
    assert_eq!(
        error,
        ScratchTooSmall {
            needed,
            given: needed - 1
        }
    );
    let ram: Vec<RamRange> = s.w.ram().collect();
    assert_eq!(ram.last().map(|ram| ram.range.end), Some(end));
}

/// Where order 17 is folded on a machine of its own: its shared table, and who uses it.
#[test]
fn the_shared_table() {
    let w = World::builder().ram(0, 1, 2048).boot();
    let block = |order| {
        let head = w
            .compound(0, Order::of(order), true)
            .expect("empty machine");
        w.fold(head, Order::of(order)).expect("memory");
        head
    };
    let s = Scene {
        folded: block(17),
        other: block(16),
        plain: w.compound(0, Order::of(15), true).expect("memory"),
        w,
    };
    s.w.check();
    let line = s.w.audit().to_string();
    assert!(line.contains(", 4 slots by 2 shared tables: ok"), "{line}");
    let table = |order| s.w.vmemmap().existing_table(NodeId::ZERO, Order::of(order));
    let (mine, other) = (table(17).expect("made"), table(16).expect("made"));

    // Its entries: all bits but accessed.
    for (entry, flip) in [
        (0, bit::RW),
        (1, bit::D),
        (300, bit::G),
        (511, bit::P),
        (7, 1 << 12),
    ] {
        let at = mine.phys().offset(entry * 8);
        let report = s.with(at, |pte| pte ^ flip);
        let text = format!(
            "entry {entry} of a shared table at pfn {:#x}",
            mine.as_u64()
        );
        expect(
            &report,
            Check::TableContent(entry),
            Some(At::Frame(mine)),
            &text,
        );
    }
    let report = s.with(mine.phys(), |pte| pte ^ bit::A);
    assert!(report.is_ok(), "that one is the processor's: {report}");

    // Its page type, and its frame in a free block.
    let page = s.w.memmap().page(mine);
    let report = s.with(s.word_at(page, 6), |word| word | 0xffff_ffff);
    let text = "page type of a shared table";
    expect(&report, Check::TableType, Some(At::Frame(mine)), text);
    let report = s.with(s.word_at(page, 6), |word| word & !0xffff_ffff | 0xf000_0000);
    expect(
        &report,
        Check::FreeFrameInUse,
        Some(At::Frame(mine)),
        "a free frame in use",
    );

    // The table of another order; of this one, but for a slot that is not all tails, or
    // of a block that is not folded, or nowhere near.
    let slot = |head: Page, n: u64| s.entry_at(head.address().offset(n << 21), 2);
    let to = |table: Pfn| {
        move |entry: u64| entry & !0x000f_ffff_ffff_f000 & !bit::PS | table.as_u64() << 12
    };
    let at = |head: Page, n: u64| Some(At::Virt(head.address().offset(n << 21)));
    let stray = "a shared table reached from elsewhere";
    let report = s.with(slot(s.folded, 2), to(other));
    expect(&report, Check::StrayTable, at(s.folded, 2), stray);
    for head in [s.folded, s.plain] {
        let report = s.with(slot(head, 0), to(mine));
        expect(&report, Check::StrayTable, at(head, 0), stray);
    }
    let far = VirtAddr::new(0xffff_ffff_8000_0000);
    let nodes = &s.w.mm.nodes;
    raw::poke(&s.w.m, s.w.m.root(), far.as_u64(), 2, 0, || {
        let placement = Placement::Only(NodeId::ZERO);
        let table = nodes.alloc(&s.w.m, Order::PAGE, placement).expect("memory");
        s.w.m.fill_words(table.phys(), 0, 512);
        table
    });
    let report = s.with(s.entry_at(far, 2), |_| mine.as_u64() << 12 | bit::P);
    let frame = Some(At::Frame(mine));
    expect(&report, Check::TableSlots, frame, "claimed 3, found 4");
    let report = s.with(s.entry_at(far, 3), |_| mine.as_u64() << 12 | bit::P);
    expect(
        &report,
        Check::SecondOwner,
        Some(At::Virt(far)),
        "a frame with two owners",
    );

    // A slot with a table of its own that says the same is no shared one.
    let placement = Placement::Only(NodeId::ZERO);
    let copy = nodes.alloc(&s.w.m, Order::PAGE, placement).expect("memory");
    s.w.m.copy_frame(copy, mine);
    let report = s.with(slot(s.folded, 1), to(copy));
    let frame = Some(At::Frame(mine));
    expect(&report, Check::TableSlots, frame, "claimed 3, found 2");
    let sum = Check::Sum("last-level tables of the vmemmap");
    expect(&report, sum, Some(At::Ledger), "claimed 4, found 5");
}
