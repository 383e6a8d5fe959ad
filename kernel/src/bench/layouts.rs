//! From a struct page to its folio, in every encoding and size: instructions, and loads of
//! memory, which instructions do not tell apart.
//!
//! Measured on memory maps of their own ([`lab::layouts`]). What the loads cost when they
//! miss the caches is no matter of instructions: that takes a real processor.

use alloc::vec::Vec;
use core::cell::Cell;
use core::hint::black_box;

use lab::layouts::{DIRECT_MAP, Flatmem, LayoutError, Map, Model, Sparsemem, Spec, Vmemmap};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::machine::{Memory as _, Processors as _};
use mm::page::encoding::*;
use suites::Random;

use super::{Name, complain, row, timed};
use crate::arch::x86_64::layout;
use crate::metal::Metal;
use crate::state::MM;

const _: () = assert!(layout::DIRECT_MAP == DIRECT_MAP.as_u64());

/// Lookups in one measurement.
const LOOKUPS: u64 = 4096;
/// Folios of 2 MiB, and pages of no larger folio.
const MEDIUM: u64 = 16;
const SMALL: u64 = 64;
/// First frame described; there is none.
const FIRST: Pfn = Pfn::new(1 << 28);

/// Every encoding with every size that it works with, and every model.
pub(super) fn lookups() {
    macro_rules! encoding {
        ($encoding:ident) => { encoding!($encoding: Bytes64, Bytes56, Bytes32, Bytes8); };
        ($encoding:ident: $($shape:ident),*) => {
            $(report::<$encoding, $shape>(folios::<$encoding, $shape>());)*
        };
    }
    mm::for_each_encoding!(encoding);
    report::<Mask, Bytes64>(model::<Vmemmap>());
    report::<Mask, Bytes64>(model::<Sparsemem>());
    report::<Mask, Bytes64>(model::<Flatmem>());
}

fn report<E: Encoding, S: PageShape>(result: Result<(), LayoutError>) {
    match result {
        // Not a layout: nothing to measure.
        Ok(()) | Err(LayoutError::Refused(_)) => {}
        Err(error) => complain(format_args!("{}-{}: {error}", E::NAME, S::SIZE)),
    }
}

/// One folio of 1 GiB, then some of 2 MiB, then single pages; where folios have
/// descriptors each of these is one, too.
struct Laid {
    large: Pfn,
    medium: Vec<Pfn>,
    small: Vec<Pfn>,
}

impl Laid {
    fn out() -> Self {
        let behind = FIRST.offset(Order::PUD.pages());
        let single = behind.offset(MEDIUM * Order::PMD.pages());
        Self {
            large: FIRST,
            medium: (0..MEDIUM)
                .map(|n| behind.offset(n * Order::PMD.pages()))
                .collect(),
            small: (0..SMALL).map(|n| single.offset(n)).collect(),
        }
    }

    /// Folios, in the order in which they are made.
    fn folios(&self, descriptors: bool) -> impl Iterator<Item = (Pfn, Order)> {
        let medium = self.medium.iter().map(|&pfn| (pfn, Order::PMD));
        let small = self.small.iter().map(|&pfn| (pfn, Order::PAGE));
        let large = core::iter::once((self.large, Order::PUD));
        large
            .chain(medium)
            .chain(small.filter(move |_| descriptors))
    }
}

fn folios<E: Encoding, S: PageShape>() -> Result<(), LayoutError> {
    let nodes = &MM.nodes;
    let laid = Laid::out();
    let mut map = Map::<E, S, Vmemmap>::try_new(Spec::of(FIRST.block(Order::of(19))))?;
    map.populate(&Metal, nodes)?;
    let made = laid
        .folios(E::DESCRIPTOR)
        .try_for_each(|(first, order)| map.prep_compound(&Metal, nodes, first, order));
    let measured = made.and_then(|()| {
        rows(&map, &laid, "off");
        if map.support().hvo.is_err() {
            return Ok(());
        }
        Metal.touch_watchdog();
        let min = Support::hvo_min_order::<S>();
        for (first, order) in laid.folios(false).filter(|(_, order)| *order >= min) {
            map.fold(&Metal, nodes, first, order)?;
        }
        rows(&map, &laid, "on");
        Ok(())
    });
    map.release(&Metal, nodes);
    Metal.touch_watchdog();
    measured
}

