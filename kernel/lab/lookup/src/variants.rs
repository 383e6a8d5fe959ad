//! Every encoding with every size that it supports, on one machine.

use mm::for_each_encoding;
use mm::page::encoding::{self, Bytes8, Bytes32, Bytes56, Bytes64, Encoding};

use crate::build::{Space, entries};
use crate::chase::{Chain, Pattern};
use crate::mapping::Mapping;
use crate::population::Population;
use crate::variant::Variant;
use native::HostError;
use native::limits::need_mappings;

/// Memmaps of the same memory, one for each encoding, size and kind of mapping.
#[derive(Debug)]
pub struct Bench {
    space: Space,
    variants: Vec<Variant>,
}

/// The name of a second memmap that is built exactly as `pointer/64` is. That two of the
/// same make a difference tells how much of any other may be chance.
pub(super) const AGAIN: &str = "pointer again";

/// Mappings that all variants need together, at most.
fn mappings(frames: u64) -> u64 {
    let mut folded = 0;
    macro_rules! each {
        ($encoding:ident) => {
            if encoding::$encoding::SHARING != encoding::Sharing::Nothing {
                folded += entries::<Bytes64>(frames) + entries::<Bytes32>(frames);
                if encoding::$encoding::DESCRIPTOR {
                    folded += entries::<Bytes8>(frames);
                }
            }
        };
    }
    for_each_encoding!(each);
    folded
}

/// The most memory, in GiB and at most `wanted`, whose memmaps need no more mappings than
/// the host allows; the limit is raised if it may be. And, if that is less, why.
///
/// # Errors
/// [`HostError::TooManyMappings`] if not even the smallest fits.
pub fn memory_that_fits(wanted: u64) -> Result<(u64, Option<HostError>), HostError> {
    let mut why = None;
    let mut gib = wanted;
    loop {
        match need_mappings(mappings(gib << 18)) {
            Ok(()) => return Ok((gib, why)),
            Err(refused) if gib / 2 < Bench::MIN_GIB => return Err(refused),
            Err(refused) => {
                why.get_or_insert(refused);
                gib /= 2;
            }
        }
    }
}

impl Bench {
    /// The least memory that can be described: each quarter has a folio of 1 GiB.
    pub const MIN_GIB: u64 = 4;
    /// The most: what is set aside for one memmap of 64-byte struct pages, twice over.
    pub const MAX_GIB: u64 = 256;

    /// Builds the memmaps of `gib` GiB of memory (a power of two) that `population` is in.
    ///
    /// # Errors
    /// [`HostError`] if the host does not give memory, address space or mappings.
    ///
    /// # Panics
    /// If `gib` is no power of two, or out of bounds.
    pub fn new(population: Population, gib: u64) -> Result<Self, HostError> {
        assert!(
            gib.is_power_of_two() && (Self::MIN_GIB..=Self::MAX_GIB).contains(&gib),
            "{gib} GiB: a power of two from {} to {} is needed",
            Self::MIN_GIB,
            Self::MAX_GIB
        );
        let frames = gib << 18;
        need_mappings(mappings(frames))?;
        let mut space = Space::new(population, frames)?;
        let mut variants = vec![Variant::floor()];
        let unfolded = match space.refused() {
            None => Mapping::Large,
            Some(_) => Mapping::Small,
        };
        for mapping in [unfolded, Mapping::Folded] {
            macro_rules! each {
                ($encoding:ident) => {
                    sizes::<encoding::$encoding>(&mut space, &mut variants, mapping);
                };
            }
            for_each_encoding!(each);
            if mapping == unfolded {
                let again = space.build::<encoding::Pointer, Bytes64>(mapping);
                variants.extend(again.map(|variant| variant.called(AGAIN)));
            }
        }
        if unfolded == Mapping::Large {
            let small = Mapping::Small;
            variants.extend(space.build::<encoding::Mask, Bytes64>(small));
            variants.extend(space.build::<encoding::Memdesc, Bytes8>(small));
        }
        Ok(Self { space, variants })
    }

    pub(super) fn variants(&self) -> &[Variant] {
        &self.variants
    }

    pub(super) const fn space(&self) -> &Space {
        &self.space
    }

    /// How many there are, and the name of each: `mask/64+hvo`.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.variants.iter().map(Variant::name)
    }

    /// Looks `lookups` of the first `frames` pages (a power of two) up by the `n`th way;
    /// the sum of the flags found. Another `start` is another walk through the pages.
    pub fn run(
        &self,
        n: usize,
        pattern: Pattern,
        chain: Chain,
        frames: u64,
        lookups: u64,
        start: u64,
    ) -> u64 {
        let span = self.space.span(frames);
        self.variants[n].run(pattern, chain, span, lookups, start)
    }

    /// What [`Bench::run`] is to return, found out by the machine's own loads.
    #[must_use]
    pub fn sum(&self, n: usize, pattern: Pattern, frames: u64, lookups: u64, start: u64) -> u64 {
        let span = self.space.span(frames);
        self.space
            .sum(&self.variants[n], pattern, span, lookups, start)
    }

    /// Whether every memmap is mapped by pages of 2 MiB where its tables say so, and by
    /// 4 KiB elsewhere, as the host tells it: true of memmaps that were looked up whole.
    /// How much is so, and as an error if it is not, with the ways whose times mislead.
    ///
    /// # Errors
    /// What is not so, or that the host does not tell.
    pub fn large_pages(&self) -> Result<String, String> {
        if let Some(why) = self.space.refused() {
            return Err(format!(
                "{why}: all memmaps are mapped by 4 KiB pages, as no kernel does with HVO off, and HVO looks better than it is"
            ));
        }
        let mapped = self.space.mapped_large(&self.variants);
        let mapped = mapped.map_err(|why| format!("/proc/self/smaps: {why}"))?;
        let wrong: Vec<_> = self
            .variants
            .iter()
            .zip(&mapped)
            .filter(|(variant, bytes)| variant.leaves != **bytes)
            .map(|(variant, bytes)| {
                let (name, wanted) = (variant.name(), variant.leaves >> 20);
                format!("{name}: {} of {wanted} MiB", bytes >> 20)
            })
            .collect();
        let missed = self.space.missed();
        let missed = missed.map_or(String::new(), |why| format!(" ({why})"));
        if wrong.is_empty() {
            let all = mapped.iter().sum::<u64>() >> 20;
            Ok(format!("{all} MiB of memmaps"))
        } else {
            Err(format!(
                "not mapped by 2 MiB pages as their tables say: {}{missed}",
                wrong.join(", ")
            ))
        }
    }

    /// Looks up every page of every folio by every way.
    ///
    /// # Errors
    /// The first that leads to another folio.
    pub fn check(&self) -> Result<u64, String> {
        let mut checked = 0;
        for variant in &self.variants {
            checked += self.space.check(variant)?;
        }
        Ok(checked)
    }
}

fn sizes<E: Encoding>(space: &mut Space, variants: &mut Vec<Variant>, mapping: Mapping) {
    variants.extend(space.build::<E, Bytes64>(mapping));
    variants.extend(space.build::<E, Bytes56>(mapping));
    variants.extend(space.build::<E, Bytes32>(mapping));
    variants.extend(space.build::<E, Bytes8>(mapping));
}
