//! The table walk that hardware does on a miss (Intel SDM volume 3, 4.5).

use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Pfn, PhysAddr, VirtAddr};
use mm::machine::Fault;

use crate::memory::Memory;
use crate::tlb::{CachedTable, Tlb, Translation};
use crate::violation::{Access, Violation};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51..12, from which a CPU with fewer physical bits subtracts.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Error code of a page fault: the page was present.
const CODE_PRESENT: u64 = 1 << 0;
/// Error code of a page fault: it was a write.
const CODE_WRITE: u64 = 1 << 1;

/// Why an access has no translation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// #PF that a kernel may expect.
    Fault(Fault),
    /// What no kernel may ever cause.
    Violation(Violation),
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// What a walk needs to know of the CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walker<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) root: Pfn,
    pub(crate) phys_bits: u32,
    pub(crate) gbpages: bool,
    /// Two sizes for one address are a machine check.
    pub(crate) multi_hit: bool,
    /// CR0.WP: supervisor writes respect read-only pages.
    pub(crate) write_protect: bool,
}

impl Walker<'_> {
    /// The translation of `at` for a read or a write: from `tlb` if it has one,
    /// else from the tables. Sets accessed and dirty bits as hardware does.
    pub(crate) fn translate(
        &self,
        tlb: &mut Tlb,
        at: VirtAddr,
        write: bool,
    ) -> Result<Translation, Trouble> {
        if let Some(cached) = tlb.lookup(at) {
            self.check_size(cached, at)?;
            if write && self.forbids_write(cached) {
                // A fault drops what was cached for its address (SDM 4.10.4.1).
                tlb.flush_page(at);
                return Err(fault(at, CODE_PRESENT | CODE_WRITE));
            }
            if !write || cached.dirty {
                return Ok(cached);
            }
            // The dirty bit must be set in memory first, so the tables are walked.
            tlb.forget(at);
        }
        let (translation, leaf) = self.walk(tlb, at, write)?;
        if write && self.forbids_write(translation) {
            return Err(fault(at, CODE_PRESENT | CODE_WRITE));
        }
        let dirty = if write { DIRTY } else { 0 };
        let before = leaf.fetch_or(ACCESSED | dirty, Ordering::AcqRel);
        let translation = Translation {
            dirty: (before | dirty) & DIRTY != 0,
            ..translation
        };
        tlb.insert(at, translation);
        Ok(translation)
    }

    /// Catches an address that the tables map by a page of another size than is cached: the
    /// processor may load that translation, too, at any time before the flush.
    fn check_size(&self, cached: Translation, at: VirtAddr) -> Result<(), Trouble> {
        if !self.multi_hit {
            return Ok(());
        }
        match self.walk(&mut Tlb::default(), at, false) {
            Ok((mapped, _)) if mapped.size != cached.size => Err(Violation::MultiHit {
                at,
                cached: cached.bytes(),
                mapped: mapped.bytes(),
            }
            .into()),
            Ok(_) | Err(Trouble::Fault(_)) => Ok(()),
            Err(caught) => Err(caught),
        }
    }

    fn forbids_write(&self, translation: Translation) -> bool {
        !translation.writable && self.write_protect
    }

    fn walk(
        &self,
        tlb: &mut Tlb,
        at: VirtAddr,
        write: bool,
    ) -> Result<(Translation, &AtomicU64), Trouble> {
        let root = CachedTable {
            table: self.root,
            writable: true,
            no_execute: false,
        };
        let (mut level, mut table) = tlb.table(at).unwrap_or((4, root));
        loop {
            let entry_at = table
                .table
                .phys()
                .offset((at.as_u64() >> shift(level)) % 512 * 8);
            let entry = self.memory.word(entry_at, Access::Walk(at))?;
            let raw = entry.load(Ordering::Acquire);
            if raw & PRESENT == 0 {
                return Err(fault(at, if write { CODE_WRITE } else { 0 }));
            }
            let is_leaf = level == 1 || (raw & PAGE_SIZE_BIT != 0 && level < 4);
            let bits = raw & self.reserved(level, is_leaf);
            if bits != 0 {
                return Err(Violation::ReservedBits {
                    entry: entry_at,
                    level,
                    raw,
                    bits,
                }
                .into());
            }
            let writable = table.writable && raw & WRITABLE != 0;
            let no_execute = table.no_execute || raw & NO_EXECUTE != 0;
            if is_leaf {
                let block = raw & ADDRESS & !((1 << shift(level)) - 1);
                let translation = Translation {
                    block: PhysAddr::new(block),
                    size: usize::from(level) - 1,
                    writable,
                    no_execute,
                    global: raw & GLOBAL != 0,
                    dirty: false,
                };
                return Ok((translation, entry));
            }
            entry.fetch_or(ACCESSED, Ordering::AcqRel);
            level -= 1;
            table = CachedTable {
                table: PhysAddr::new(raw & ADDRESS).pfn(),
                writable,
                no_execute,
            };
            tlb.insert_table(at, level, table);
        }
    }

    /// The bits that must be zero in an entry of `level`.
    fn reserved(&self, level: u8, is_leaf: bool) -> u64 {
        let mut bits = ADDRESS & !((1u64 << self.phys_bits) - 1);
        if level == 4 || (level == 3 && !self.gbpages) {
            bits |= PAGE_SIZE_BIT;
        }
        if is_leaf && level > 1 {
            // Bit 12 is the PAT bit; from there to the block's size is reserved.
            bits |= ((1 << shift(level)) - 1) & !((1 << 13) - 1);
        }
        bits
    }
}

/// log2 of what an entry of `level` covers.
fn shift(level: u8) -> u32 {
    12 + 9 * (u32::from(level) - 1)
}

fn fault(at: VirtAddr, code: u64) -> Trouble {
    Trouble::Fault(Fault { at, code })
}
