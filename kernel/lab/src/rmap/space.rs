//! An address space: four levels of tables of its own, for the lower half.
//!
//! The tables are in no CPU's CR3: they are built, and walked, by software. So no
//! translation of them is ever cached and no flush is owed, and the user bit, which
//! nothing in this kernel has (INV-7), is left out. An address space is changed by one
//! owner at a time (`&mut`); pages are shared between them, by atomic counts.

use super::alloc::Pages;
use super::counts::Maps;
use super::error::VmError;
use super::kind::PageKind;
use mm::addr::{ENTRIES, Order, PAGE_SIZE, Pfn, VirtAddr, VirtRange};
use mm::machine::Machine;
use mm::page::{self, Page};
use mm::paging::{self, Level, MapError, Pte, PteFlags};
use mm::vmemmap;

/// First address behind those of user mode.
#[doc(alias = "TASK_SIZE_MAX")]
pub const USER_END: VirtAddr = VirtAddr::new(0x7fff_ffff_f000);

/// What is mapped has no struct page to count or reference: a bit of the entry that the
/// processor ignores.
#[doc(alias = "_PAGE_SPECIAL")]
pub(super) const SPECIAL: PteFlags = PteFlags::from_bits_retain(1 << 9);

const USER: PteFlags = PteFlags::PRESENT
    .union(PteFlags::WRITABLE)
    .union(PteFlags::ACCESSED)
    .union(PteFlags::DIRTY)
    .union(PteFlags::NO_EXECUTE);

const IN_NO_CR3: &str = "the tables are in no CPU's CR3";

/// An entry that maps memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First address that it maps.
    pub at: VirtAddr,
    /// The level it is at.
    pub level: Level,
    /// The entry.
    pub pte: Pte,
}

impl Leaf {
    /// Whether it maps frames that are no pages to the memory manager.
    #[must_use]
    #[doc(alias = "pte_special")]
    pub const fn is_special(&self) -> bool {
        self.pte.flags().contains(SPECIAL)
    }

    /// First address behind it.
    #[must_use]
    pub const fn end(&self) -> VirtAddr {
        self.at.offset(self.level.span())
    }
}

/// An address space. Dropping it unmaps everything and frees its tables.
#[derive(Debug)]
#[doc(alias = "mm_struct")]
pub struct AddressSpace<'a, M: Machine> {
    pub(super) pages: &'a Pages<'a, M>,
    root: Pfn,
    tables: u64,
}

impl<'a, M: Machine> AddressSpace<'a, M> {
    /// An empty one for pages of `pages`.
    ///
    /// # Errors
    /// [`VmError::NoMemory`].
    #[doc(alias = "mm_alloc")]
    pub fn new(pages: &'a Pages<'a, M>) -> Result<Self, VmError> {
        let mut alloc = || pages.table_alloc();
        let root = paging::new_table(pages.m, &mut alloc).ok_or(VmError::NoMemory)?;
        Ok(Self {
            pages,
            root,
            tables: 1,
        })
    }

    /// Frame of the top table.
    #[must_use]
    #[doc(alias = "mm->pgd")]
    pub const fn root(&self) -> Pfn {
        self.root
    }

    /// Page tables that it has, the top one included.
    #[must_use]
    #[doc(alias = "mm_pgtables_bytes")]
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// Maps pages `first..first + nr` of the folio with head `head` from `at` on, each by
    /// a 4 KiB entry, and takes a reference for each.
    ///
    /// # Errors
    /// [`VmError`]: all pages are mapped or none is.
    #[doc(alias = "set_pte_range")]
    pub fn map_folio_pages(
        &mut self,
        at: VirtAddr,
        head: Page,
        first: u64,
        nr: u64,
    ) -> Result<(), VmError> {
        let (kind, order) = self.checked_folio(head)?;
        if kind == PageKind::Hugetlb {
            return Err(VmError::WrongKind(head, kind));
        }
        if first.checked_add(nr).is_none_or(|end| end > order.pages()) {
            return Err(VmError::OutOfFolio(head, first, nr));
        }
        self.map_pages(at, (0..nr).map(|n| head.nth(first + n)))
    }

