//! Mappings: what reserves, touches and unmaps huge pages.
//!
//! A mapping is a row of places for folios. It is promised one for each place when it is
//! made (unless it asks not to be), takes it when the place is first touched, and puts
//! it when the place is discarded or the mapping dropped. There are no user processes
//! here: the content of a folio is what its last owner left.

use super::{Backing, Event, Hstate, HugeTlb, MapFlags, NoMemory, Promise, Sharing};
use crate::frames::Placement;
use crate::machine::Machine;
use crate::page::{self, Page, has_hwpoisoned};

/// One place of a mapping. The caller lends them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[doc(alias = "struct resv_map")]
pub enum Slot {
    /// Nothing is here and nothing is promised.
    #[default]
    Empty,
    /// A folio is promised.
    Reserved,
    /// The folio with this head; the mapping has one reference.
    Present(Page),
}

/// Why a touch failed. Everything is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "VM_FAULT_SIGBUS")]
pub enum FaultError {
    /// The mapping has this many places only.
    OutOfRange(usize),
    /// No folio is left that may be used.
    NoFolio,
    /// A frame of the folio with this head is broken.
    #[doc(alias = "VM_FAULT_HWPOISON_LARGE")]
    HwPoison(Page),
}

/// A mapping of huge pages of one size, whose places are lent or, with `S` a vector, its
/// own. Dropping it unmaps it.
#[derive(Debug)]
#[doc(alias = "vm_area_struct")]
pub struct Mapping<'a, M: Machine, S: AsRef<[Slot]> + AsMut<[Slot]> = &'a mut [Slot]> {
    m: &'a M,
    hugetlb: &'a HugeTlb,
    backing: Backing<'a>,
    h: &'a Hstate,
    flags: MapFlags,
    slots: S,
}

impl HugeTlb {
    /// A mapping with a place for each of `slots`, whose former content is ignored.
    ///
    /// # Errors
    /// [`NoMemory`] if the pool, and what may be made beyond it, cannot cover the
    /// promise; nothing is changed then.
    #[doc(alias = "hugetlb_reserve_pages")]
    pub fn map<'a, M: Machine>(
        &'a self,
        m: &'a M,
        backing: Backing<'a>,
        h: &'a Hstate,
        flags: MapFlags,
        slots: &'a mut [Slot],
    ) -> Result<Mapping<'a, M>, NoMemory> {
        self.map_own(m, backing, h, flags, slots)
    }

    /// [`HugeTlb::map`] with places that the mapping keeps, whatever they are kept in.
    ///
    /// # Errors
    /// [`NoMemory`], as there.
    pub fn map_own<'a, M: Machine, S: AsRef<[Slot]> + AsMut<[Slot]>>(
        &'a self,
        m: &'a M,
        backing: Backing<'a>,
        h: &'a Hstate,
        flags: MapFlags,
        mut slots: S,
    ) -> Result<Mapping<'a, M, S>, NoMemory> {
        let places = slots.as_mut();
        let slot = match flags.promise {
            Promise::Reserve => {
                let near = flags.bound.unwrap_or_else(|| Placement::local(m));
                self.reserve(m, backing, h, near, places.len() as u64)
                    .inspect_err(|_| self.events.count(Event::ReserveFail, 1))?;
                Slot::Reserved
            }
            Promise::NoReserve => Slot::Empty,
        };
        places.fill(slot);
        Ok(Mapping {
            m,
            hugetlb: self,
            backing,
            h,
            flags,
            slots,
        })
    }
}

impl<'a, M: Machine, S: AsRef<[Slot]> + AsMut<[Slot]>> Mapping<'a, M, S> {
    /// How it was made.
    #[must_use]
    pub const fn flags(&self) -> MapFlags {
        self.flags
    }

