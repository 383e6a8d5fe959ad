//! Mappings: what reserves, touches and unmaps huge pages.
//!
//! A mapping is a row of places for folios. It is promised one for each place when it is
//! made (unless it asks not to be), takes it when the place is first touched, and puts
//! it when the place is discarded or the mapping dropped. There are no user processes
//! here: the content of a folio is what its last owner left.

use super::{Backing, Event, Hstate, HugeTlb, NoMemory};
use crate::frames::Placement;
use crate::machine::Machine;
use crate::page::{self, Page};

/// What a write to a folio of which there are more users than one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// All see it.
    #[doc(alias = "MAP_SHARED")]
    Shared,
    /// The writer gets a copy.
    #[doc(alias = "MAP_PRIVATE")]
    Private,
}

/// Whether a mapping is promised its folios when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// It is, so touching it does not fail.
    Reserve,
    /// It is not, and takes what nobody was promised.
    #[doc(alias = "MAP_NORESERVE")]
    NoReserve,
}

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
}

/// How a mapping is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapFlags {
    /// Shared or private.
    pub sharing: Sharing,
    /// Promised or not.
    pub promise: Promise,
    /// Where folios must come from; `None` is near the CPU that touches.
    #[doc(alias = "mempolicy")]
    pub bound: Option<Placement>,
}

impl MapFlags {
    /// Shared, promised, near.
    pub const SHARED: Self = Self {
        sharing: Sharing::Shared,
        promise: Promise::Reserve,
        bound: None,
    };
    /// Private, promised, near.
    pub const PRIVATE: Self = Self {
        sharing: Sharing::Private,
        ..Self::SHARED
    };

    /// The same without a promise.
    #[must_use]
    pub const fn no_reserve(self) -> Self {
        Self {
            promise: Promise::NoReserve,
            ..self
        }
    }

    /// The same with folios from `placement`.
    #[must_use]
    pub const fn bound_to(self, placement: Placement) -> Self {
        Self {
            bound: Some(placement),
            ..self
        }
    }
}

/// A mapping of huge pages of one size. Dropping it unmaps it.
#[derive(Debug)]
#[doc(alias = "vm_area_struct")]
pub struct Mapping<'a, M: Machine> {
    m: &'a M,
    hugetlb: &'a HugeTlb,
    backing: Backing<'a>,
    h: &'a Hstate,
    flags: MapFlags,
    slots: &'a mut [Slot],
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
        let slot = match flags.promise {
            Promise::Reserve => {
                let near = flags.bound.unwrap_or_else(|| Placement::local(m));
                self.reserve(m, backing, h, near, slots.len() as u64)
                    .inspect_err(|_| self.events.count(Event::ReserveFail, 1))?;
                Slot::Reserved
            }
            Promise::NoReserve => Slot::Empty,
        };
        slots.fill(slot);
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

impl<'a, M: Machine> Mapping<'a, M> {
    /// What is at place `n`, if there is such a place.
    #[must_use]
    pub fn slot(&self, n: usize) -> Option<Slot> {
        self.slots.get(n).copied()
    }

    /// Places whose folio is promised but not taken yet.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let reserved = self.slots.iter().filter(|slot| **slot == Slot::Reserved);
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
        let slot = self.slots.get(n).ok_or(FaultError::OutOfRange(n))?;
        let head = match *slot {
            Slot::Present(head) => return Ok(head),
            Slot::Reserved => hugetlb.take_promised(m, self.backing, h, near),
            Slot::Empty => hugetlb.take_or_make(m, self.backing, h, near),
        };
        let head = self.found(head)?;
        self.slots[n] = Slot::Present(head);
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
        let copy = self.hugetlb.take_or_make(m, self.backing, h, self.near());
        let copy = self.found(copy)?;
        let memmap = self.backing.vmemmap.memmap();
        let (from, to) = (memmap.pfn(old), memmap.pfn(copy));
        for n in 0..h.order().pages() {
            m.copy_frame(to.offset(n), from.offset(n));
        }
        self.slots[n] = Slot::Present(copy);
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
        let slot = self.slots.get_mut(n).ok_or(FaultError::OutOfRange(n))?;
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
        assert!(
            slots.len() == self.slots.len(),
            "a child has as many places as its parent"
        );
        for (child, own) in slots.iter_mut().zip(self.slots.iter()) {
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

impl<M: Machine> Drop for Mapping<'_, M> {
    #[doc(alias = "hugetlb_vm_op_close")]
    #[doc(alias = "hugetlb_unreserve_pages")]
    fn drop(&mut self) {
        let reserved = self.reserved();
        for slot in self.slots.iter_mut() {
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
