//! Raw entries and words, as the audit reads them.

use super::super::layout::StructPage;
use super::super::map::MemdescMap;
use super::Audit;
use mm::addr::{Pfn, PhysAddr, VirtAddr};
use mm::machine::Machine;

pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
pub(super) const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Type numbers, once more.
pub(super) const FREE: u64 = 5;
pub(super) const POISON: u64 = 11;
pub(super) const EXCLUSIVE: u64 = 12;
pub(super) const RESERVED: u64 = 0x10;

/// The raw last-level entry for `at`, or 0.
pub(super) fn entry<M: Machine>(m: &M, at: VirtAddr) -> u64 {
    let mut table = m.root().phys();
    for shift in [39, 30, 21] {
        let raw = m.read_phys(table.offset((at.as_u64() >> shift & 511) * 8));
        if raw & PRESENT == 0 {
            return 0;
        }
        table = PhysAddr::new(raw & FRAME);
    }
    m.read_phys(table.offset((at.as_u64() >> 12 & 511) * 8))
}

impl<L: StructPage> MemdescMap<L> {
    pub(super) fn address(&self, pfn: u64) -> VirtAddr {
        self.page(Pfn::new(pfn)).address()
    }

    /// A word of the struct page of `pfn`, by physical address.
    pub(super) fn raw<M: Machine>(&self, m: &M, pfn: u64, offset: u64) -> u64 {
        let at = self.address(pfn).as_u64() + offset;
        let frame = entry(m, VirtAddr::new(at)) & FRAME;
        m.read_phys(PhysAddr::new(frame | at & 0xff8))
    }

    pub(super) fn word<M: Machine>(&self, m: &M, pfn: u64) -> u64 {
        self.raw(m, pfn, if L::SIZE == 8 { 0 } else { 8 })
    }

    /// Tables of the window: each once.
    pub(super) fn audit_tables<M: Machine>(&self, m: &M, audit: &mut Audit) {
        let start = self.address(self.range().start.as_u64()).as_u64();
        let end = self.address(self.range().end.as_u64()).as_u64();
        let mut last = [0; 3];
        for at in (start & !0x1f_ffff..end).step_by(1 << 21) {
            let mut table = m.root().phys();
            for (shift, last) in [39, 30, 21].into_iter().zip(&mut last) {
                let raw = m.read_phys(table.offset((at >> shift & 511) * 8));
                if raw & PRESENT == 0 {
                    break;
                }
                table = PhysAddr::new(raw & FRAME);
                audit.tables += u64::from(*last != table.as_u64());
                *last = table.as_u64();
            }
        }
    }
}
