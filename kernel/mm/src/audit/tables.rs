//! The walk over all tables: who they belong to, and W^X.

use super::layout::{ENTRIES, Entry, RECORD_BYTES, SECTION_PAGES, SLOT_BYTES, span};
use super::{At, Audit, Check};
use crate::addr::{Pfn, PfnRange, VirtAddr};
use crate::machine::Machine;
use crate::vmemmap::RamRange;

/// Bytes of address space set aside for the vmemmap.
const WINDOW: u64 = 1 << 40;

/// What the levels above allow.
#[derive(Clone, Copy)]
struct Rights {
    write: bool,
    execute: bool,
    user: bool,
}

impl Rights {
    const ALL: Self = Self {
        write: true,
        execute: true,
        user: true,
    };

    const fn and(self, entry: Entry) -> Self {
        Self {
            write: self.write && entry.writable(),
            execute: self.execute && entry.executable(),
            user: self.user && entry.user(),
        }
    }
}

struct Tables<'w, 'a, M, R> {
    audit: &'w mut Audit<'a, M>,
    base: VirtAddr,
    ram: R,
}

/// Walks every table from the root on.
pub(super) fn walk<M: Machine, R: Iterator<Item = RamRange> + Clone>(
    audit: &mut Audit<'_, M>,
    base: VirtAddr,
    ram: R,
) {
    let root = audit.reader.root();
    let mut tables = Tables { audit, base, ram };
    tables.table(root, 4, 0, Rights::ALL);
}

impl<M: Machine, R: Iterator<Item = RamRange> + Clone> Tables<'_, '_, M, R> {
    /// The table of `level` at `table`, which covers addresses from `start` on.
    fn table(&mut self, table: Pfn, level: u8, start: u64, above: Rights) {
        self.audit.report.page_tables += 1;
        if !self.audit.claim(table, At::Virt(canonical(start))) {
            // No table of ours, or one that has been walked: not followed.
            return;
        }
        for index in 0..ENTRIES {
            let entry = self.audit.reader.entry(table, index);
            if !entry.present() {
                continue;
            }
            let at = start + index * span(level);
            if level == 2 {
                self.check_slot(canonical(at));
            }
            let rights = above.and(entry);
            if !entry.maps(level) {
                if level == 2 && self.audit.rows.count_table(entry.frame()) {
                    // Looked at once for all; anywhere but here it has a second owner.
                    continue;
                }
                self.table(entry.frame(), level - 1, at, rights);
                continue;
            }
            let found = At::Virt(canonical(at));
            if rights.write && rights.execute {
                self.audit
                    .report
                    .find(Check::WritableExecutable, found, 0, entry.0);
            }
            if rights.user {
                self.audit.report.find(Check::UserAccess, found, 0, entry.0);
            }
        }
    }

    /// A present level-2 entry for `at`: in the vmemmap it must belong to RAM.
    fn check_slot(&mut self, at: VirtAddr) {
        let offset = at.as_u64().wrapping_sub(self.base.as_u64());
        if offset >= WINDOW {
            return;
        }
        // The sections whose struct pages lie here: one, or two.
        let slot = offset / SLOT_BYTES * SLOT_BYTES;
        let first = slot / RECORD_BYTES / SECTION_PAGES;
        let end = (slot + SLOT_BYTES).div_ceil(RECORD_BYTES);
        let end = end.div_ceil(SECTION_PAGES);
        let section = PfnRange::new(
            Pfn::new(first * SECTION_PAGES),
            Pfn::new(end * SECTION_PAGES),
        );
        let has_ram = self
            .ram
            .clone()
            .any(|ram| !ram.range.intersect(section).is_empty());
        if !has_ram {
            self.audit
                .report
                .find(Check::MemmapOfHole, At::Virt(at), 0, 1);
        }
    }
}

/// The address with bits 63 to 48 as bit 47.
fn canonical(at: u64) -> VirtAddr {
    let high = if at & (1 << 47) == 0 { 0 } else { 0xffff << 48 };
    VirtAddr::new(at | high)
}
