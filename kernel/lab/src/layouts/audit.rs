//! The ledger, counted again: a walk of the window's tables, with code of its own.

use core::fmt;

use super::map::Map;
use super::model::{Model, WINDOW, window_tables};
use mm::addr::{Order, Pfn, VirtAddr};
use mm::machine::Machine;
use mm::page::encoding::{Encoding, MemoryModel, PageShape, Sharing};

// Bits of an entry, from the manual.
const P: u64 = 0x001;
const W: u64 = 0x002;
const U: u64 = 0x004;
const D: u64 = 0x040;
const PS: u64 = 0x080;
const XD: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// A page or 2 MiB of struct pages, as the tables have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First address.
    pub at: VirtAddr,
    /// First frame.
    pub frame: Pfn,
    /// Frames.
    pub pages: u64,
    /// Whether it can be written.
    pub writable: bool,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A leaf with rights that no struct page has.
    Rights(VirtAddr, u64),
    /// A read-only leaf whose frame is not the one that is shared there.
    Stranger(VirtAddr, Pfn),
    /// A number in the ledger, and what the walk found.
    Count(&'static str, u64, u64),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rights(at, entry) => write!(f, "entry {entry:#x} for {at:?}"),
            Self::Stranger(at, frame) => {
                write!(
                    f,
                    "{at:?} is read-only and leads to {frame:?}, which is not shared there"
                )
            }
            Self::Count(what, ledger, found) => {
                write!(f, "{what}: {ledger} in the ledger, {found} in the tables")
            }
        }
    }
}

/// Counted on the walk.
#[derive(Default)]
struct Counts {
    frames: u64,
    pte_tables: u64,
    upper_tables: u64,
    /// Read-only leaves by order of the tail they lead to; those of a folio's own first
    /// frame at order 0.
    shared: [u64; Order::COUNT],
}

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// Compares tables and ledger; `visit` gets every leaf, by ascending address. Nothing
    /// is being folded or unfolded.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn audit<M: Machine>(&self, m: &M, visit: &mut dyn FnMut(Leaf)) -> Result<(), Finding> {
        let mut counts = Counts::default();
        if Mo::MODEL != MemoryModel::SparsememVmemmap {
            // Nothing is mapped: what was taken is what the ledger says.
            counts.frames = self.ledger.frames;
        } else if let Some(tables) = window_tables(m) {
            // The frame of the last writable page: the folio's first, when pages behind
            // it are read-only.
            let mut last = None;
            let base = WINDOW.as_u64();
            self.table(m, tables, 3, base, &mut last, &mut counts, visit)?;
        }
        self.compare(&counts)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the state of a recursive descent"
    )]
    fn table<M: Machine>(
        &self,
        m: &M,
        table: Pfn,
        level: u32,
        base: u64,
        last: &mut Option<Pfn>,
        counts: &mut Counts,
        visit: &mut dyn FnMut(Leaf),
    ) -> Result<(), Finding> {
        if level == 1 {
            counts.pte_tables += 1;
        } else {
            counts.upper_tables += 1;
        }
        let shift = 12 + 9 * (level - 1);
        for n in 0..512 {
            let entry = m.read_phys(table.phys().offset(n * 8));
            if entry & P == 0 {
                continue;
            }
            let at = VirtAddr::new(base + (n << shift));
            let frame = Pfn::new((entry & FRAME) >> 12);
            if level > 1 && entry & PS == 0 {
                self.table(m, frame, level - 1, at.as_u64(), last, counts, visit)?;
                continue;
            }
            let writable = entry & W != 0;
            // Read-only and dirty at once: somebody wrote before, or around.
            if entry & U != 0 || entry & XD == 0 || (!writable && (entry & D != 0 || level > 1)) {
                return Err(Finding::Rights(at, entry));
            }
            let pages = 1 << (shift - 12);
            if writable {
                counts.frames += pages;
                *last = (level == 1).then_some(frame);
            } else {
                counts.shared[self.whose(at, frame, *last)?] += 1;
            }
            visit(Leaf {
                at,
                frame,
                pages,
                writable,
            });
        }
        Ok(())
    }

    /// Which shared tail a read-only leaf leads to, as an index of [`Counts::shared`].
    fn whose(&self, at: VirtAddr, frame: Pfn, last: Option<Pfn>) -> Result<usize, Finding> {
        let found = match self.support.hvo {
            Ok(Sharing::AcrossNode) => self.tails.iter().position(|tail| *tail == Some(frame)),
            Ok(Sharing::WithinFolio) => (last == Some(frame)).then_some(0),
            _ => None,
        };
        found.ok_or(Finding::Stranger(at, frame))
    }

    fn compare(&self, counts: &Counts) -> Result<(), Finding> {
        let ledger = &self.ledger;
        let same = |what, ledger, found| {
            if ledger == found {
                Ok(())
            } else {
                Err(Finding::Count(what, ledger, found))
            }
        };
        same("frames of memmap", ledger.frames, counts.frames)?;
        same("tables of level 1", ledger.pte_tables, counts.pte_tables)?;
        same("tables above", ledger.upper_tables, counts.upper_tables)?;
        let mut saved = 0;
        let mut shared = counts.shared;
        for order in Order::range_inclusive(Order::PAGE, Order::MAX) {
            let folios = ledger.folded[order.index()];
            // Without a folio there may be no frame to take one from.
            let entries = folios * Self::memmap_frames(order).saturating_sub(1);
            saved += entries;
            if self.support.hvo == Ok(Sharing::AcrossNode) {
                same("entries for a shared tail", entries, shared[order.index()])?;
                shared[order.index()] = 0;
            }
        }
        same("frames saved", ledger.saved, saved)?;
        if self.support.hvo == Ok(Sharing::WithinFolio) {
            same("entries for folios' first frames", saved, shared[0])?;
        }
        let tails = self.tails.iter().flatten().count() as u64;
        same("shared tails", ledger.tails, tails)
    }
}
