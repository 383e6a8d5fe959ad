//! Walkers: over an address space, and over frame numbers. They meet every kind.

use super::alloc::Pages;
use super::kind::PageKind;
use super::space::{AddressSpace, Leaf};
use mm::addr::{PAGE_SIZE, PfnRange, VirtRange};
use mm::machine::Machine;
use mm::page::Page;
use mm::paging::{self, Pte, PteFlags};

/// Pages by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindCounts([u64; PageKind::ALL.len()]);

impl KindCounts {
    /// Pages of `kind`.
    #[must_use]
    pub const fn of(&self, kind: PageKind) -> u64 {
        self.0[kind as usize]
    }

    /// Pages of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    const fn add(&mut self, kind: PageKind, pages: u64) {
        self.0[kind as usize] += pages;
    }
}

/// What a range of an address space has, in pages of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[doc(alias = "struct mem_size_stats")]
pub struct Smaps {
    /// By kind. Together they are the resident set.
    pub kinds: KindCounts,
    /// Of them, mapped here only, as far as it is counted.
    #[doc(alias = "Private_Dirty")]
    pub private: u64,
    /// Of them, mapped elsewhere too, or twice here.
    #[doc(alias = "Shared_Dirty")]
    pub shared: u64,
    /// Of them, those of which nobody counts where they are mapped.
    pub uncounted: u64,
    /// Mapped, but no pages to the memory manager; not resident.
    pub special: u64,
}

impl<M: Machine> AddressSpace<'_, M> {
    /// Counts what is mapped in `range`, as `/proc/PID/smaps` does. An entry that is
    /// partly in the range counts whole.
    #[must_use]
    pub fn smaps(&self, range: VirtRange) -> Smaps {
        let mut sums = Smaps::default();
        for leaf in self.leaves(range) {
            let pages = leaf.level.span() / PAGE_SIZE;
            let Some(page) = self.normal_page(&leaf, leaf.at) else {
                sums.special += pages;
                continue;
            };
            sums.kinds.add(self.pages.kind(page), pages);
            match self.pages.mappings_of(page) {
                None => sums.uncounted += pages,
                Some(0 | 1) => sums.private += pages,
                Some(_) => sums.shared += pages,
            }
        }
        sums
    }

    /// Entries of `range` that map the folio of `page` and were used since they were last
    /// asked; they count as not used now. Stops when all mappings that the folio counts
    /// are found; what is of no folio is not looked for.
    pub fn folio_referenced(&mut self, page: Page, range: VirtRange) -> u64 {
        let Some(folio) = self.pages.page_folio(page) else {
            return 0;
        };
        let Some(mut left) = self.pages.folio_mapcount(folio) else {
            return 0;
        };
        let (mut used, mut rest) = (0, range);
        while left > 0 {
            let Some(leaf) = self.next_leaf(rest) else {
                break;
            };
            rest.start = leaf.end();
            let mapped = self.normal_page(&leaf, leaf.at);
            if mapped.and_then(|page| self.pages.page_folio(page)) == Some(folio) {
                left -= 1;
                used += u64::from(self.test_and_clear_young(leaf));
            }
        }
        used
    }

    /// Whether the entry was used, and not any more. The processor does not walk these
    /// tables, so a plain store loses nothing.
    #[doc(alias = "ptep_test_and_clear_young")]
    fn test_and_clear_young(&mut self, leaf: Leaf) -> bool {
        let m = self.pages.m;
        let flags = leaf.pte.flags();
        if !flags.contains(PteFlags::ACCESSED) {
            return false;
        }
        let old = Pte::new(leaf.pte.pfn(), flags.difference(PteFlags::ACCESSED));
        let found = paging::walk(m, self.root(), leaf.at);
        m.write_phys(found.at, old.raw());
        true
    }
}

impl<M: Machine> Pages<'_, M> {
    /// Counts the frames of `range` by what they belong to, as far as they have struct
    /// pages: a walker over frame numbers, which needs no reference.
    #[doc(alias = "kpageflags")]
    pub fn count_kinds(&self, range: PfnRange) -> KindCounts {
        let m = self.m;
        let mut counts = KindCounts::default();
        for pfn in range.iter() {
            let page = self.memmap().page(pfn);
            if paging::leaf(m, m.root(), page.address()).is_some() {
                counts.add(self.kind(page), 1);
            }
        }
        counts
    }
}