    /// The size of its folios.
    #[must_use]
    pub const fn hstate(&self) -> &'a Hstate {
        self.h
    }

    /// Places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.as_ref().len()
    }

    /// Whether it has no places.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is at place `n`, if there is such a place.
    #[must_use]
    pub fn slot(&self, n: usize) -> Option<Slot> {
        self.slots.as_ref().get(n).copied()
    }

    /// Places whose folio is promised but not taken yet.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let places = self.slots.as_ref().iter();
        let reserved = places.filter(|slot| **slot == Slot::Reserved);
        reserved.count() as u64
    }

    /// Reads at place `n`: the head of the folio that is there now.
    ///
    /// # Errors
    /// [`FaultError`].
    #[doc(alias = "hugetlb_fault")]
    #[doc(alias = "hugetlb_no_page")]
    pub fn touch(&mut self, n: usize) -> Result<Page, FaultError> {
        let (hugetlb, m, h) = (self.hugetlb, self.m, self.h);
        let near = self.near();
        let slot = self
            .slots
            .as_ref()
            .get(n)
            .ok_or(FaultError::OutOfRange(n))?;
        let head = match *slot {
            Slot::Present(head) if has_hwpoisoned(m, head) => {
                return Err(FaultError::HwPoison(head));
            }
            Slot::Present(head) => return Ok(head),
            Slot::Reserved => hugetlb.take_promised(m, self.backing, h, near),
            Slot::Empty => hugetlb.take_or_make(m, self.backing, h, near),
        };
        let head = self.found(head)?;
        self.slots.as_mut()[n] = Slot::Present(head);
        Ok(head)
    }

    /// Writes at place `n`: the head of the folio that the mapping may write. A private
    /// mapping copies a folio that others use too, and no promise covers that.
    ///
    /// # Errors
    /// [`FaultError`].
    #[doc(alias = "hugetlb_wp")]
    pub fn write(&mut self, n: usize) -> Result<Page, FaultError> {
        let (m, h) = (self.m, self.h);
        let old = self.touch(n)?;
        if self.flags.sharing == Sharing::Shared || old.ref_count(m) == 1 {
            return Ok(old);
        }
        // Perhaps it is not another user who has it, but one who notes that it broke.
        if has_hwpoisoned(m, old) {
            return Err(FaultError::HwPoison(old));
        }
        let copy = self.hugetlb.take_or_make(m, self.backing, h, self.near());
        let copy = self.found(copy)?;
        let memmap = self.backing.vmemmap.memmap();
        let (from, to) = (memmap.pfn(old), memmap.pfn(copy));
        for n in 0..h.order().pages() {
            m.copy_frame(to.offset(n), from.offset(n));
        }
        self.slots.as_mut()[n] = Slot::Present(copy);
        self.hugetlb.put(m, self.backing, h, old);
        Ok(copy)
    }

    /// Empties place `n`: its folio is put, or its promise given up. A later touch takes
    /// what nobody was promised.
    ///
    /// # Errors
    /// [`FaultError::OutOfRange`].
    #[doc(alias = "MADV_REMOVE")]
    #[doc(alias = "FALLOC_FL_PUNCH_HOLE")]
    pub fn discard(&mut self, n: usize) -> Result<(), FaultError> {
        let slots = self.slots.as_mut();
        let slot = slots.get_mut(n).ok_or(FaultError::OutOfRange(n))?;
        let (hugetlb, m, h) = (self.hugetlb, self.m, self.h);
        match core::mem::take(slot) {
            Slot::Present(head) => hugetlb.put(m, self.backing, h, head),
            Slot::Reserved => hugetlb.unreserve(m, self.backing, h, 1),
            Slot::Empty => {}
        }
        Ok(())
    }

    /// A second mapping of the folios that are present, as a child process has it. It is
    /// promised none.
    ///
    /// # Panics
    /// If `slots` has another length.
    #[doc(alias = "copy_hugetlb_page_range")]
    pub fn fork<'b>(&self, slots: &'b mut [Slot]) -> Mapping<'b, M>
    where
        'a: 'b,
    {
        self.fork_own(slots)
    }

    /// [`Mapping::fork`] with places that the child keeps, whatever they are kept in.
    ///
    /// # Panics
    /// If `slots` has another length.
    pub fn fork_own<'b, T: AsRef<[Slot]> + AsMut<[Slot]>>(&self, mut slots: T) -> Mapping<'b, M, T>
    where
        'a: 'b,
    {
        let (own, places) = (self.slots.as_ref(), slots.as_mut());
        assert!(
            places.len() == own.len(),
            "a child has as many places as its parent"
        );
        for (child, own) in places.iter_mut().zip(own) {
            *child = match *own {
                // Cannot fail: the reference of this mapping is there.
                Slot::Present(head) if page::folio_try_get(self.m, head) => Slot::Present(head),
                _ => Slot::Empty,
            };
        }
        Mapping {
            m: self.m,
            hugetlb: self.hugetlb,
            backing: self.backing,
            h: self.h,
            flags: self.flags.no_reserve(),
            slots,
        }
    }

    fn found(&self, head: Option<Page>) -> Result<Page, FaultError> {
        head.ok_or_else(|| {
            self.hugetlb.events.count(Event::TouchFail, 1);
            FaultError::NoFolio
        })
    }

    fn near(&self) -> Placement {
        self.flags.bound.unwrap_or_else(|| Placement::local(self.m))
    }
}

impl<M: Machine, S: AsRef<[Slot]> + AsMut<[Slot]>> Drop for Mapping<'_, M, S> {
    #[doc(alias = "hugetlb_vm_op_close")]
    #[doc(alias = "hugetlb_unreserve_pages")]
    fn drop(&mut self) {
        let reserved = self.reserved();
        for slot in self.slots.as_mut() {
            if let Slot::Present(head) = core::mem::take(slot) {
                self.hugetlb.put(self.m, self.backing, self.h, head);
            }
        }
        if reserved > 0 {
            let (hugetlb, m) = (self.hugetlb, self.m);
            hugetlb.unreserve(m, self.backing, self.h, reserved);
        }
    }
}
