//! Folios in a map: made, taken apart, found.

use super::descriptors::Descriptors;
use super::error::LayoutError;
use super::fields;
use super::map::Map;
use super::model::Model;
use mm::addr::{Order, Pfn, VirtAddr};
use mm::frames::FrameSource;
use mm::machine::Machine;
use mm::page::Flags;
use mm::page::encoding::{BlockInfo, Encoding, PageShape, PageShapeInfo};

impl<E: Encoding, S: PageShape, Mo: Model> Map<E, S, Mo> {
    /// Makes the block of `order` at `first` a folio: words of head and tails, the head
    /// flag where the folio's data are in the head, a descriptor where they are not. One
    /// whose tails would miss their head is refused (LAY-5).
    ///
    /// # Errors
    /// [`LayoutError`], with nothing changed.
    #[doc(alias = "prep_compound_page")]
    pub fn prep_compound<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<(), LayoutError> {
        if order == Order::PAGE && !E::DESCRIPTOR || order > self.support.max_order {
            return Err(LayoutError::OrderOutOfBounds(order));
        }
        self.check_block(first, order)?;
        if E::COMPUTES && !self.page(m, first).is_aligned(S::memmap_bytes(order)) {
            return Err(LayoutError::OrderOutOfBounds(order));
        }
        // Each page: a smaller folio may lie anywhere in the block.
        for pfn in (0..order.pages()).map(|n| first.offset(n)) {
            if self.folio_of(m, pfn).is_some() {
                return Err(LayoutError::WrongState(pfn));
            }
        }
        let info = self.block_info(m, frames, first, order)?;
        self.set_head(m, first, &info);
        for n in 1..order.pages() {
            self.set_word(m, first.offset(n), E::tail::<S>(&info));
        }
        Ok(())
    }

    /// Makes the pages of the folio at `first` pages without a user again.
    ///
    /// # Errors
    /// [`LayoutError::WrongState`] if there is no folio of `order`, or it is folded.
    #[doc(alias = "destroy_compound_page")]
    pub fn destroy_compound<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<(), LayoutError> {
        self.check_block(first, order)?;
        if !self.is_folio(m, first, order) || self.is_folded(m, first) {
            return Err(LayoutError::WrongState(first));
        }
        let descriptor = self.descriptor(m, first);
        self.unset_head(m, first);
        for n in 1..order.pages() {
            self.set_word(m, first.offset(n), 0);
        }
        self.give(m, frames, descriptor);
        Ok(())
    }

    /// Where the data of the folio of the page at `page` are; `None` for a page of none.
    #[inline(always)]
    pub fn page_folio<M: Machine>(&self, m: &M, page: VirtAddr) -> Option<VirtAddr> {
        let folio = E::folio::<S>(&|at| Mo::load(m, at), page);
        (folio != VirtAddr::NULL).then_some(folio)
    }

    /// Whether the struct page at `page` is a tail.
    #[doc(alias = "PageTail")]
    pub fn is_tail<M: Machine>(&self, m: &M, page: VirtAddr) -> bool {
        E::is_tail::<S>(&|at| Mo::load(m, at), page)
    }

    /// First page of the folio that `pfn` belongs to.
    pub fn folio_of<M: Machine>(&self, m: &M, pfn: Pfn) -> Option<Pfn> {
        let folio = self.page_folio(m, self.page(m, pfn))?;
        if E::DESCRIPTOR {
            return Some(Descriptors::first(m, folio));
        }
        let first = self.pfn(m, folio);
        (self.head_flags(m, first).contains(Flags::HEAD)).then_some(first)
    }

    /// Whether a folio of `order` starts at `first`: its last page says so, too.
    pub(super) fn is_folio<M: Machine>(&self, m: &M, first: Pfn, order: Order) -> bool {
        let last = first.offset(order.pages() - 1);
        let behind = first.offset(order.pages());
        let ends = behind >= self.spec.range.end || self.folio_of(m, behind) != Some(first);
        ends && self.folio_of(m, first) == Some(first) && self.folio_of(m, last) == Some(first)
    }

