//! References: load first, and look again.
//!
//! A reader without a reference loads the page's word, the descriptor's count, and
//! exchanges the count unless it is 0: never a locked instruction on a count of 0. The
//! descriptor may meanwhile have become that of another folio (MD-3 keeps it a folio's),
//! so the page's word is loaded **again** once the reference is held: only if it still
//! leads to the same descriptor is it the page's folio (MD-4).

use super::descriptor::{Bare, COUNTS, Descriptor, Folio, Kind};
use super::error::MemdescBug;
use super::layout::{Page, StructPage};
use super::lookup::owner_of;
use super::map::MemdescMap;
use super::word::Memdesc;
use mm::addr::PhysAddr;
use mm::frames::FrameSource;
use mm::machine::Machine;

/// Takes a reference on the descriptor at `at` unless its count is 0.
fn try_get<M: Machine>(m: &M, at: PhysAddr) -> bool {
    let at = at.offset(COUNTS);
    let mut counts = m.read_phys(at);
    // The lower half: a plain load, before anything is exchanged.
    while counts & u64::from(u32::MAX) != 0 {
        match m.compare_exchange_phys(at, counts, counts + 1) {
            Ok(_) => return true,
            Err(found) => counts = found,
        }
    }
    false
}

/// Drops a reference; whether it was the last.
fn put<M: Machine>(m: &M, at: PhysAddr) -> bool {
    let counts_at = at.offset(COUNTS);
    let mut counts = m.read_phys(counts_at);
    loop {
        assert!(
            counts & u64::from(u32::MAX) != 0,
            "BUG: memdesc: put of the descriptor at {at:?}, whose count is 0"
        );
        match m.compare_exchange_phys(counts_at, counts, counts - 1) {
            Ok(_) => return counts & u64::from(u32::MAX) == 1,
            Err(found) => counts = found,
        }
    }
}

impl<L: StructPage> MemdescMap<L> {
    /// Takes a reference on the folio of `page`, whatever page it is and whatever
    /// others do to it; `None` if it is no folio's, or was being freed.
    #[doc(alias = "folio_get_nontail_page")]
    pub fn folio_try_get<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
    ) -> Option<Folio> {
        // Off until the count is taken: what the word leads to stays a folio (MD-3).
        let irq = m.irq_save();
        let folio = self.page_folio(m, page);
        let folio = folio.filter(|folio| try_get(m, folio.phys()));
        m.irq_restore(irq);
        self.still(m, frames, page, folio?)
    }

    /// [`MemdescMap::folio_try_get`] by a caller that has seen `word` in the page,
    /// however long ago. For tests of that race: the frame of the descriptor must not
    /// have been given back since.
    pub fn folio_try_get_seen<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
        word: Memdesc,
    ) -> Option<Folio> {
        let folio = word.is_folio().then(|| Folio::at(word.address()))?;
        try_get(m, folio.phys())
            .then(|| self.still(m, frames, page, folio))
            .flatten()
    }

    /// `folio`, on which a reference is held, if `page` still belongs to it; otherwise
    /// the reference is dropped again.
    fn still<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
        folio: Folio,
    ) -> Option<Folio> {
        if self.page_folio(m, page) == Some(folio) {
            return Some(folio);
        }
        self.folio_put(m, frames, folio);
        None
    }

    /// Takes one more reference on a folio of which the caller holds one.
    ///
    /// # Panics
    /// If its count is 0.
    pub fn folio_get<M: Machine>(&self, m: &M, folio: Folio) {
        assert!(
            try_get(m, folio.phys()),
            "BUG: memdesc: get of {folio:?}, whose count is 0"
        );
    }

    /// Drops a reference; the last one frees the folio. Whether it was the last.
    ///
    /// # Panics
    /// If the count is 0.
    pub fn folio_put<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, folio: Folio) -> bool {
        let last = put(m, folio.phys());
        if last {
            self.release(m, frames, folio.phys(), Kind::Folio);
        }
        last
    }

    /// Drops a reference on what `page` belongs to, on which the caller holds one: on a
    /// folio's page it is the folio's. Whether it was the last.
    ///
    /// # Errors
    /// [`MemdescBug::NoCount`] for a page of a slab or page table, or a page without
    /// descriptor.
    pub fn put_page<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
    ) -> Result<bool, MemdescBug> {
        let word = self.page_memdesc(m, page);
        match owner_of(m, word) {
            Some((at, Kind::Folio)) => Ok(self.folio_put(m, frames, Folio::at(at.as_u64()))),
            Some((at, Kind::Bare)) => Ok(self.bare_put(m, frames, Bare::at(at.as_u64()))),
            _ => Err(MemdescBug::NoCount {
                page: page.address(),
                word,
            }),
        }
    }

    /// Takes a reference on what `page` belongs to, on which the caller holds one.
    ///
    /// # Errors
    /// As [`MemdescMap::put_page`].
    pub fn get_page<M: Machine>(&self, m: &M, page: Page<L>) -> Result<(), MemdescBug> {
        let word = self.page_memdesc(m, page);
        match owner_of(m, word) {
            Some((at, Kind::Folio | Kind::Bare)) if try_get(m, at) => Ok(()),
            _ => Err(MemdescBug::NoCount {
                page: page.address(),
                word,
            }),
        }
    }

    fn bare_put<M: Machine>(&self, m: &M, frames: &impl FrameSource<M>, bare: Bare) -> bool {
        let last = put(m, bare.phys());
        if last {
            self.release(m, frames, bare.phys(), Kind::Bare);
        }
        last
    }
}
