//! The report as text.

use mm::addr::{NodeId, Order, PhysAddr, VirtAddr};
use mm::report::{
    HugeCounts, Kib, NodeMemory, Peak, Percent, Picture, Report, Size, Slot, Snapshot, ToolLine,
};
use mm::vmemmap::Totals;
use proptest::prelude::*;

#[test]
fn sizes_have_three_digits() {
    for (bytes, text) in [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (64 << 10, "64.0 KiB"),
        (2 << 20, "2.00 MiB"),
        (1 << 30, "1.00 GiB"),
        (512 << 20, "512 MiB"),
        ((1 << 30) + (1 << 29), "1.50 GiB"),
        (10 * 1024 - 1, "10.00 KiB"),
        (16 << 30, "16.0 GiB"),
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(Size(bytes).to_string(), text);
    }
    assert_eq!(Kib(7).to_string(), "28 KiB");
}

#[test]
fn percents_are_rounded() {
    for (part, whole, text) in [
        (0, 0, "0.00 %"),
        (5, 0, "0.00 %"),
        (1, 64, "1.56 %"),
        (7, 8, "87.50 %"),
        (4095, 4096, "99.98 %"),
        (u64::MAX, u64::MAX, "100.00 %"),
        (1, 20_000, "0.01 %"),
        (1, 20_001, "0.00 %"),
    ] {
        assert_eq!(Percent(part, whole).to_string(), text);
    }
}

/// Two nodes of 2 GiB, as they are and after 64 pages of 2 MiB on node 0 and one
/// of 1 GiB on node 1.
fn before_and_after() -> (Snapshot, Snapshot) {
    let mut before = Snapshot::default();
    before.sizes.extend([Order::PMD, Order::PUD]);
    before.memmap = Totals {
        sections: 32,
        boot_pages: 32 * 512,
        ..Totals::default()
    };
    for (n, free) in [(0, 514_000), (1, 515_000)] {
        before.nodes.push(NodeMemory {
            node: NodeId::of(n),
            present: 1 << 19,
            free,
            huge: <[HugeCounts; 2]>::default(),
        });
    }
    let mut after = before.clone();
    let saved = 64 * 7 + 4095;
    after.memmap = Totals {
        boot_pages: 32 * 512 - 64 * 8 - 4096,
        pages: 64 + 1,
        saved,
        tables: 9,
        tails: 2,
        folded: 65,
        ..after.memmap
    };
    let counts = |nr| HugeCounts {
        nr,
        free: nr,
        folded: nr,
    };
    after.nodes[0].huge[0] = counts(64);
    after.nodes[0].free -= 64 * 512 - 64 * 7 + 2;
    after.nodes[1].huge[1] = counts(1);
    after.nodes[1].free -= (1 << 18) - 4095 + 9;
    (before, after)
}

#[test]
fn before_and_after_for_a_person() {
    let (before, after) = before_and_after();
    let report = Report {
        before: &before,
        after: &after,
    };
    let text = report.to_string();
    let expected = "\
Memory                                 before            after
  node 0, 2.00 GiB: free          2056000 KiB      1926712 KiB
  node 1, 2.00 GiB: free          2060000 KiB      1027768 KiB
  struct pages, 32 sections         65536 KiB        47364 KiB
  their page tables                     0 KiB           36 KiB
  shared tail pages                     0 KiB            8 KiB
Huge pages (free, folded)
  2.00 MiB, node 0                   0 (0, 0)      64 (64, 64)
  1.00 GiB, node 1                   0 (0, 0)         1 (1, 1)
HVO freed 18172 KiB and spent 44 KiB: 18128 KiB gained, 0.43 % of RAM, 27.66 % of the struct pages";
    assert_eq!(text, expected);
    // What is gained is what the free memory and the huge pages do not explain.
    let huge = 64 * 512 + (1 << 18);
    let gone = before.free() - after.free();
    assert_eq!(report.net_pages(), i64::try_from(huge - gone).unwrap());

    // The other way round it is a loss.
    let back = Report {
        before: &after,
        after: &before,
    };
    assert_eq!(back.net_pages(), -report.net_pages());
    assert!(back.to_string().ends_with(
        "HVO freed -18172 KiB and spent -44 KiB: -18128 KiB gained, \
         0.00 % of RAM, 0.00 % of the struct pages"
    ));
}

#[test]
fn nothing_happened() {
    let (before, _) = before_and_after();
    let report = Report {
        before: &before,
        after: &before,
    };
    let text = report.to_string();
    assert!(text.ends_with("HVO freed nothing"), "{text}");
    assert!(!text.contains("Huge pages"), "{text}");
}

fn picture(slots: u64, slot: impl Fn(u64) -> Slot) -> String {
    Picture { slots, slot }.to_string()
}

