//! SPARSEMEM without a vmemmap: an array for each section, in the direct map, and a table
//! of them.

use super::{Model, Place, Spec, direct};
use crate::layouts::error::LayoutError;
use crate::layouts::fields::PageBits;
use crate::layouts::ledger::Ledger;
use mm::addr::{Order, PAGE_SIZE, Pfn, PfnRange, PhysAddr, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::encoding::{MemoryModel, PageShape, SECTION};

/// Entries of the section table, which is one frame.
const SECTIONS: u64 = PAGE_SIZE / 8;

/// A memmap for each section, aligned to its own size rounded up to a power of two (56
/// bytes a page: 1.75 MiB at a multiple of 2 MiB, the last quarter MiB given back), so
/// that folios up to a section find their heads.
///
/// The maps lie in *descending* order: a folio that crossed sections would never find its
/// head. Allocators like to hand out neighbours, and then it would work by luck.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "sparse_init_one_section")]
pub struct Sparsemem;

/// Where the entry of the section of `pfn` is.
#[inline(always)]
fn entry(place: &Place, table: Pfn, pfn: Pfn) -> PhysAddr {
    let first = place.range.start.as_u64() >> SECTION.get();
    table
        .phys()
        .offset(((pfn.as_u64() >> SECTION.get()) - first) * 8)
}

/// The memmap of the section of `pfn`.
#[inline(always)]
#[doc(alias = "__section_mem_map_addr")]
fn section_map<M: Machine>(m: &M, place: &Place, pfn: Pfn) -> VirtAddr {
    let at = place
        .sections
        .map_or(0, |table| m.read_phys(entry(place, table, pfn)));
    VirtAddr::trusted(at)
}

/// First pages of the sections of `range`.
fn firsts(range: PfnRange) -> impl DoubleEndedIterator<Item = Pfn> {
    (0..range.pages() >> SECTION.get()).map(move |n| range.start.offset(n << SECTION.get()))
}

/// Puts `at` among the `count` addresses of the table, which descend.
fn insert<M: Machine>(m: &M, table: Pfn, count: u64, at: VirtAddr) {
    let slot = |n: u64| table.phys().offset(n * 8);
    let mut n = count;
    // Descending: whoever is lower moves up by one.
    while n > 0 && m.read_phys(slot(n - 1)) < at.as_u64() {
        m.write_phys(slot(n), m.read_phys(slot(n - 1)));
        n -= 1;
    }
    m.write_phys(slot(n), at.as_u64());
}

impl Model for Sparsemem {
    const MODEL: MemoryModel = MemoryModel::Sparsemem;
    const GRAIN: Order = SECTION;

    fn populate<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        ledger: &mut Ledger,
    ) -> Result<Place, LayoutError> {
        let sections = spec.range.pages() >> SECTION.get();
        if sections > SECTIONS {
            return Err(LayoutError::TooFar(spec.range));
        }
        let table = frames
            .alloc(m, Order::PAGE, Placement::Prefer(spec.node))
            .ok_or(LayoutError::NoMemory)?;
        m.fill_words(table.phys(), 0, SECTIONS);
        ledger.section_tables += 1;
        let place = Place {
            range: spec.range,
            origin: VirtAddr::NULL,
            sections: Some(table),
        };
        for n in 0..sections {
            match direct::take::<M, S>(m, frames, spec, SECTION.pages(), ledger) {
                Ok(at) => insert(m, table, n, at),
                Err(error) => {
                    Self::release::<M, S>(m, frames, spec, &place, ledger);
                    return Err(error);
                }
            }
        }
        Ok(place)
    }

    fn release<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        place: &Place,
        ledger: &mut Ledger,
    ) {
        let Some(table) = place.sections else { return };
        for first in firsts(place.range) {
            let at = section_map(m, place, first);
            if at != VirtAddr::NULL {
                direct::give::<M, S>(m, frames, spec, SECTION.pages(), at, ledger);
            }
        }
        frames.free(m, table, Order::PAGE);
        ledger.section_tables -= 1;
    }

    #[inline(always)]
    fn page<M: Machine, S: PageShape>(m: &M, place: &Place, pfn: Pfn) -> VirtAddr {
        let n = pfn.as_u64() % SECTION.pages();
        section_map(m, place, pfn).offset(n * S::SIZE)
    }

    /// By the section's number in the page's flags; a struct page without flags is
    /// looked up in the table, whose addresses descend.
    #[inline(always)]
    fn pfn<M: Machine, S: PageShape>(m: &M, place: &Place, page: VirtAddr) -> Pfn {
        let first = match S::FLAGS {
            Some(flags) => {
                let bits = PageBits::from_raw(Self::load(m, page.offset(flags)));
                Pfn::new(bits.section() << SECTION.get())
            }
            None => first_by_table(m, place, page),
        };
        let n = (page.as_u64() - section_map(m, place, first).as_u64()) / S::SIZE;
        first.offset(n)
    }

    #[inline(always)]
    fn load<M: Machine>(m: &M, at: VirtAddr) -> u64 {
        direct::load(m, at)
    }

    #[inline(always)]
    fn store<M: Machine>(m: &M, at: VirtAddr, value: u64) {
        direct::store(m, at, value);
    }

    fn phys<M: Machine>(_: &M, at: VirtAddr) -> Option<PhysAddr> {
        Some(direct::phys(at))
    }
}

/// The first page of the section whose memmap `page` lies in: that with the highest
/// address that is not above.
fn first_by_table<M: Machine>(m: &M, place: &Place, page: VirtAddr) -> Pfn {
    let nth = |n: u64| place.range.start.offset(n << SECTION.get());
    let (mut low, mut high) = (0, (place.range.pages() >> SECTION.get()) - 1);
    while low < high {
        let middle = low.midpoint(high);
        if section_map(m, place, nth(middle)) <= page {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    nth(low)
}
