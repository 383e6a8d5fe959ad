//! Taking times: many short samples, all ways in turns, so that whatever else the host
//! does disturbs all alike.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

use crate::caches::Host;
use crate::chase::Chain;
use crate::counters::{Counters, Misses};
use crate::mapping::Mapping;
use crate::population::{Population, Span};
use crate::scenario::Scenario;
use crate::variant::Variant;
use crate::variants::Bench;
use native::HostError;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Memory described, in GiB: a power of two.
    pub gib: u64,
    /// Samples of each point.
    pub samples: usize,
    /// Lookups in a sample.
    pub lookups: u64,
    /// Each working set is this many times, as a power of two, the one before.
    pub step: u32,
    /// What is looked up.
    pub scenarios: Vec<Scenario>,
}

/// Nanoseconds for one lookup over the samples of a point.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// A quarter were below.
    pub lower: f64,
    /// Half were.
    pub median: f64,
    /// Three quarters were.
    pub upper: f64,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self {
            min: at(0),
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }
}

/// One way to look up pages, at one size of working set.
#[derive(Clone, PartialEq, Debug)]
pub struct Point {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Whether lookups wait for each other.
    pub chain: Chain,
    /// Name of the encoding.
    pub encoding: &'static str,
    /// Bytes of a struct page.
    pub size: u64,
    /// What maps the memmap.
    pub mapping: Mapping,
    /// Frames whose pages are looked up.
    pub frames: u64,
    /// Bytes of memmap and descriptors that this reaches.
    pub touched: u64,
    /// Time for one lookup.
    pub ns: Spread,
    /// Misses over all samples, if they could be counted, for each lookup.
    pub misses: Option<[f64; 2]>,
}

/// What was measured, and on what.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Measured {
    /// All points.
    pub points: Vec<Point>,
    /// What pages of the host's map the memmaps of each population, as it was seen after
    /// they were measured: an error if that is not as in a kernel.
    pub mapped: Vec<(Population, Result<String, String>)>,
}

/// Fewest frames in a working set: 16 KiB of 64-byte struct pages.
const SMALLEST: u64 = 256;

/// Measures everything that `settings` asks for; `tell` is told how far it is.
///
/// # Errors
/// [`HostError`] if the host does not give memory, address space or mappings.
///
/// # Panics
/// If a memmap is wrong.
pub fn measure(
    settings: &Settings,
    host: &Host,
    tell: &mut dyn FnMut(&str),
) -> Result<Measured, HostError> {
    let mut counters = match Counters::open() {
        Ok(counters) => Some(counters),
        Err(why) => {
            tell(&format!("perf counters: not available here ({why})"));
            None
        }
    };
    let mut measured = Measured::default();
    let mut scenarios = settings.scenarios.as_slice();
    while let Some(first) = scenarios.first() {
        let same = |scenario: &&Scenario| scenario.population == first.population;
        let (now, later) = scenarios.split_at(scenarios.iter().take_while(same).count());
        tell(&format!(
            "{} GiB of {:?} folios: building memmaps",
            settings.gib, first.population
        ));
        let bench = Bench::new(first.population, settings.gib)?;
        for scenario in now {
            for chain in Chain::ALL {
                tell(&format!("{}, {}", scenario.name, chain.name()));
                let run = Run {
                    settings,
                    llc: host.llc(),
                    bench: &bench,
                    scenario: *scenario,
                    chain,
                };
                run.all(&mut counters, &mut measured.points);
            }
        }
        measured
            .mapped
            .push((first.population, bench.large_pages()));
        scenarios = later;
    }
    Ok(measured)
}

/// Nanoseconds of processor time that this thread has had: what others had in between
/// does not count, only what they pushed out of the caches.
fn thread_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// How many pages are looked up before a sample, so that caches hold what they can of what
/// all `frames` pages reach by that way, `touched` bytes, and nothing of the way whose turn
/// it was before: all, unless it is so much that little of it would stay.
const fn warming(frames: u64, touched: u64, llc: u64, lookups: u64) -> u64 {
    if touched <= 4 * llc { frames } else { lookups }
}

/// Where the walk of the `n`th sample of a point starts. Each has its own: descriptors,
/// which all ways have in common, must not be in the caches because the way before looked
/// up the same pages.
const fn start(n: u64) -> u64 {
    (n + 1) << 32
}

struct Run<'a> {
    settings: &'a Settings,
    llc: u64,
    bench: &'a Bench,
    scenario: Scenario,
    chain: Chain,
}

