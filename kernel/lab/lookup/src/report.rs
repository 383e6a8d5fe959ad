//! The numbers as text.

use std::fmt::Write as _;

use crate::chase::Chain;
use crate::mapping::Mapping;
use crate::measure::{Measured, Point};
use crate::notes;
use crate::scenario::Scenario;

/// All numbers, a line each, for programs.
#[must_use]
pub fn csv(points: &[Point]) -> String {
    let mut text = String::from(
        "scenario,chain,encoding,struct_page_bytes,mapping,frames,touched_bytes,ns_min,ns_lower_quartile,ns_median,ns_upper_quartile,cache_misses,dtlb_misses\n",
    );
    for p in points {
        let misses = p.misses.map_or(String::from(","), |[cache, dtlb]| {
            format!("{cache:.4},{dtlb:.4}")
        });
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{misses}",
            p.scenario,
            p.chain.name(),
            p.encoding,
            p.size,
            p.mapping.name(),
            p.frames,
            p.touched,
            p.ns.min,
            p.ns.lower,
            p.ns.median,
            p.ns.upper,
        );
    }
    text
}

/// `frames` as memory described.
pub(super) fn memory(frames: u64) -> String {
    let mib = frames >> 8;
    if mib < 1024 {
        format!("{mib} MiB")
    } else {
        format!("{} GiB", mib >> 10)
    }
}

/// Bytes, in the largest unit that leaves one or more.
fn bytes(n: u64) -> String {
    match n {
        0 => String::from("-"),
        1..0x10_0000 => format!("{} KiB", n.div_ceil(1024)),
        _ => format!("{} MiB", n >> 20),
    }
}

/// Tables in Markdown: for each scenario and kind of chain every fourth size of working
/// set, median nanoseconds and the quartiles. Before them, what maps the memmaps; with
/// each, by how much two identical memmaps differ.
#[must_use]
pub fn tables(measured: &Measured, scenarios: &[Scenario]) -> String {
    let points = &measured.points;
    let mut text = notes::mapped(measured).join("\n");
    text.push('\n');
    for scenario in scenarios {
        for chain in Chain::ALL {
            let here = |p: &&Point| p.scenario == scenario.name && p.chain == chain;
            let all: Vec<&Point> = points.iter().filter(here).collect();
            table(&mut text, scenario, chain, &all);
            let _ = writeln!(text, "\n{}", notes::differ(points, scenario, chain));
        }
    }
    text
}

/// Working sets that get a column.
const COLUMNS: usize = 5;

fn table(text: &mut String, scenario: &Scenario, chain: Chain, points: &[&Point]) {
    let mut sizes: Vec<u64> = points.iter().map(|p| p.frames).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let Some(last) = sizes.len().checked_sub(1) else {
        return;
    };
    let mut columns: Vec<usize> = (0..COLUMNS).map(|n| n * last / (COLUMNS - 1)).collect();
    columns.dedup();
    let _ = write!(
        text,
        "\n{} ({}), {} lookups, ns: median (quartiles)\n\n| encoding/size | memmap touched, at most |",
        scenario.name,
        scenario.about,
        chain.name()
    );
    for column in &columns {
        let _ = write!(text, " {} |", memory(sizes[*column]));
    }
    let _ = writeln!(text, "\n|---|--:|{}", "--:|".repeat(columns.len()));
    for largest in points.iter().filter(|p| p.frames == sizes[last]) {
        let same = |p: &&&Point| {
            (p.encoding, p.size, p.mapping) == (largest.encoding, largest.size, largest.mapping)
        };
        let _ = write!(text, "| {} | {} |", name(largest), bytes(largest.touched));
        for column in &columns {
            let mut at = points.iter().filter(same);
            if let Some(p) = at.find(|p| p.frames == sizes[*column]) {
                let _ = write!(
                    text,
                    " {:.2} ({:.2}-{:.2}) |",
                    p.ns.median, p.ns.lower, p.ns.upper
                );
            }
        }
        text.push('\n');
    }
}

fn name(p: &Point) -> String {
    let mapping = match p.mapping {
        Mapping::Large => "",
        Mapping::Small => ", by 4 KiB",
        Mapping::Folded => " HVO",
    };
    match p.size {
        0 => String::from("the loop alone"),
        size => format!("{}/{size}{mapping}", p.encoding),
    }
}
