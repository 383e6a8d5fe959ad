//! Maps of every layout on the emulated machine: that the table of costs is what running
//! maps take, and the table in README what the program prints.

use ktest::Outcome;
use lab::layouts::{self, Ledger, Map, Model, Spec, Vmemmap};
use lab_cases::layouts::*;
use mm::addr::{Order, PAGE_SIZE, Pfn};
use mm::for_each_encoding;
use mm::page::encoding::*;
use suites::Env;
use testkit::{EmulatedMachine, World};

/// 1 GiB, a 1024th of a TiB, of frames that do not exist.
const FIRST: Pfn = Pfn::new(1 << 28);
const GIB: Order = Order::PUD;
const PER_TIB: u64 = 1024;

/// What a GiB takes when all of it is folios of `order`, folded where that can be.
fn running<E: Encoding, S: PageShape, Mo: Model>(world: &World, order: Order) -> Ledger {
    let (m, nodes) = (&world.m, &world.mm.nodes);
    let mut map = Map::<E, S, Mo>::try_new(Spec::of(FIRST.block(GIB))).unwrap();
    map.populate(m, nodes).unwrap();
    let can_be = order > Order::PAGE && order <= map.support().max_order || E::DESCRIPTOR;
    let folds = map.support().hvo.is_ok() && order >= Support::hvo_min_order::<S>();
    if can_be && order <= map.support().max_order {
        for n in 0..GIB.pages() / order.pages() {
            let first = FIRST.offset(n * order.pages());
            map.prep_compound(m, nodes, first, order).unwrap();
            if folds {
                map.fold(m, nodes, first, order).unwrap();
            }
        }
    }
    map.audit(m, &mut |_| ()).unwrap();
    let ledger = *map.ledger();
    let left = map.release(m, nodes);
    assert_eq!(left.owned(), 0, "{left:?}");
    ledger
}

fn table_is_true<E: Encoding, S: PageShape, Mo: Model>(world: &World, order: Order) {
    let Ok(cost) = layouts::cost::<E, S>(Mo::MODEL, order) else {
        return;
    };
    let what = (E::NAME, S::SIZE, Mo::MODEL.name(), order);
    let ledger = running::<E, S, Mo>(world, order);
    assert_eq!(ledger.frames * PAGE_SIZE * PER_TIB, cost.memmap, "{what:?}");
    let tables = ledger.pte_tables * PAGE_SIZE * PER_TIB;
    assert_eq!(tables, cost.pte_tables, "{what:?}: tables of level 1");
    // A table of level 2 covers 1 GiB of struct pages, more than this map has: one, and
    // one above it.
    let above = if cost.pmd_tables > 0 { 2 } else { 0 };
    assert_eq!(ledger.upper_tables, above, "{what:?}: tables above");
    // A frame is a header of 64 bytes and 50 descriptors of 80.
    let folios = if cost.descriptors > 0 {
        GIB.pages() / order.pages()
    } else {
        0
    };
    assert_eq!(
        ledger.descriptors,
        folios.div_ceil(50),
        "{what:?}: frames of descriptors"
    );
    assert_eq!(
        (folios * PER_TIB).div_ceil(50) * PAGE_SIZE,
        cost.descriptors,
        "{what:?}: descriptors"
    );
    let sections = u64::from(Mo::MODEL == MemoryModel::Sparsemem);
    assert_eq!(ledger.section_tables, sections, "{what:?}: section tables");
}

macro_rules! every_shape {
    ($encoding:ident) => { every_shape!($encoding: Bytes64, Bytes56, Bytes32, Bytes8) };
    ($encoding:ident: $($shape:ident),*) => { $(
        for order in [Order::PAGE, Order::PMD, Order::PUD] {
            table_is_true::<$encoding, $shape, Vmemmap>(&world(), order);
            // Folios and models without HVO take what any other does.
            if order == Order::PMD {
                table_is_true::<$encoding, $shape, layouts::Flatmem>(&world(), order);
                table_is_true::<$encoding, $shape, layouts::Sparsemem>(&world(), order);
            }
        }
    )* };
}

fn world() -> World {
    World::builder().ram(0, 0, 256).blind().boot()
}

#[test]
fn costs_are_those_of_running_maps() {
    for_each_encoding!(every_shape);
}

