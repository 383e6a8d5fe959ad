//! Blocks up to 16 GiB, which no machine of the other tests has room for, and
//! memmaps at bases that are not aligned for them.

use mm::addr::Order;
use mm::machine::Level;
use mm::vmemmap::{Fill, HvoError};
use testkit::World;
use testkit::records::Folio;

/// One 16 GiB block on its boundary, and memory beside it for its memmap.
fn machine() -> World {
    World::builder().ram(0, 14 << 10, 32 << 10).cpus(1).boot()
}

fn folio(w: &World, order: u8) -> (mm::page::Page, Folio) {
    let head = w
        .compound(0, Order::of(order), false)
        .expect("room for one");
    let at = head.address();
    let folio = Folio {
        head: at,
        node: 0,
        order,
        folded: true,
        tails: true,
        mark: 0,
    };
    (head, folio)
}

/// Folds and unfolds one block of each order on the same machine, the largest
/// one being all of its free memory but the last 2 GiB.
#[test]
fn every_order_up_to_16_gib() {
    let w = machine();
    for order in 19..=22 {
        let pages = (64 << order) / 4096;
        let before = w.vmemmap().ledger().totals();
        let (head, mut folio) = folio(&w, order);
        folio.write_mark(&w.m, u64::from(order));
        let free = w.free_pages();
        w.fold(head, Order::of(order)).expect("nothing in the way");
        // The head moves, and its slot has a table; the shared tail page and table.
        assert_eq!(w.free_pages(), free + pages - 2 - 2, "order {order}");
        let totals = w.vmemmap().ledger().totals();
        assert_eq!(totals.saved, pages - 1);
        assert_eq!(totals.tables - before.tables, 2);
        assert_eq!(totals.shared_slots, pages / 512 - 1);
        w.check();
        folio.check(&w.m, 4099);

        w.unfold(head, Order::of(order), Fill::Tails)
            .expect("all that it gave is free");
        folio.folded = false;
        w.check();
        folio.check(&w.m, 4099);
        folio.write_mark(&w.m, 0);
        w.dissolve(head, Order::of(order));
        let totals = w.vmemmap().ledger().totals();
        assert_eq!(
            (totals.saved, totals.tables, totals.shared_slots),
            (0, before.tables + 1, 0),
            "all but the shared table goes again"
        );
        w.check();
    }
}

/// What a folded block keeps: the frame with its head, and one table. Everything else is
/// shared by all of its order on the node.
#[test]
fn a_folded_block_keeps_8_kib() {
    let w = World::builder().ram(0, 0, 8 << 10).cpus(1).boot();
    for order in [16, 17, 18] {
        let (head, mut folio) = folio(&w, order);
        w.fold(head, Order::of(order)).expect("memory");
        let mut blocks = vec![head];
        for _ in 0..2 {
            let owned = |w: &World| {
                let t = w.vmemmap().ledger().totals();
                t.boot_pages + t.pages + t.tables + t.tails
            };
            let (free, before) = (w.free_pages(), owned(&w));
            let (head, _) = self::folio(&w, order);
            w.fold(head, Order::of(order)).expect("memory");
            let pages = 1 << order;
            assert_eq!(w.free_pages() + pages, free + pages / 64 - 2, "{order}");
            assert_eq!(before - owned(&w), pages / 64 - 2, "{order}");
            blocks.push(head);
        }
        w.check();
        for head in blocks {
            folio.head = head.address();
            folio.check(&w.m, 61);
            w.unfold(head, Order::of(order), Fill::Unused)
                .expect("memory");
            w.release(head, Order::of(order));
        }
        w.check();
    }
}

/// T17: a base that is a multiple of 2 MiB serves folios up to 128 MiB, one of
/// 128 MiB up to 8 GiB. What it cannot serve is refused by name, warned of once,
/// and everything else goes on.
#[test]
fn a_misaligned_base_refuses_the_first_order_that_it_cannot_serve() {
    for (shift, largest) in [(21, 15), (27, 21), (24, 18), (28, 22)] {
        let base = 0xffff_ea00_0000_0000 + (1 << shift);
        let w = World::builder().ram(0, 0, 512).base(base).boot();
        let warned = |w: &World| {
            let log = w.m.take_log();
            log.iter()
                .filter(|(level, line)| *level == Level::Warn && line.contains("base"))
                .count()
        };
        assert_eq!(
            warned(&w),
            usize::from(largest < 22),
            "base {base:#x}: at boot"
        );
        for order in 7..=22 {
            let expected = if order <= largest {
                Ok(Order::of(order))
            } else {
                Err(HvoError::BaseMisaligned(Order::of(largest)))
            };
            assert_eq!(
                w.vmemmap().check_order(&w.m, order),
                expected,
                "base {base:#x}"
            );
        }
        assert_eq!(warned(&w), 0, "base {base:#x}: only once");

        // A block that can be had here is folded, and finds its head.
        let (head, folio) = folio(&w, 15);
        w.fold(head, Order::of(15))
            .expect("the base serves order 15");
        w.check();
        folio.check(&w.m, 61);
        w.unfold(head, Order::of(15), Fill::Unused).expect("memory");
        w.release(head, Order::of(15));
        w.check();
    }
}

/// A block whose order the base cannot serve is not touched when it is to be
/// folded, and can be used and freed as ever.
#[test]
fn a_refused_block_is_not_touched() {
    let base = 0xffff_ea00_0000_0000 + (1 << 21);
    let w = World::builder().ram(0, 0, 4096).base(base).boot();
    let (head, _) = folio(&w, 16);
    let refused = w.fold(head, Order::of(16));
    assert_eq!(refused, Err(HvoError::BaseMisaligned(Order::of(15))));
    assert_eq!(w.vmemmap().ledger().totals().saved, 0);
    mm::page::prep_compound_tails(&w.m, head, Order::of(16));
    w.dissolve(head, Order::of(16));
    w.check();
}

/// T16: outside 7 to 22 there is an error, one warning, and nothing else.
#[test]
fn orders_out_of_bounds_are_refused_with_one_warning() {
    let w = World::small();
    w.m.take_log();
    for order in [0, 6, 23, 24, 255] {
        let found = w.vmemmap().check_order(&w.m, order);
        assert_eq!(found, Err(HvoError::OrderOutOfBounds(order)));
    }
    let head = w.compound(0, Order::of(6), true).expect("empty machine");
    let found = w.fold(head, Order::of(6));
    assert_eq!(found, Err(HvoError::OrderOutOfBounds(6)));
    w.dissolve(head, Order::of(6));
    let warnings = w.m.take_log();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].0, Level::Warn);
    w.check();
}