/// Which pages are looked up.
const PATTERNS: [&str; 4] = ["head", "sequential tail", "random tail", "mixed"];

fn rows<E: Encoding, S: PageShape>(map: &Map<E, S, Vmemmap>, laid: &Laid, hvo: &str) {
    for pattern in PATTERNS {
        let mut random = Random::new(0x7a11_f01d);
        let pages: Vec<VirtAddr> = (0..LOOKUPS)
            .map(|n| map.page(&Metal, pick(laid, pattern, n, &mut random)))
            .collect();
        let (ticks, loads) = cost::<E, S>(&pages);
        let name = Name::of(format_args!(
            "{}-{}, {pattern}, HVO {hvo}",
            E::NAME,
            S::SIZE
        ));
        row(name.as_str(), "1000 lookups", ticks * 1000 / LOOKUPS);
        let name = Name::of(format_args!("{}: loads", name.as_str()));
        row(name.as_str(), "1000 lookups", loads * 1000 / LOOKUPS);
    }
}

/// The `n`th page of `pattern`.
fn pick(laid: &Laid, pattern: &str, n: u64, random: &mut Random) -> Pfn {
    let tails = Order::PUD.pages() - 1;
    let of = |list: &[Pfn], n: u64| list[usize::try_from(n % list.len() as u64).unwrap_or(0)];
    match pattern {
        "head" => of(&laid.medium, n),
        "sequential tail" => laid.large.offset(1 + n % tails),
        "random tail" => laid.large.offset(1 + random.below(tails)),
        _ => match random.below(3) {
            0 => of(&laid.small, random.below(SMALL)),
            1 => of(&laid.medium, random.below(MEDIUM)).offset(random.below(Order::PMD.pages())),
            _ => laid.large.offset(random.below(Order::PUD.pages())),
        },
    }
}

/// Ticks and loads of looking up all of `pages`.
fn cost<E: Encoding, S: PageShape>(pages: &[VirtAddr]) -> (u64, u64) {
    let load = |at| Metal.load64(at);
    let look = || {
        for &page in pages {
            black_box(E::folio::<S>(&load, black_box(page)));
        }
    };
    // The loop itself, to be taken off.
    let empty = || {
        for &page in pages {
            black_box::<VirtAddr>(black_box(page));
        }
    };
    let best = |f: &dyn Fn()| (0..3).map(|_| timed(f).0).min().unwrap_or(0);
    let ticks = best(&look).saturating_sub(best(&empty));
    let loads = Cell::new(0);
    let counted = |at| {
        loads.set(loads.get() + 1);
        Metal.load64(at)
    };
    for &page in pages {
        E::folio::<S>(&counted, page);
    }
    (ticks, loads.get())
}

/// From pfn to struct page and back, by model.
fn model<Mo: Model>() -> Result<(), LayoutError> {
    let mut map = Map::<Mask, Bytes64, Mo>::new(Spec::of(FIRST.block(Order::of(17))));
    map.populate(&Metal, &MM.nodes)?;
    let mut random = Random::new(0x7a11_f01d);
    let pfns: Vec<Pfn> = (0..LOOKUPS)
        .map(|_| FIRST.offset(random.below(1 << 17)))
        .collect();
    let pages: Vec<VirtAddr> = pfns.iter().map(|&pfn| map.page(&Metal, pfn)).collect();
    let (there, _) = timed(|| {
        for &pfn in &pfns {
            black_box(map.page(&Metal, black_box(pfn)));
        }
    });
    let (back, _) = timed(|| {
        for &page in &pages {
            black_box(map.pfn(&Metal, black_box(page)));
        }
    });
    let (empty, _) = timed(|| {
        for &page in &pages {
            black_box::<VirtAddr>(black_box(page));
        }
    });
    for (what, ticks) in [("pfn_to_page", there), ("page_to_pfn", back)] {
        let name = Name::of(format_args!("mask-64, {what}, {}", Mo::MODEL.name()));
        row(
            name.as_str(),
            "1000 calls",
            ticks.saturating_sub(empty) * 1000 / LOOKUPS,
        );
    }
    map.release(&Metal, &MM.nodes);
    Ok(())
}
