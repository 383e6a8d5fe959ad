//! SPARSEMEM_VMEMMAP: one virtual array, mapped where there are frames to describe.

use super::{Model, Place, Spec};
use crate::layouts::error::LayoutError;
use crate::layouts::ledger::Ledger;
use mm::addr::{Order, PAGE_SIZE, PMD_SIZE, Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::encoding::{MemoryModel, PageShape};
use mm::paging::{self, Flush, Level, MapError, Pte, PteFlags};

/// Where the array starts: struct page 0. A window of one top-level entry, which is the
/// map's alone, and aligned for every folio.
#[doc(alias = "VMEMMAP_START")]
pub const WINDOW: VirtAddr = VirtAddr::new(0xffff_ec00_0000_0000);

/// Bytes of address space: those behind one top-level entry.
const WINDOW_BYTES: u64 = Level::Pgd.span();

/// Mapped by 2 MiB leaves where they fit, else by pages. Only this model can fold.
#[derive(Clone, Copy, Debug)]
pub struct Vmemmap;

/// The pages that the struct pages lie in.
fn pages_of<S: PageShape>(spec: &Spec) -> Result<VirtRange, LayoutError> {
    let bytes = |pfn: Pfn| pfn.as_u64().checked_mul(S::SIZE)?.checked_add(spec.skew);
    let (start, end) = (bytes(spec.range.start), bytes(spec.range.end));
    match (start, end) {
        (Some(start), Some(end)) if end <= WINDOW_BYTES => Ok(VirtRange {
            start: WINDOW.offset(start).align_down(PAGE_SIZE),
            end: WINDOW.offset(end).align_up(PAGE_SIZE),
        }),
        _ => Err(LayoutError::TooFar(spec.range)),
    }
}

/// The table of level 3 behind the window, if there is one.
pub(in crate::layouts) fn window_tables<M: Machine>(m: &M) -> Option<Pfn> {
    let entry = Pte::from_raw(m.read_phys(paging::slot(m.root(), Level::Pgd, WINDOW)));
    entry.is_present().then(|| entry.pfn())
}

impl Vmemmap {
    /// Maps what is next at `at`: a 2 MiB leaf or a page; how many bytes that was.
    fn map_next<M: Machine>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        (at, left): (VirtAddr, u64),
        ledger: &mut Ledger,
    ) -> Result<u64, LayoutError> {
        let place = Placement::Prefer(spec.node);
        let large = (at.is_aligned(PMD_SIZE) && left >= PMD_SIZE && m.page_size_may_change())
            .then(|| frames.alloc(m, Order::PMD, place))
            .flatten();
        let (block, level, order) = match large {
            Some(block) => (block, Level::Pmd, Order::PMD),
            None => {
                let frame = frames.alloc(m, Order::PAGE, place);
                (frame.ok_or(LayoutError::NoMemory)?, Level::Pte, Order::PAGE)
            }
        };
        let mut tables = 0;
        let mut alloc = || {
            let table = frames.alloc(m, Order::PAGE, place);
            tables += u64::from(table.is_some());
            table
        };
        // A slot that is not all mapped by a leaf has one table of level 1, made with its
        // first page; all others are above.
        let had = paging::walk(m, m.root(), at).level;
        let mapped = paging::map(m, m.root(), at, block, level, PteFlags::KERNEL, &mut alloc);
        let last_level = u64::from(level == Level::Pte && had > Level::Pte && tables > 0);
        // Without memory the path may end above the last level.
        let got_last = mapped.is_ok() && last_level == 1;
        ledger.pte_tables += u64::from(got_last);
        ledger.upper_tables += tables - u64::from(got_last);
        match mapped {
            Ok(()) => {
                if order > Order::PAGE {
                    frames.split(m, block, order);
                }
                ledger.frames += order.pages();
                Ok(order.bytes())
            }
            Err(error) => {
                frames.free(m, block, order);
                Err(match error {
                    MapError::NoMemory => LayoutError::NoMemory,
                    _ => LayoutError::Occupied,
                })
            }
        }
    }

    /// Frees the table of `level` and all that is behind it and owned: writable leaves.
    /// What is read-only belongs to others, or is mapped writable elsewhere.
    fn free_tables<M: Machine>(
        m: &M,
        frames: &impl FrameSource<M>,
        table: Pfn,
        level: Level,
        ledger: &mut Ledger,
    ) {
        for n in 0..mm::addr::ENTRIES {
            let entry = Pte::from_raw(m.read_phys(table.phys().offset(n * 8)));
            if !entry.is_present() {
                continue;
            }
            if !entry.is_leaf(level) {
                if let Some(down) = level.down() {
                    Self::free_tables(m, frames, entry.pfn(), down, ledger);
                }
            } else if entry.flags().contains(PteFlags::WRITABLE) {
                let pages = level.span() / PAGE_SIZE;
                frames.free_pages(m, entry.pfn(), pages);
                ledger.frames -= pages;
            }
        }
        frames.free(m, table, Order::PAGE);
        if level == Level::Pte {
            ledger.pte_tables -= 1;
        } else {
            ledger.upper_tables -= 1;
        }
    }
}

