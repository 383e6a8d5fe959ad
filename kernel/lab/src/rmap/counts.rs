//! The rmap's counts: who maps what, and by how large an entry.

use super::alloc::Pages;
use super::fields::{ENTIRELY_MAPPED, Field, FolioFields, add_mapcount, nr_pages, page_mapcount};
use super::kind::{PageKind, page_kind};
use super::policy::Count;
use mm::machine::Machine;
use mm::page::{self, BadPage, Page};

/// What one entry maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "enum rmap_level")]
pub(super) enum Maps {
    /// One page.
    Page(Page),
    /// The whole folio with that head.
    Folio(Page),
}

impl Maps {
    const fn page(self) -> Page {
        match self {
            Self::Page(page) | Self::Folio(page) => page,
        }
    }
}

const UP: u32 = 1;
/// -1.
const DOWN: u32 = u32::MAX;

impl<M: Machine> Pages<'_, M> {
    /// Counts a mapping that has just been made, if the page is of a kind that counts.
    #[doc(alias = "folio_add_file_rmap_ptes")]
    #[doc(alias = "folio_add_file_rmap_pmd")]
    #[doc(alias = "hugetlb_add_file_rmap")]
    pub(super) fn add_rmap(&self, maps: Maps) {
        self.count(maps, UP);
    }

    /// Uncounts a mapping that has been removed.
    #[doc(alias = "folio_remove_rmap_ptes")]
    #[doc(alias = "folio_remove_rmap_pmd")]
    #[doc(alias = "hugetlb_remove_rmap")]
    pub(super) fn remove_rmap(&self, maps: Maps) {
        self.count(maps, DOWN);
    }

    fn count(&self, maps: Maps, delta: u32) {
        let m = self.m;
        let (kind, head) = page_kind(m, self.policy(), maps.page());
        if self.policy().counts(kind) == Count::No {
            return;
        }
        let large = head.is_head(m);
        if large {
            self.sanity_check(head);
        }
        // First mapping, or the last one gone.
        let changed = |before: u32| before == if delta == UP { u32::MAX } else { 0 };
        match maps {
            Maps::Page(page) => {
                if changed(add_mapcount(m, page, delta)) && large {
                    Field::NrPagesMapped.add(m, head, delta);
                }
            }
            Maps::Folio(_) => {
                let first = changed(Field::EntireMapcount.add(m, head, delta));
                if first && kind != PageKind::Hugetlb {
                    Field::NrPagesMapped.add(m, head, ENTIRELY_MAPPED.wrapping_mul(delta));
                }
            }
        }
        if large {
            Field::LargeMapcount.add(m, head, delta);
        }
    }

    /// A large folio that the rmap is run on has its fields.
    #[doc(alias = "__folio_rmap_sanity_checks")]
    fn sanity_check(&self, head: Page) {
        let found = Field::NrPages.load(self.m, head);
        if found != nr_pages(page::folio_order(self.m, head)) {
            self.warn(BadPage {
                page: head,
                what: "rmap of a folio whose fields are not initialised",
                found: u64::from(found),
            });
        }
    }

    /// Entries that map `page` itself, of whatever size; `None` if nothing counts that.
    pub(super) fn mappings_of(&self, page: Page) -> Option<u32> {
        let m = self.m;
        let (kind, head) = page_kind(m, self.policy(), page);
        if self.policy().counts(kind) == Count::No {
            return None;
        }
        let entire = match kind {
            // The type of its head lies where a map count would.
            PageKind::Hugetlb => return Some(FolioFields::of(m, head).entire_mapcount),
            _ if head.is_head(m) => FolioFields::of(m, head).entire_mapcount,
            _ => 0,
        };
        Some(page_mapcount(m, page) + entire)
    }

    /// How often the folio that `page` belongs to, or pages of it, are mapped; `None` if
    /// nothing counts that.
    pub fn folio_mapcount(&self, page: Page) -> Option<u32> {
        let m = self.m;
        let (kind, head) = page_kind(m, self.policy(), page);
        if self.policy().counts(kind) == Count::No {
            return None;
        }
        Some(if head.is_head(m) {
            Field::LargeMapcount.load(m, head).wrapping_add(1)
        } else {
            page_mapcount(m, head)
        })
    }
}
