//! Lists of pages that are linked through the pages themselves.
//!
//! Links are vmemmap addresses in `lru`, as in Linux: bit 0 of the first one,
//! which shares its bytes with `compound_info`, stays clear. The list owns its
//! members' `lru`; whoever removes a page gets it back with both links zero.

use super::struct_page::Page;
use crate::addr::VirtAddr;
use crate::machine::Machine;

/// A doubly linked list of pages; new members go to the front.
#[derive(Debug)]
#[doc(alias = "list_head")]
pub struct PageList {
    first: Option<Page>,
    len: u64,
}

impl Default for PageList {
    fn default() -> Self {
        Self::new()
    }
}

impl PageList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: None,
            len: 0,
        }
    }

    /// Number of members.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The member at the front.
    #[must_use]
    pub const fn first(&self) -> Option<Page> {
        self.first
    }

    /// The member behind `page`, which must be one.
    pub fn next<M: Machine>(&self, m: &M, page: Page) -> Option<Page> {
        link(page.lru_next(m))
    }

    /// Puts `page` at the front.
    ///
    /// # Panics
    /// In checked builds, if the page is on a list already or is a tail.
    #[doc(alias = "list_add")]
    pub fn push<M: Machine>(&mut self, m: &M, page: Page) {
        debug_assert!(
            page.lru_next(m) == 0 && page.lru_prev(m) == 0,
            "list_add corruption: {page:?} is on a list already, or a tail"
        );
        if let Some(second) = self.first {
            second.set_lru_prev(m, page.address().as_u64());
            page.set_lru_next(m, second.address().as_u64());
        }
        self.first = Some(page);
        self.len += 1;
    }

    /// Takes the member at the front.
    pub fn pop<M: Machine>(&mut self, m: &M) -> Option<Page> {
        let page = self.first?;
        self.remove(m, page);
        Some(page)
    }

    /// Takes `page` out, which must be a member.
    ///
    /// # Panics
    /// In checked builds, if its neighbours do not point back.
    #[doc(alias = "list_del")]
    pub fn remove<M: Machine>(&mut self, m: &M, page: Page) {
        let (prev, next) = (link(page.lru_prev(m)), link(page.lru_next(m)));
        let back = page.address().as_u64();
        if let Some(next) = next {
            debug_assert!(
                next.lru_prev(m) == back,
                "list_del corruption: {page:?}, next"
            );
            next.set_lru_prev(m, prev.map_or(0, |p| p.address().as_u64()));
        }
        match prev {
            Some(prev) => {
                debug_assert!(
                    prev.lru_next(m) == back,
                    "list_del corruption: {page:?}, prev"
                );
                prev.set_lru_next(m, next.map_or(0, |n| n.address().as_u64()));
            }
            None => {
                debug_assert!(
                    self.first == Some(page),
                    "list_del corruption: {page:?}, head"
                );
                self.first = next;
            }
        }
        page.set_lru_next(m, 0);
        page.set_lru_prev(m, 0);
        self.len -= 1;
    }

    /// Moves every member of `other` to the front of this list.
    #[doc(alias = "list_splice")]
    pub fn append<M: Machine>(&mut self, m: &M, other: &mut Self) {
        while let Some(page) = other.pop(m) {
            self.push(m, page);
        }
    }
}

fn link(raw: u64) -> Option<Page> {
    (raw != 0).then(|| Page::at(VirtAddr::new(raw)))
}