impl Model for Vmemmap {
    const MODEL: MemoryModel = MemoryModel::SparsememVmemmap;
    const GRAIN: Order = Order::PMD;

    fn populate<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        spec: &Spec,
        ledger: &mut Ledger,
    ) -> Result<Place, LayoutError> {
        if !spec.skew.is_multiple_of(PAGE_SIZE) {
            return Err(LayoutError::BadSkew(spec.skew));
        }
        let pages = pages_of::<S>(spec)?;
        if window_tables(m).is_some() {
            return Err(LayoutError::Occupied);
        }
        let place = Place {
            range: spec.range,
            origin: WINDOW.offset(spec.skew),
            sections: None,
        };
        let mut done = 0;
        while done < pages.bytes() {
            let next = (pages.start.offset(done), pages.bytes() - done);
            match Self::map_next(m, frames, spec, next, ledger) {
                Ok(bytes) => done += bytes,
                Err(error) => {
                    Self::release::<M, S>(m, frames, spec, &place, ledger);
                    return Err(error);
                }
            }
        }
        Ok(place)
    }

    /// Takes the top-level entry out, flushes, and then frees what no CPU can reach any
    /// more (INV-3).
    fn release<M: Machine, S: PageShape>(
        m: &M,
        frames: &impl FrameSource<M>,
        _: &Spec,
        _: &Place,
        ledger: &mut Ledger,
    ) {
        let Some(tables) = window_tables(m) else {
            return;
        };
        let top = paging::slot(m.root(), Level::Pgd, WINDOW);
        m.write_phys(top, Pte::NONE.raw());
        Flush::new(WINDOW.range(WINDOW_BYTES)).flush(m);
        ledger.flushes += 1;
        Self::free_tables(m, frames, tables, Level::Pud, ledger);
    }

    #[inline(always)]
    fn page<M: Machine, S: PageShape>(_: &M, place: &Place, pfn: Pfn) -> VirtAddr {
        place.origin.offset(pfn.as_u64() * S::SIZE)
    }

    #[inline(always)]
    fn pfn<M: Machine, S: PageShape>(_: &M, place: &Place, page: VirtAddr) -> Pfn {
        Pfn::new((page.as_u64() - place.origin.as_u64()) / S::SIZE)
    }

    #[inline(always)]
    fn load<M: Machine>(m: &M, at: VirtAddr) -> u64 {
        m.load64(at)
    }

    #[inline(always)]
    fn store<M: Machine>(m: &M, at: VirtAddr, value: u64) {
        m.store64(at, value);
    }

    fn phys<M: Machine>(m: &M, at: VirtAddr) -> Option<PhysAddr> {
        paging::translate(m, m.root(), at)
    }
}
