//! Which pages are looked up, and in what order.

use crate::chase::Pattern;
use crate::population::Population;

/// A population and a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// As reports spell it.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What there is.
    pub population: Population,
    /// How it is looked up.
    pub pattern: Pattern,
}

impl Scenario {
    /// All of them, those of one population together.
    pub const ALL: [Self; 5] = [
        Self {
            name: "head",
            about: "folios of one page, at random",
            population: Population::Single,
            pattern: Pattern::Random,
        },
        Self {
            name: "sequential-tail",
            about: "2 MiB folios, page after page",
            population: Population::Large,
            pattern: Pattern::Sequential,
        },
        Self {
            name: "random-tail",
            about: "2 MiB folios, pages at random",
            population: Population::Large,
            pattern: Pattern::Random,
        },
        Self {
            name: "random-tail-1g",
            about: "1 GiB folios, pages at random",
            population: Population::Gigantic,
            pattern: Pattern::Random,
        },
        Self {
            name: "mixed",
            about: "4 KiB, 4 KiB, 2 MiB and 1 GiB folios, pages at random",
            population: Population::Mixed,
            pattern: Pattern::Random,
        },
    ];
}