    /// Maps the whole folio with head `head` at `at` by one entry, and takes a reference:
    /// any folio of 2 MiB, and a hugetlb folio of 1 GiB.
    ///
    /// # Errors
    /// [`VmError`].
    #[doc(alias = "do_set_pmd")]
    #[doc(alias = "hugetlb_fault")]
    pub fn map_folio(&mut self, at: VirtAddr, head: Page) -> Result<(), VmError> {
        let (kind, order) = self.checked_folio(head)?;
        let level = match (order, kind) {
            (Order::PMD, PageKind::Folio | PageKind::Hugetlb) => Level::Pmd,
            (Order::PUD, PageKind::Hugetlb) => Level::Pud,
            _ => return Err(VmError::NoEntryOfSize(head, order)),
        };
        self.install(at, Maps::Folio(head), level)
    }

    /// The kind and order of the folio with head `head`.
    fn checked_folio(&self, head: Page) -> Result<(PageKind, Order), VmError> {
        let (m, kind) = (self.pages.m, self.pages.kind(head));
        if !matches!(kind, PageKind::Folio | PageKind::Hugetlb) {
            return Err(VmError::WrongKind(head, kind));
        }
        if head.is_tail(m) {
            return Err(VmError::NotAHead(head));
        }
        Ok((kind, page::folio_order(m, head)))
    }

    /// Maps `pages` from `at` on by 4 KiB entries: all or none.
    pub(super) fn map_pages(
        &mut self,
        at: VirtAddr,
        pages: impl Iterator<Item = Page>,
    ) -> Result<(), VmError> {
        let mut next = at;
        for page in pages {
            if let Err(error) = self.install(next, Maps::Page(page), Level::Pte) {
                if next > at {
                    // What was mapped just now can be unmapped; the caller's references
                    // keep the pages.
                    let mapped = VirtRange {
                        start: at,
                        end: next,
                    };
                    self.munmap(mapped)?;
                }
                return Err(error);
            }
            next = next.offset(PAGE_SIZE);
        }
        Ok(())
    }

    fn install(&mut self, at: VirtAddr, maps: Maps, level: Level) -> Result<(), VmError> {
        let page = match maps {
            Maps::Page(page) | Maps::Folio(page) => page,
        };
        let m = self.pages.m;
        if matches!(maps, Maps::Page(_)) {
            let head = page.compound_head(m);
            if vmemmap::is_optimized(m, head) {
                return Err(VmError::Folded(head));
            }
        }
        let head = self.pages.get_page(page)?;
        let pfn = self.pages.memmap().pfn(page);
        if let Err(error) = self.set_entry(at, pfn, level, USER) {
            // Not the last: the caller has one.
            self.pages.drop_refs(head, 1)?;
            return Err(error);
        }
        self.pages.add_rmap(maps);
        Ok(())
    }

    /// Stores a leaf; tables that were added for nothing go again.
    pub(super) fn set_entry(
        &mut self,
        at: VirtAddr,
        pfn: Pfn,
        level: Level,
        flags: PteFlags,
    ) -> Result<(), VmError> {
        check_user(at.range(level.span()))?;
        let Self {
            pages,
            root,
            tables,
        } = self;
        let mut alloc = || {
            let table = pages.table_alloc()?;
            *tables += 1;
            Some(table)
        };
        let result = paging::map(pages.m, *root, at, pfn, level, flags, &mut alloc);
        result.map_err(|error| {
            self.prune(at);
            match error {
                MapError::NoMemory => VmError::NoMemory,
                MapError::AlreadyMapped(_) => VmError::Occupied(at),
                MapError::NotMapped => VmError::NotMapped(at),
                MapError::Misaligned => VmError::Misaligned(at, level.span()),
                MapError::NoSuchLeaf => {
                    let page = pages_page(self.pages, pfn);
                    VmError::NoEntryOfSize(page, page::folio_order(self.pages.m, page))
                }
            }
        })
    }

    /// The first entry that maps something of `range`.
    #[must_use]
    pub fn next_leaf(&self, range: VirtRange) -> Option<Leaf> {
        let mut at = range.start;
        while range.contains(at) {
            let entry = paging::walk(self.pages.m, self.root, at);
            let start = at.align_down(entry.level.span());
            if entry.is_leaf() {
                let (level, pte) = (entry.level, entry.pte);
                return Some(Leaf {
                    at: start,
                    level,
                    pte,
                });
            }
            at = start.offset(entry.level.span());
        }
        None
    }