/// The cases of the suite that take as large a block as the machine has memory for, on one
/// that has enough for 16 GiB with any struct page.
fn with_room(case: impl Fn(&Env<'_, EmulatedMachine>) -> Outcome) {
    let world = World::builder().ram(0, 0, 33 << 10).blind().boot();
    let largest = largest_block(&world.env(), Bytes64::SIZE);
    assert_eq!(largest, Order::MAX, "the machine is too small");
    case(&world.env()).unwrap_or_else(|stop| panic!("{stop:?}"));
    world.check();
}

#[test]
fn folios_up_to_16_gib() {
    with_room(largest_folios);
}

#[test]
fn aligned_maps_up_to_16_gib() {
    with_room(aligned_maps_have_no_limit);
}

#[test]
fn misaligned_maps_up_to_16_gib() {
    with_room(misaligned_maps_fail_at_the_next_order);
}

#[test]
fn late_nodes_up_to_16_gib() {
    with_room(nodes_may_start_late);
}

/// Level-2 tables by the TiB: one for each GiB of struct pages.
#[test]
fn tables_above_by_hand() {
    let pmd = |cost: Result<layouts::Cost, Refusal>| cost.unwrap().pmd_tables / PAGE_SIZE;
    let vmemmap = MemoryModel::SparsememVmemmap;
    assert_eq!(pmd(layouts::cost::<Mask, Bytes64>(vmemmap, GIB)), 16);
    assert_eq!(pmd(layouts::cost::<Pointer, Bytes56>(vmemmap, GIB)), 14);
    assert_eq!(pmd(layouts::cost::<Memdesc, Bytes8>(vmemmap, GIB)), 2);
    assert_eq!(
        pmd(layouts::cost::<Mask, Bytes64>(MemoryModel::Flatmem, GIB)),
        0
    );
}

/// A folio's descriptor by its fields: ten words. Sections of 128 MiB: 8192 to the TiB.
#[test]
fn descriptors_and_sections_by_hand() {
    assert_eq!(layouts::DESCRIPTOR_SIZE, 80);
    assert_eq!(layouts::SECTION_TABLE, 8192 * 8);
    let mut table = String::new();
    layouts::write_table(&mut table).unwrap();
    let all = "| 21474840 KiB, 41944 KiB, 84 KiB |";
    assert!(table.contains(all), "no {all:?} in\n{table}");
    for text in [
        "section table, 64 KiB for each TiB",
        "28 MiB of page tables",
    ] {
        assert!(table.contains(text), "no {text:?} in\n{table}");
    }
}

/// Rows with the numbers that the mail threads and Linux's documentation have: 16 GiB of
/// struct pages for a TiB, 2 GiB with folded 2 MiB pages, 4 MiB with 1 GiB pages.
#[test]
fn rows_by_hand() {
    let mut table = String::new();
    layouts::write_table(&mut table).unwrap();
    let row = |start: &str| {
        let row = table.lines().find(|row| row.starts_with(start));
        row.unwrap_or_else(|| panic!("no row {start:?} in\n{table}"))
            .to_owned()
    };
    assert_eq!(
        row("| mask | 64 B | vmemmap"),
        "| mask | 64 B | vmemmap | 16 GiB | across the node | 16 GiB | 2 GiB | 4 MiB | 64 KiB, 32832 KiB, 32832 KiB | none |"
    );
    assert!(row("| mask | 56 B").contains("| refused ("));
    assert!(row("| mask | 64 B | sparsemem").contains("| 128 MiB | nothing ("));
    assert!(
        row("| memdesc | 8 B | vmemmap").contains("| within the folio | 2 GiB | 2 GiB | 4 MiB |")
    );
    for refusal in [
        Refusal::NotPowerOfTwo,
        Refusal::NoRoomForFolio,
        Refusal::FakeHeads,
        Refusal::Straddles,
        Refusal::NotRemappable,
    ] {
        assert!(
            table.contains(refusal.reason()),
            "{refusal:?} is not explained"
        );
    }
}

/// The table in README, between its two comments, is the one that the program prints.
#[test]
fn readme_has_the_table() {
    // Not compiled in: a checkout can be moved together with what was built.
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    let readme = std::fs::read_to_string(format!("{package}/../../README.md")).unwrap();
    let mark = "<!-- layouts -->\n";
    let parts: Vec<&str> = readme.split(mark).collect();
    assert_eq!(parts.len(), 3, "README.md has two lines {mark:?}");
    let mut table = String::new();
    layouts::write_table(&mut table).unwrap();
    // README wraps its lines, the program does not.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words(parts[1]) == words(&table),
        "the table between the comments in README.md is not what the program prints:\n\n{table}"
    );
}
