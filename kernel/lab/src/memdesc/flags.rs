//! What stays per page: zone, node, HWPoison, Reserved, AnonExclusive.
//!
//! With 64, 32 and 16 bytes these are `page->flags`; all else that Linux keeps there
//! belongs to the folio, and Head, Private and Private2 do not exist. The section is
//! not in the flags: a vmemmap finds it by address, and with section bits a 1 GiB
//! folio's pages would not be alike. Zone and node are equal throughout a folio.
//!
//! With 8 bytes there are no flags. Zone and node are looked up by the frame's place
//! (a map covers one block of one node: a table with one row). Reserved, HWPoison and
//! AnonExclusive are types; HWPoison and AnonExclusive keep the owner's address, and
//! HWPoison hides AnonExclusive.
//!
//! A page with a flag set differs from the others of its folio, so its frame of memmap
//! cannot be the shared one: setting one takes that frame out of the sharing.

use super::fold::block_of;
use super::layout::{Page, StructPage};
use super::map::MemdescMap;
use super::page_flags::PageFlags;
use super::word::{Memdesc, MemdescType};
use super::{MemdescError, lookup};
use mm::frames::FrameSource;
use mm::machine::Machine;

impl<L: StructPage> MemdescMap<L> {
    /// What is known of `page` alone, wherever the layout keeps it.
    pub fn page_flags<M: Machine>(&self, m: &M, page: Page<L>) -> PageFlags {
        if let Some(at) = L::FLAGS {
            return PageFlags::from_raw(m.load64(page.address().offset(at)));
        }
        let word = lookup::page_memdesc(page, |at| m.load64(at));
        PageFlags::of_node(self.node())
            .with(PageFlags::RESERVED, word == Memdesc::RESERVED)
            .with(PageFlags::HWPOISON, word.is(MemdescType::HwPoison))
            .with(
                PageFlags::ANON_EXCLUSIVE,
                word.is(MemdescType::AnonExclusive),
            )
    }

    /// Marks `page` as broken, in use or not. It stays so until the map goes, and is
    /// never allocated again.
    ///
    /// # Errors
    /// [`MemdescError::NoMemory`] if its frame of memmap must get out of the sharing.
    #[doc(alias = "SetPageHWPoison")]
    pub fn set_hwpoison<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
    ) -> Result<(), MemdescError> {
        self.change_page(m, frames, page, |word, flags| {
            let flags = flags.with(PageFlags::HWPOISON, true);
            Ok(match word.kind() {
                Some(MemdescType::Free) => (Memdesc::POISONED, flags),
                _ if L::FLAGS.is_some() => (word, flags),
                Some(MemdescType::None) => (Memdesc::POISONED, flags),
                _ => (word.retyped(MemdescType::HwPoison), flags),
            })
        })
    }

    /// Sets or clears AnonExclusive of a page of an anonymous folio.
    ///
    /// # Errors
    /// [`MemdescError::WrongState`] for any other page, and for a broken one where the
    /// type says so; [`MemdescError::NoMemory`] as for [`MemdescMap::set_hwpoison`].
    #[doc(alias = "SetPageAnonExclusive")]
    #[doc(alias = "ClearPageAnonExclusive")]
    pub fn set_anon_exclusive<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
        on: bool,
    ) -> Result<(), MemdescError> {
        self.change_page(m, frames, page, |word, flags| {
            if !word.is(MemdescType::Anon) && !word.is(MemdescType::AnonExclusive) {
                return Err(MemdescError::WrongState(word));
            }
            if L::FLAGS.is_some() {
                return Ok((word, flags.with(PageFlags::ANON_EXCLUSIVE, on)));
            }
            let to = if on {
                MemdescType::AnonExclusive
            } else {
                MemdescType::Anon
            };
            Ok((word.retyped(to), flags))
        })
    }

    /// Marks a free page as none that may be handed out.
    ///
    /// # Errors
    /// [`MemdescError::WrongState`] if it is not free; [`MemdescError::NoMemory`].
    #[doc(alias = "SetPageReserved")]
    pub fn reserve<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
    ) -> Result<(), MemdescError> {
        self.change_page(m, frames, page, |word, flags| {
            if word.is(MemdescType::Free) {
                Ok((Memdesc::RESERVED, flags.with(PageFlags::RESERVED, true)))
            } else {
                Err(MemdescError::WrongState(word))
            }
        })
    }

    /// Stores what `change` makes of the word and flags of `page`, in a frame that is
    /// the page's own by then.
    fn change_page<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        page: Page<L>,
        change: impl FnOnce(Memdesc, PageFlags) -> Result<(Memdesc, PageFlags), MemdescError>,
    ) -> Result<(), MemdescError> {
        let mut state = self.lock(m);
        let word = lookup::page_memdesc(page, |at| m.load64(at));
        let flags = self.page_flags(m, page);
        let (new_word, new_flags) = change(word, flags)?;
        if (new_word, new_flags) == (word, flags) {
            return Ok(());
        }
        if let Some(block) = block_of(m, self.pfn(page), word) {
            self.unshare(m, frames, &mut state, block, page)?;
        }
        // Writable by now, on every CPU: `unshare` has flushed.
        m.store64(page.memdesc_address(), new_word.raw());
        if let Some(at) = L::FLAGS {
            m.store64(page.address().offset(at), new_flags.raw());
        }
        Ok(())
    }
}
