//! One CPU's translation cache.

use mm::addr::{Pfn, PhysAddr, VirtAddr};
use rustc_hash::FxHashMap;

/// log2 of the sizes a leaf can have, smallest first.
const SIZES: [u32; 3] = [12, 21, 30];
/// log2 of what a table of level 1 and of level 2 covers.
const TABLE_SPANS: [u32; 2] = [21, 30];

/// A cached leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// First byte of the block that is mapped.
    pub(crate) block: PhysAddr,
    /// Which of the three sizes: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
    pub(crate) size: usize,
    /// Every level allowed writes.
    pub(crate) writable: bool,
    /// Some level forbade execution.
    pub(crate) no_execute: bool,
    /// Survives a load of CR3.
    pub(crate) global: bool,
    /// The leaf's dirty bit is known to be set.
    pub(crate) dirty: bool,
}

impl Translation {
    /// Bytes of the page that it is for.
    pub(crate) fn bytes(&self) -> u64 {
        1 << SIZES[self.size]
    }

    /// Where `at`, which it covers, lies.
    pub(crate) fn physical(&self, at: VirtAddr) -> PhysAddr {
        self.block
            .offset(at.as_u64() & ((1 << SIZES[self.size]) - 1))
    }
}

/// A cached pointer to a table: the paging-structure caches of SDM 4.10.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CachedTable {
    pub(crate) table: Pfn,
    /// Every level above allowed writes.
    pub(crate) writable: bool,
    /// Some level above forbade execution.
    pub(crate) no_execute: bool,
}

/// Translations, until flushed. Unlike hardware it never runs out of room.
#[derive(Debug, Default)]
pub(crate) struct Tlb {
    leaves: [FxHashMap<u64, Translation>; SIZES.len()],
    tables: [FxHashMap<u64, CachedTable>; TABLE_SPANS.len()],
}

impl Tlb {
    /// The cached translation of `at`. Where a small and a large one both cover
    /// it, the small one, which is the older: one is cached only on a miss.
    pub(crate) fn lookup(&self, at: VirtAddr) -> Option<Translation> {
        SIZES
            .iter()
            .zip(&self.leaves)
            .find_map(|(shift, leaves)| leaves.get(&(at.as_u64() >> shift)).copied())
    }

    pub(crate) fn insert(&mut self, at: VirtAddr, translation: Translation) {
        self.leaves[translation.size].insert(at.as_u64() >> SIZES[translation.size], translation);
    }

    /// Forgets whatever covers `at`, of every size.
    pub(crate) fn forget(&mut self, at: VirtAddr) {
        for (shift, leaves) in SIZES.iter().zip(&mut self.leaves) {
            leaves.remove(&(at.as_u64() >> shift));
        }
    }

    /// The lowest table on the path to `at` that is cached, and its level.
    pub(crate) fn table(&self, at: VirtAddr) -> Option<(u8, CachedTable)> {
        (1u8..)
            .zip(TABLE_SPANS.iter().zip(&self.tables))
            .find_map(|(level, (shift, tables))| {
                Some((level, *tables.get(&(at.as_u64() >> shift))?))
            })
    }

    /// Remembers the table of `level` on the path to `at`; the root's tables of
    /// level 3 are not remembered.
    pub(crate) fn insert_table(&mut self, at: VirtAddr, level: u8, table: CachedTable) {
        let index = usize::from(level) - 1;
        if let Some(shift) = TABLE_SPANS.get(index) {
            self.tables[index].insert(at.as_u64() >> shift, table);
        }
    }

    /// Address of a page or block whose cached translation reaches one of `pages`
    /// frames from `first` on.
    pub(crate) fn reaching(&self, first: Pfn, pages: u64) -> Option<u64> {
        let freed = first.phys().as_u64()..first.offset(pages).phys().as_u64();
        SIZES.iter().zip(&self.leaves).find_map(|(shift, leaves)| {
            let size = 1 << shift;
            leaves
                .iter()
                .find(|(_, leaf)| {
                    let block = leaf.block.as_u64();
                    block < freed.end && freed.start < block + size
                })
                .map(|(page, _)| page << shift)
        })
    }

    /// Whether a cached table is one of `pages` frames from `first` on.
    pub(crate) fn walks_through(&self, first: Pfn, pages: u64) -> bool {
        let freed = first..first.offset(pages);
        self.tables
            .iter()
            .flat_map(FxHashMap::values)
            .any(|entry| freed.contains(&entry.table))
    }

    /// `invlpg`: drops the page, whatever its size, and every cached table.
    pub(crate) fn flush_page(&mut self, at: VirtAddr) {
        self.forget(at);
        self.flush_tables();
    }

    /// Drops everything, global or not.
    pub(crate) fn flush_all(&mut self) {
        self.leaves.iter_mut().for_each(FxHashMap::clear);
        self.flush_tables();
    }

    /// What a load of CR3 drops: all but global leaves.
    pub(crate) fn flush_non_global(&mut self) {
        for leaves in &mut self.leaves {
            leaves.retain(|_, leaf| leaf.global);
        }
        self.flush_tables();
    }

    fn flush_tables(&mut self) {
        self.tables.iter_mut().for_each(FxHashMap::clear);
    }
}