    /// Whether the memmap of the folio at `first` is folded.
    pub fn is_folded<M: Machine>(&self, m: &M, first: Pfn) -> bool {
        if E::DESCRIPTOR {
            let at = self.descriptor(m, first);
            return at.is_some_and(|at| Descriptors::is_folded(m, at));
        }
        self.head_flags(m, first).contains(Flags::VMEMMAP_OPTIMIZED)
    }

    pub(super) fn set_folded<M: Machine>(&self, m: &M, first: Pfn, folded: bool) {
        if !E::DESCRIPTOR {
            let flags = self.head_flags(m, first);
            let bit = Flags::VMEMMAP_OPTIMIZED;
            let flags = if folded {
                flags.with(bit)
            } else {
                flags.without(bit)
            };
            self.set_head_flags(m, first, flags);
        } else if let Some(at) = self.descriptor(m, first) {
            Descriptors::set_folded(m, at, folded);
        }
    }

    pub(super) fn check_block(&self, first: Pfn, order: Order) -> Result<(), LayoutError> {
        let block = first.block(order);
        if first.is_aligned(order) && block.intersect(self.spec.range) == block {
            Ok(())
        } else {
            Err(LayoutError::BadBlock(first, order))
        }
    }

    /// What the words of a folio are made of; takes a descriptor if it needs one.
    pub(super) fn block_info<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        first: Pfn,
        order: Order,
    ) -> Result<BlockInfo, LayoutError> {
        let descriptor = if E::DESCRIPTOR {
            let whose = (first, order, self.spec.node);
            Some(self.descriptors.take(m, frames, whose, &mut self.ledger)?)
        } else {
            None
        };
        Ok(BlockInfo {
            head: self.page(m, first),
            order,
            descriptor,
        })
    }

    /// The head's flag and word, and a reference.
    pub(super) fn set_head<M: Machine>(&self, m: &M, first: Pfn, info: &BlockInfo) {
        self.set_word(m, first, E::head::<S>(info));
        if !E::DESCRIPTOR {
            let flags = self.head_flags(m, first).with(Flags::HEAD);
            self.set_head_flags(m, first, flags);
            self.set_count(m, first, 1);
        }
    }

    /// Undoes [`Map::set_head`].
    pub(super) fn unset_head<M: Machine>(&self, m: &M, first: Pfn) {
        if !E::DESCRIPTOR {
            let flags = self.head_flags(m, first).without(Flags::HEAD);
            self.set_head_flags(m, first, flags);
            self.set_count(m, first, 0);
        }
        self.set_word(m, first, 0);
    }

    /// The descriptor of the folio at `first`, if it has one.
    pub(super) fn descriptor<M: Machine>(&self, m: &M, first: Pfn) -> Option<VirtAddr> {
        let folio = || self.page_folio(m, self.page(m, first));
        E::DESCRIPTOR.then(folio).flatten()
    }

    /// Takes a descriptor back that no page leads to any more.
    pub(super) fn give<M: Machine>(
        &mut self,
        m: &M,
        frames: &impl FrameSource<M>,
        descriptor: Option<VirtAddr>,
    ) {
        if let Some(at) = descriptor {
            self.descriptors.give(m, frames, at, &mut self.ledger);
        }
    }

    pub(super) fn set_word<M: Machine>(&self, m: &M, pfn: Pfn, word: u64) {
        Mo::store(m, self.page(m, pfn).offset(S::INFO), word);
    }

    fn set_count<M: Machine>(&self, m: &M, first: Pfn, count: u32) {
        if let Some(counts) = fields::counts::<S>() {
            let at = self.page(m, first).offset(counts);
            Mo::store(m, at, fields::counts_word(count));
        }
    }

    fn head_flags<M: Machine>(&self, m: &M, first: Pfn) -> Flags {
        let bits = self.page_bits(m, first);
        bits.map_or(Flags::empty(), |bits| Flags::from_raw(bits.raw()))
    }

    fn set_head_flags<M: Machine>(&self, m: &M, first: Pfn, flags: Flags) {
        if let Some(at) = S::FLAGS {
            Mo::store(m, self.page(m, first).offset(at), flags.raw());
        }
    }
}
