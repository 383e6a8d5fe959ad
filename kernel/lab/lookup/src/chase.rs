//! The loops that are measured: from a page to its folio, and to the folio's flags.
#![expect(unsafe_code, reason = "loads from a memmap")]

use std::hint::black_box;
use std::ptr;

use mm::addr::VirtAddr;
use mm::page::encoding::{Encoding, PageShape};

use crate::population::Span;

/// In which order pages are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// One after the other.
    Sequential,
    /// At random.
    Random,
}

/// Whether a lookup has to wait for the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chain {
    /// Which page is next depends on what was loaded: latency.
    Dependent,
    /// It does not, and the processor works on several at once: throughput.
    Independent,
}

impl Chain {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dependent, Self::Independent];

    /// As reports spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dependent => "dependent",
            Self::Independent => "independent",
        }
    }
}

/// Looks up `lookups` pages of those in the span, from the memmap given on, in the order
/// of [`pages`] for the start given; the sum of the words found.
pub(super) type Chase = fn(VirtAddr, Span, u64, u64) -> u64;

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "x86_64")]
fn load(at: VirtAddr) -> u64 {
    let at = ptr::with_exposed_provenance::<u64>(at.as_u64() as usize);
    // SAFETY: `at` is in a memmap, or a descriptor, of a `Variant`, which lives while it is
    // measured; both are read-only by then, and no reference to them exists (INV-1).
    unsafe { at.read_volatile() }
}

/// A multiplier and an odd addend whose generator modulo 2^64 has full period (Knuth's).
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const ADDEND: u64 = 1_442_695_040_888_963_407;

/// Where a walk through pages starts: far from where another start leads.
#[inline(always)]
const fn first<const RANDOM: bool>(start: u64, shift: u32) -> u64 {
    let mixed = start.wrapping_mul(MULTIPLIER);
    if RANDOM { mixed } else { mixed >> shift }
}

/// The pages that every loop looks up, for models and tests of the loops.
pub(super) fn pages(pattern: Pattern, span: Span, start: u64) -> impl Iterator<Item = u64> {
    let shift = 64 - span.frames.ilog2();
    let random = pattern == Pattern::Random;
    let mut state = if random {
        first::<true>(start, shift)
    } else {
        first::<false>(start, shift)
    };
    std::iter::from_fn(move || {
        let page = if random {
            state >> shift
        } else {
            state % span.frames
        };
        state = if random {
            state.wrapping_mul(MULTIPLIER).wrapping_add(ADDEND)
        } else {
            state + 1
        };
        Some(page)
    })
}

/// The loop around whatever `look` does to the `n`th page of `span`.
#[inline(always)]
fn turn<const RANDOM: bool, const DEPENDENT: bool>(
    span: Span,
    lookups: u64,
    start: u64,
    look: impl Fn(u64) -> u64,
) -> u64 {
    let (shift, mask) = (64 - span.frames.ilog2(), span.frames - 1);
    // The compiler does not know that it is 0, nor does the processor.
    let zero = black_box(0_u64);
    let (mut state, mut sum) = (first::<RANDOM>(start, shift), 0_u64);
    for _ in 0..lookups {
        let n = if RANDOM { state >> shift } else { state & mask };
        let value = look(n);
        sum = sum.wrapping_add(value);
        let waits = if DEPENDENT { value & zero } else { 0 };
        state = if RANDOM {
            state.wrapping_mul(MULTIPLIER).wrapping_add(ADDEND)
        } else {
            state.wrapping_add(1)
        };
        state = state.wrapping_add(waits);
    }
    black_box(state);
    sum
}

/// Byte offset of the flags in a folio's data. They come first, in descriptors too.
pub(super) const fn flags<E: Encoding, S: PageShape>() -> u64 {
    match S::FLAGS {
        Some(flags) if !E::DESCRIPTOR => flags,
        _ => 0,
    }
}

#[inline(never)]
fn chase<
    E: Encoding,
    S: PageShape,
    const RANDOM: bool,
    const DEPENDENT: bool,
    const MIXED: bool,
>(
    memmap: VirtAddr,
    span: Span,
    lookups: u64,
    start: u64,
) -> u64 {
    let flags = flags::<E, S>();
    turn::<RANDOM, DEPENDENT>(span, lookups, start, |n| {
        let pfn = if MIXED { span.in_quarters(n) } else { n };
        let page = memmap.offset(pfn * S::SIZE);
        load(E::folio::<S>(&load, page).offset(flags))
    })
}

/// The loop for one way to look up pages.
pub(super) fn of<E: Encoding, S: PageShape>(pattern: Pattern, chain: Chain, mixed: bool) -> Chase {
    match (pattern, chain, mixed) {
        (Pattern::Sequential, Chain::Dependent, false) => chase::<E, S, false, true, false>,
        (Pattern::Sequential, Chain::Independent, false) => chase::<E, S, false, false, false>,
        (Pattern::Random, Chain::Dependent, false) => chase::<E, S, true, true, false>,
        (Pattern::Random, Chain::Independent, false) => chase::<E, S, true, false, false>,
        (Pattern::Sequential, Chain::Dependent, true) => chase::<E, S, false, true, true>,
        (Pattern::Sequential, Chain::Independent, true) => chase::<E, S, false, false, true>,
        (Pattern::Random, Chain::Dependent, true) => chase::<E, S, true, true, true>,
        (Pattern::Random, Chain::Independent, true) => chase::<E, S, true, false, true>,
    }
}

#[inline(never)]
fn empty<const RANDOM: bool, const DEPENDENT: bool>(
    _: VirtAddr,
    span: Span,
    lookups: u64,
    start: u64,
) -> u64 {
    turn::<RANDOM, DEPENDENT>(span, lookups, start, |n| n)
}

/// The same loop without a lookup: what of a time is not the encoding's.
pub(super) fn floor(pattern: Pattern, chain: Chain) -> Chase {
    match (pattern, chain) {
        (Pattern::Sequential, Chain::Dependent) => empty::<false, true>,
        (Pattern::Sequential, Chain::Independent) => empty::<false, false>,
        (Pattern::Random, Chain::Dependent) => empty::<true, true>,
        (Pattern::Random, Chain::Independent) => empty::<true, false>,
    }
}
