//! What has to be known before the numbers are believed.

use crate::chase::Chain;
use crate::mapping::Mapping;
use crate::measure::{Measured, Point};
use crate::scenario::Scenario;
use crate::variants::AGAIN;

/// The largest ratio of the medians of two memmaps that are the same, `pointer/64` with HVO
/// off, over all working sets of a scenario: no smaller difference between two others means
/// anything. `None` if they were not measured.
#[must_use]
pub fn spread(points: &[Point], scenario: &Scenario, chain: Chain) -> Option<f64> {
    let of = |encoding| {
        points.iter().filter(move |p| {
            (p.encoding, p.size) == (encoding, 64)
                && p.mapping != Mapping::Folded
                && p.scenario == scenario.name
                && p.chain == chain
        })
    };
    let ratios = of("pointer").filter_map(|first| {
        let again = of(AGAIN).find(|p| p.frames == first.frames)?;
        let (a, b) = (first.ns.median, again.ns.median);
        Some(a.max(b) / a.min(b))
    });
    ratios.reduce(f64::max)
}

/// The same as a sentence.
pub(super) fn differ(points: &[Point], scenario: &Scenario, chain: Chain) -> String {
    match spread(points, scenario, chain) {
        Some(ratio) => format!(
            "two identical memmaps differ by up to {:.0} %: less than that between others means nothing",
            ((ratio - 1.0) * 100.0).ceil()
        ),
        None => String::from("no memmap was measured twice: what is chance is not known"),
    }
}

/// What maps the memmaps, and where descriptors are: a line for each population that is
/// not as in a kernel, one for all others.
pub(super) fn mapped(measured: &Measured) -> Vec<String> {
    let mut lines = Vec::new();
    let mut right = Vec::new();
    for (population, mapped) in &measured.mapped {
        match mapped {
            Ok(text) => right.push(format!("{population:?}: {text}")),
            Err(text) => lines.push(format!("NOT AS IN A KERNEL, {population:?} folios: {text}")),
        }
    }
    if !right.is_empty() {
        lines.push(format!(
            "On 2 MiB pages of the host's is all that leaves of 2 MiB map, as smaps tells (MADV_COLLAPSE): {}",
            right.join(", ")
        ));
    }
    lines.push(String::from(
        "Descriptors lie densely in pfn order: the best that memdesc can hope for",
    ));
    lines
}