impl Run<'_> {
    fn all(&self, counters: &mut Option<Counters>, points: &mut Vec<Point>) {
        let mut frames = SMALLEST;
        while frames <= self.settings.gib << 18 {
            points.extend(self.at(frames, counters));
            frames <<= self.settings.step;
        }
    }

    fn at(&self, frames: u64, counters: &mut Option<Counters>) -> Vec<Point> {
        let variants = self.bench.variants();
        let span = self.bench.space().span(frames);
        let touched: Vec<_> = variants
            .iter()
            .map(|variant| self.bench.space().touched(variant, span))
            .collect();
        let mut times = vec![Vec::with_capacity(self.settings.samples); variants.len()];
        let mut misses = vec![counters.as_ref().map(|_| Misses::default()); variants.len()];
        // So that every page has been mapped, by the host too.
        for variant in variants {
            self.warm(variant, span, frames);
        }
        for sample in 0..self.settings.samples {
            for turn in 0..variants.len() {
                let n = (turn + sample) % variants.len();
                let warming = warming(frames, touched[n], self.llc, self.settings.lookups);
                self.warm(&variants[n], span, warming);
                let start = start((sample * variants.len() + turn) as u64);
                let (ns, counted) = self.sample(&variants[n], span, start, counters);
                times[n].push(ns);
                misses[n] = misses[n].zip(counted).map(|(sum, new)| Misses {
                    cache: sum.cache + new.cache,
                    dtlb: sum.dtlb + new.dtlb,
                });
            }
        }
        let point = |(n, (times, misses)): (usize, (Vec<f64>, Option<Misses>))| Point {
            scenario: self.scenario.name,
            chain: self.chain,
            encoding: variants[n].encoding,
            size: variants[n].size,
            mapping: variants[n].mapping,
            frames,
            touched: touched[n],
            ns: Spread::of(times),
            misses: misses.map(|misses| {
                let all = (self.settings.lookups * self.settings.samples as u64) as f64;
                [misses.cache as f64 / all, misses.dtlb as f64 / all]
            }),
        };
        let results = times.into_iter().zip(misses);
        results.enumerate().map(point).collect()
    }

    fn warm(&self, variant: &Variant, span: Span, pages: u64) {
        use crate::chase::Pattern::{Random, Sequential};
        let pattern = if pages == span.frames {
            Sequential
        } else {
            Random
        };
        black_box(variant.run(pattern, Chain::Independent, span, pages, 7));
    }

    /// Nanoseconds for one lookup, and the misses of all of them.
    fn sample(
        &self,
        variant: &Variant,
        span: Span,
        start: u64,
        counters: &mut Option<Counters>,
    ) -> (f64, Option<Misses>) {
        let lookups = self.settings.lookups;
        let pattern = self.scenario.pattern;
        // Once unmeasured: the loop's own code and branches.
        black_box(variant.run(pattern, self.chain, span, lookups / 8, start));
        let timed = || {
            let from = thread_time();
            black_box(variant.run(pattern, self.chain, span, lookups, start ^ 0x5555));
            (thread_time() - from) / lookups as f64
        };
        match counters {
            Some(counters) => {
                let (ns, counted) = counters.over(timed);
                (ns, counted.ok())
            }
            None => (timed(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chase::{Pattern, pages};

    /// 16 GiB of described memory: 256 MiB of 64-byte struct pages, 32 MiB of 8-byte ones.
    #[test]
    fn what_fits_is_warmed_whole_whatever_the_others_need() {
        let (frames, llc) = (1 << 22, 32 << 20);
        assert_eq!(warming(frames, frames * 64, llc, 8192), 8192);
        assert_eq!(warming(frames, frames * 8, llc, 8192), frames);
        assert_eq!(warming(frames, 4 * llc, llc, 8192), frames);
    }

    #[test]
    fn samples_look_up_pages_of_their_own() {
        let span = Span {
            frames: 1 << 22,
            quarter_shift: 20,
        };
        for pattern in [Pattern::Sequential, Pattern::Random] {
            let pages = |n| pages(pattern, span, start(n)).take(4096);
            let first: BTreeSet<_> = pages(0).collect();
            for n in 1..20 {
                let both = pages(n).filter(|page| first.contains(page)).count();
                assert!(both < 64, "{pattern:?}: sample {n} shares {both} pages");
            }
        }
    }
}
