//! Changing page tables.

use super::entry::{Level, Pte, PteFlags};
use super::flush::Flush;
use super::walk::{Entry, slot};
use crate::addr::{ENTRIES, Pfn, PhysAddr, VirtAddr};
use crate::machine::Machine;

/// Why a mapping could not be changed. Nothing was changed, except that tables
/// on the path may have been added, empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No frame for a table.
    NoMemory,
    /// The address is mapped already, or lies under a larger leaf.
    AlreadyMapped(Entry),
    /// Nothing is mapped there at that size.
    NotMapped,
    /// Address or frame is not a multiple of the size.
    Misaligned,
    /// The machine has no leaf of that level.
    NoSuchLeaf,
}

/// Takes a frame from `alloc` and makes it a table with no entry present.
pub fn new_table<M: Machine>(m: &M, alloc: &mut dyn FnMut() -> Option<Pfn>) -> Option<Pfn> {
    let table = alloc()?;
    m.fill_words(table.phys(), 0, ENTRIES);
    Some(table)
}

/// Where the entry of `level` for `at` lies; tables on the way are made from
/// `alloc` as needed.
///
/// # Errors
/// [`MapError::NoMemory`], or [`MapError::AlreadyMapped`] if a larger leaf is in
/// the way.
pub fn table_entry<M: Machine>(
    m: &M,
    root: Pfn,
    at: VirtAddr,
    level: Level,
    alloc: &mut dyn FnMut() -> Option<Pfn>,
) -> Result<PhysAddr, MapError> {
    let mut table = root;
    let mut here = Level::Pgd;
    while here > level {
        let entry_at = slot(table, here, at);
        let mut pte = Pte::from_raw(m.read_phys(entry_at));
        if pte.is_leaf(here) {
            return Err(MapError::AlreadyMapped(Entry {
                at: entry_at,
                level: here,
                pte,
            }));
        }
        if !pte.is_present() {
            let new = new_table(m, alloc).ok_or(MapError::NoMemory)?;
            pte = Pte::new(new, PteFlags::TABLE);
            // Release: pairs with the walker's load, so the zeroes are seen first.
            m.write_phys(entry_at, pte.raw());
        }
        table = pte.pfn();
        here = here.down().expect("above `level`");
    }
    Ok(slot(table, level, at))
}

/// Maps the block at `pfn` by one leaf of `level` at `at`.
///
/// No flush is owed: x86 does not cache that something is not present.
///
/// # Errors
/// See [`MapError`].
pub fn map<M: Machine>(
    m: &M,
    root: Pfn,
    at: VirtAddr,
    pfn: Pfn,
    level: Level,
    flags: PteFlags,
    alloc: &mut dyn FnMut() -> Option<Pfn>,
) -> Result<(), MapError> {
    if level == Level::Pgd || (level == Level::Pud && !m.has_gbpages()) {
        return Err(MapError::NoSuchLeaf);
    }
    if !at.is_aligned(level.span()) || !pfn.phys().as_u64().is_multiple_of(level.span()) {
        return Err(MapError::Misaligned);
    }
    let entry_at = table_entry(m, root, at, level, alloc)?;
    let old = Pte::from_raw(m.read_phys(entry_at));
    if old.is_present() {
        return Err(MapError::AlreadyMapped(Entry {
            at: entry_at,
            level,
            pte: old,
        }));
    }
    let flags = if level == Level::Pte {
        flags
    } else {
        flags.union(PteFlags::LEAF)
    };
    m.write_phys(entry_at, Pte::new(pfn, flags).raw());
    Ok(())
}

/// Removes the leaf of `level` at `at`; what it was, and the flush that is owed
/// before its frame may be used for anything else.
///
/// # Errors
/// [`MapError::NotMapped`] if there is no leaf of that level.
pub fn unmap<M: Machine>(
    m: &M,
    root: Pfn,
    at: VirtAddr,
    level: Level,
) -> Result<(Pte, Flush), MapError> {
    let found = super::walk::walk(m, root, at);
    if !found.is_leaf() || found.level != level {
        return Err(MapError::NotMapped);
    }
    m.write_phys(found.at, Pte::NONE.raw());
    Ok((
        found.pte,
        Flush::new(at.align_down(level.span()).range(level.span())),
    ))
}

/// Replaces the 1 GiB or 2 MiB leaf `found` that maps `at` by `table`, filled
/// with 512 leaves of the next smaller size: same frames, same rights.
///
/// The caller owns `table` and keeps others from changing the entry meanwhile.
///
/// # Panics
/// If `found` is not a leaf of level 2 or 3.
#[doc(alias = "vmemmap_split_pmd")]
pub fn split<M: Machine>(m: &M, found: Entry, at: VirtAddr, table: Pfn) -> Flush {
    fill_split(m, found, table);
    // Release: the table's entries are seen before the table is.
    m.write_phys(found.at, Pte::new(table, PteFlags::TABLE).raw());
    Flush::new(at.align_down(found.level.span()).range(found.level.span()))
}

/// Fills `table` with what [`split`] puts in the place of `found`. Nobody else has seen it.
///
/// # Panics
/// As [`split`].
pub(crate) fn fill_split<M: Machine>(m: &M, found: Entry, table: Pfn) {
    assert!(found.is_leaf(), "split of an entry that is no leaf");
    let small = found.level.down().expect("split of a 4 KiB page");
    let step = small.span() / Level::Pte.span();
    let mut flags = found.pte.flags();
    flags.set(PteFlags::LEAF, small != Level::Pte);
    for n in 0..ENTRIES {
        let pte = Pte::new(found.pte.pfn().offset(n * step), flags);
        m.write_phys(table.phys().offset(n * 8), pte.raw());
    }
}