    /// Every entry that maps something of `range`, lowest first.
    pub fn leaves(&self, range: VirtRange) -> impl Iterator<Item = Leaf> + '_ {
        let mut left = range;
        core::iter::from_fn(move || {
            let leaf = self.next_leaf(left)?;
            left.start = leaf.end();
            Some(leaf)
        })
    }

    /// Unmaps `range`, uncounts and drops the references, and frees tables that are
    /// empty then. How many entries there were.
    ///
    /// # Errors
    /// [`VmError::NotUser`], [`VmError::Misaligned`], [`VmError::CutsEntry`] with nothing
    /// unmapped; [`VmError::Bad`] with all of it unmapped.
    #[doc(alias = "zap_page_range_single")]
    #[doc(alias = "free_pgtables")]
    pub fn munmap(&mut self, range: VirtRange) -> Result<u64, VmError> {
        for edge in [range.start, range.end] {
            if !edge.is_aligned(PAGE_SIZE) {
                return Err(VmError::Misaligned(edge, PAGE_SIZE));
            }
        }
        check_user(range)?;
        let cut = self
            .leaves(range)
            .find(|leaf| leaf.at < range.start || leaf.end() > range.end);
        if let Some(leaf) = cut {
            return Err(VmError::CutsEntry(leaf.at));
        }
        self.zap_range(range)
    }

    fn zap_range(&mut self, range: VirtRange) -> Result<u64, VmError> {
        let table = |at: VirtAddr| at.align_down(Level::Pmd.span());
        let mut outcome = Ok(0);
        let mut next = self.next_leaf(range);
        while let Some(leaf) = next {
            outcome = match (outcome, self.zap(leaf)) {
                (Ok(n), Ok(())) => Ok(n + 1),
                (Err(first), _) | (Ok(_), Err(first)) => Err(first),
            };
            next = self.next_leaf(VirtRange {
                start: leaf.end(),
                end: range.end,
            });
            // One look at a table, after the last of its entries that goes.
            if next.is_none_or(|next| table(next.at) != table(leaf.at)) {
                self.prune(leaf.at);
            }
        }
        outcome
    }

    fn zap(&mut self, leaf: Leaf) -> Result<(), VmError> {
        let Leaf { at, level, pte } = leaf;
        let (_, flush) = paging::unmap(self.pages.m, self.root, at, level)
            .map_err(|_| VmError::NotMapped(at))?;
        flush.ignore(IN_NO_CR3);
        if leaf.is_special() {
            return Ok(());
        }
        let page = pages_page(self.pages, pte.pfn());
        let maps = match level {
            Level::Pte => Maps::Page(page),
            _ => Maps::Folio(page),
        };
        self.pages.remove_rmap(maps);
        self.pages.put_page(page)?;
        Ok(())
    }

    /// Frees the tables on the path to `at` that have no entry left, lowest first.
    fn prune(&mut self, at: VirtAddr) {
        let m = self.pages.m;
        loop {
            let found = paging::walk(m, self.root, at);
            if found.pte.is_present() || found.level == Level::Pgd {
                return;
            }
            let table = found.at.pfn();
            let empty = (0..ENTRIES).all(|n| m.read_phys(table.phys().offset(n * 8)) == 0);
            if !empty {
                return;
            }
            self.cut(at, table);
        }
    }

    /// Clears the entry that points to the table at `table`, on the path to `at`, and
    /// frees the table.
    fn cut(&mut self, at: VirtAddr, table: Pfn) {
        let m = self.pages.m;
        let mut level = Level::Pgd;
        let mut here = self.root;
        loop {
            let slot = paging::slot(here, level, at);
            let pte = Pte::from_raw(m.read_phys(slot));
            let Some(down) = level.down().filter(|_| pte.is_present()) else {
                return;
            };
            if pte.pfn() == table {
                m.write_phys(slot, Pte::NONE.raw());
                self.pages.table_free(table);
                self.tables -= 1;
                return;
            }
            (here, level) = (pte.pfn(), down);
        }
    }
}

/// All of user mode.
pub(super) const fn everything() -> VirtRange {
    VirtRange {
        start: VirtAddr::new(0),
        end: USER_END,
    }
}

fn check_user(range: VirtRange) -> Result<(), VmError> {
    if range.start > range.end || range.end > USER_END {
        return Err(VmError::NotUser(range.start));
    }
    Ok(())
}

fn pages_page<M: Machine>(pages: &Pages<'_, M>, pfn: Pfn) -> Page {
    pages.memmap().page(pfn)
}

impl<M: Machine> Drop for AddressSpace<'_, M> {
    #[doc(alias = "exit_mmap")]
    fn drop(&mut self) {
        // A page in a bad state is counted and in the log; there is nobody to tell here.
        let _ = self.zap_range(everything());
        self.pages.table_free(self.root);
    }
}