#[test]
fn a_small_machine_has_one_line() {
    let kinds = [
        Slot::Leaf,
        Slot::Folded,
        Slot::Partly,
        Slot::Split,
        Slot::Hole,
        Slot::Leaf,
    ];
    assert_eq!(
        picture(6, |n| kinds[usize::try_from(n).unwrap()]),
        "vmemmap: one character for 128 MiB of RAM, 2.00 MiB of struct pages
     0 GiB |#_-+.#|
            # leaf  + split  - partly folded  _ folded  . hole"
    );
    assert_eq!(
        picture(4, |_| Slot::Leaf).lines().last().unwrap().trim(),
        "# leaf"
    );
    assert_eq!(picture(0, |_| unreachable!()).lines().count(), 2);
}

#[test]
fn equal_lines_are_counted() {
    // 512 GiB: RAM up to 16 GiB and from 496 GiB on, one huge page in it.
    let text = picture(4096, |n| match n {
        0..128 | 3970.. => Slot::Leaf,
        3968 | 3969 => Slot::Folded,
        _ => Slot::Hole,
    });
    let (leaf, hole) = ("#".repeat(64), ".".repeat(64));
    assert_eq!(
        text,
        format!(
            "vmemmap: one character for 128 MiB of RAM, 2.00 MiB of struct pages
     0 GiB |{leaf}|
           the same once more
    16 GiB |{hole}|
           the same 59 times more
   496 GiB |__{}|
   504 GiB |{leaf}|
            # leaf  _ folded  . hole",
            &leaf[2..]
        )
    );
}

#[test]
fn a_huge_machine_is_scaled_down() {
    // 4 TiB: 8 slots a character.
    let text = picture(32768, |n| if n == 9 { Slot::Folded } else { Slot::Leaf });
    let first = text.lines().nth(1).unwrap();
    assert!(text.starts_with("vmemmap: one character for 1.00 GiB of RAM, 16.0 MiB of"));
    assert_eq!(first, format!("     0 GiB |#?{}|", "#".repeat(62)));
    assert!(text.ends_with("# leaf  ? mixed"));
    assert!(text.contains("\n    64 GiB |"));
}

#[test]
fn slots_by_shared_entries() {
    // 64 blocks of 2 MiB, one of 1 GiB (first slot, other slots).
    for shared in [448, 511, 512] {
        assert_eq!(Slot::of_shared(shared), Slot::Folded);
    }
    assert_eq!(Slot::of_shared(447), Slot::Partly);
    assert_eq!(Slot::of_shared(1), Slot::Partly);
    assert_eq!(Slot::of_shared(0), Slot::Split);
}

#[test]
fn line_for_tools() {
    let line = ToolLine {
        base: VirtAddr::new(0xffff_ea00_0000_0000),
        direct_map: VirtAddr::new(0xffff_8880_0000_0000),
        cr3: PhysAddr::new(0x1000),
    };
    assert_eq!(
        line.to_string(),
        "vmemmap: base=0xffffea0000000000 page_struct=64 \
         direct_map=0xffff888000000000 cr3=0x1000"
    );
}

proptest! {
    /// Unfolding the counted lines gives back every slot.
    #[test]
    fn pictures_lose_nothing(
        runs in prop::collection::vec((1..400u64, 0..5usize), 1..10),
    ) {
        let kinds = [(Slot::Hole, '.'), (Slot::Leaf, '#'), (Slot::Split, '+'),
            (Slot::Partly, '-'), (Slot::Folded, '_')];
        let slots: Vec<usize> = runs.iter()
            .flat_map(|(n, kind)| std::iter::repeat_n(*kind, usize::try_from(*n).unwrap()))
            .collect();
        let text = picture(slots.len() as u64, |n| kinds[slots[usize::try_from(n).unwrap()]].0);
        let mut read: Vec<String> = Vec::new();
        for line in text.lines().skip(1) {
            if let Some((_, cells)) = line.split_once('|') {
                prop_assert_eq!(read.len() * 8, line[..6].trim().parse::<usize>().unwrap());
                read.push(cells.trim_end_matches('|').to_owned());
            } else if let Some(rest) = line.trim().strip_prefix("the same ") {
                let times = rest.split(' ').next().unwrap().parse().unwrap_or(1);
                let last = read.last().unwrap().clone();
                read.extend(std::iter::repeat_n(last, times));
            }
        }
        let expected: String = slots.iter().map(|kind| kinds[*kind].1).collect();
        prop_assert_eq!(read.concat(), expected);
    }
}

/// What was folded when there was nothing to compare with yet was never there.
#[test]
fn struct_pages_that_never_were() {
    let (_, mut before) = before_and_after();
    before.memmap.peak = before.struct_pages() + before.spent();
    let report = Report {
        before: &before,
        after: &before,
    };
    let text = report.to_string();
    let end = "\
Never built: 18172 KiB of struct pages of 65 blocks, 27.73 % of all
HVO freed nothing";
    assert!(text.ends_with(end), "{text}");
    assert_eq!(
        Peak(&before).to_string(),
        "memmap since start: 47408 KiB at most, tables and shared tails included; \
         in full 65536 KiB: 72.34 %"
    );
}
