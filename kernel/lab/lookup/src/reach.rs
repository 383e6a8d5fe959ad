//! What a memmap that was built is: whether it is right, what maps it, how much of it a
//! working set reaches.

use std::collections::BTreeSet;
use std::io;

use mm::addr::PAGE_SIZE;
use mm::machine::Memory as _;
use mm::paging;

use crate::build::{DESCRIPTOR, Space, mark};
use crate::chase::{self, Pattern};
use crate::mapping::{Mapping, by_large_pages};
use crate::population::{Population, Span};
use crate::variant::Variant;

impl Space {
    /// Bytes of each memmap in `variants` that the host maps by pages of 2 MiB now: of
    /// those that were touched.
    pub(super) fn mapped_large(&self, variants: &[Variant]) -> io::Result<Vec<u64>> {
        let range = |variant: &Variant| variant.memmap.range(self.frames * variant.size);
        by_large_pages(&variants.iter().map(range).collect::<Vec<_>>())
    }

    /// Looks up every page by `variant`; how many.
    pub(super) fn check(&self, variant: &Variant) -> Result<u64, String> {
        let folios = self.population.folios(self.frames).zip(0_u64..);
        for ((first, order), number) in folios {
            let page = |n| variant.memmap.offset((first.as_u64() + n) * variant.size);
            let expected = match self.descriptors {
                Some(base) if variant.descriptor => {
                    self.m.direct_map(base.offset(number * DESCRIPTOR))
                }
                _ => page(0),
            };
            for n in 0..order.pages() {
                let found = (variant.finds)(&self.m, page(n));
                if found != expected && variant.size > 0 {
                    let name = variant.name();
                    return Err(format!(
                        "{name}: page {n} of {first:?}, order {order}, leads to {found:?} and not {expected:?}"
                    ));
                }
            }
            if variant.size == 0 {
                continue;
            }
            let flags = self.m.load64(expected.offset(variant.flags));
            if flags >> 16 != mark(number) >> 16 {
                let name = variant.name();
                return Err(format!(
                    "{name}: flags {flags:#x} at {expected:?}, which is to be folio {number}"
                ));
            }
        }
        Ok(if variant.size > 0 { self.frames } else { 0 })
    }

    /// What looking up `lookups` pages by `variant` is to sum up to: the same pages, the
    /// words loaded by the machine.
    pub(super) fn sum(
        &self,
        variant: &Variant,
        pattern: Pattern,
        span: Span,
        lookups: u64,
        start: u64,
    ) -> u64 {
        let pages = chase::pages(pattern, span, start);
        let words = pages.zip(0..lookups).map(|(n, _)| {
            if variant.size == 0 {
                return n;
            }
            let pfn = match self.population {
                Population::Mixed => span.in_quarters(n),
                _ => n,
            };
            let page = variant.memmap.offset(pfn * variant.size);
            let folio = (variant.finds)(&self.m, page);
            self.m.load64(folio.offset(variant.flags))
        });
        words.fold(0, u64::wrapping_add)
    }

    pub(super) const fn span(&self, frames: u64) -> Span {
        Span {
            frames,
            quarter_shift: (self.frames / 4).ilog2(),
        }
    }

    /// Bytes that looking up all pages in the span reaches: frames of memmap, each once
    /// however often it is mapped, and descriptors.
    pub(super) fn touched(&self, variant: &Variant, span: Span) -> u64 {
        let mut bytes = 0;
        let mut seen = BTreeSet::new();
        for range in self.population.ranges(span) {
            let length = range.pages() * variant.size;
            if variant.mapping != Mapping::Folded {
                bytes += length;
                continue;
            }
            let start = variant.memmap.offset(range.start.as_u64() * variant.size);
            for n in 0..length.div_ceil(PAGE_SIZE) {
                let at = start.offset(n * PAGE_SIZE);
                let frame = paging::translate(&self.m, self.m.root(), at);
                if frame.is_some_and(|frame| seen.insert(frame.pfn().as_u64())) {
                    bytes += PAGE_SIZE.min(length);
                }
            }
        }
        let descriptors = if variant.descriptor {
            self.population.folios_in(span) * DESCRIPTOR
        } else {
            0
        };
        bytes + descriptors
    }
}
