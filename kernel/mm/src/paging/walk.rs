//! Looking things up in page tables, without changing them.

use super::entry::{Level, Pte};
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::machine::Machine;

/// An entry met on a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where the entry itself lies.
    pub at: PhysAddr,
    /// The level of the table it lies in.
    pub level: Level,
    /// What it held when read.
    pub pte: Pte,
}

impl Entry {
    /// Whether it maps memory.
    #[must_use]
    pub const fn is_leaf(&self) -> bool {
        self.pte.is_leaf(self.level)
    }
}

/// Where the entry for `at` lies in the table at `table`, of `level`.
#[inline]
#[must_use]
pub const fn slot(table: Pfn, level: Level, at: VirtAddr) -> PhysAddr {
    table.phys().offset(level.index(at) * 8)
}

/// The last entry on the path to `at`: a leaf, or the one that is not present.
///
/// The loads are acquires: they pair with the release store that published a
/// table, so a table is never seen before its entries. Interrupts are off meanwhile:
/// a table that falls out on another CPU is freed after a flush, and the flush waits
/// for this CPU (INV-3). Where the entry *lies* may be used longer only by whoever
/// keeps others from taking its table away.
#[doc(alias = "lookup_address_in_pgd")]
#[doc(alias = "gup_fast")]
pub fn walk<M: Machine>(m: &M, root: Pfn, at: VirtAddr) -> Entry {
    let irq = m.irq_save();
    let entry = descend(m, root, at);
    m.irq_restore(irq);
    entry
}

fn descend<M: Machine>(m: &M, root: Pfn, at: VirtAddr) -> Entry {
    let mut table = root;
    let mut level = Level::Pgd;
    loop {
        let entry_at = slot(table, level, at);
        let pte = Pte::from_raw(m.read_phys(entry_at));
        match level.down() {
            Some(down) if pte.is_present() && !pte.is_leaf(level) => {
                table = pte.pfn();
                level = down;
            }
            _ => {
                return Entry {
                    at: entry_at,
                    level,
                    pte,
                };
            }
        }
    }
}

/// The leaf that maps `at`, or `None` if nothing does.
pub fn leaf<M: Machine>(m: &M, root: Pfn, at: VirtAddr) -> Option<Entry> {
    Some(walk(m, root, at)).filter(Entry::is_leaf)
}

/// Whether anything is mapped at `at`, asked beside other CPUs that change tables there: a
/// table that falls out is freed after a flush that waits for us, as interrupts are off.
pub fn is_mapped<M: Machine>(m: &M, root: Pfn, at: VirtAddr) -> bool {
    let irq = m.irq_save();
    let mapped = leaf(m, root, at).is_some();
    m.irq_restore(irq);
    mapped
}

/// The physical address that `at` maps to, or `None` if nothing does.
pub fn translate<M: Machine>(m: &M, root: Pfn, at: VirtAddr) -> Option<PhysAddr> {
    let leaf = leaf(m, root, at)?;
    Some(
        leaf.pte
            .pfn()
            .phys()
            .offset(at.as_u64() % leaf.level.span()),
    )
}
