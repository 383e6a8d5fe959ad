//! The shared tail pages, one per node and order, made when first needed.

use super::publish::Published;
use super::{HvoError, Vmemmap, row};
use crate::addr::{NodeId, Order, Pfn, VirtAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{
    CompoundInfo, HEAD_PAGES, PageType, SHARES_ACROSS_NODE, VMEMMAP_TAIL_MIN_ORDER, tail_record,
};
use crate::paging;

impl Vmemmap {
    /// The frame with the shared tails of `order` on `node`, if it exists.
    #[must_use]
    pub fn existing_tail(&self, node: NodeId, order: Order) -> Option<Pfn> {
        let index = order.index().checked_sub(VMEMMAP_TAIL_MIN_ORDER.index())?;
        self.tails[row(node)][index].get()
    }

    /// The frame with the shared tails of `order` on `node`; made if need be.
    ///
    /// # Errors
    /// [`HvoError::OrderOutOfBounds`], [`HvoError::SharedWithinFolio`], or
    /// [`HvoError::NoMemory`] with nothing changed.
    #[doc(alias = "vmemmap_shared_tail_page")]
    #[doc(alias = "vmemmap_get_tail")]
    pub fn shared_tail<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
    ) -> Result<Pfn, HvoError> {
        self.tail(m, frames, node, order, &|frame, page_type| {
            self.memmap.page(frame).set_page_type(m, page_type);
        })
    }

    /// [`Vmemmap::shared_tail`] before the frame need have a struct page: its type is
    /// set later, by [`Vmemmap::claim_memmap_frames`].
    pub(super) fn early_tail<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
    ) -> Result<Pfn, HvoError> {
        self.tail(m, frames, node, order, &|_, _| ())
    }

    /// The frame that the tails' entries of a folded block point to: the node's, or where
    /// the encoding shares within a folio only, that of the head's struct page at `head`.
    pub(super) fn tail_of<M: Machine>(
        &self,
        m: &M,
        head: VirtAddr,
        node: NodeId,
        order: Order,
    ) -> Option<Pfn> {
        if SHARES_ACROSS_NODE {
            return self.existing_tail(node, order);
        }
        paging::translate(m, m.root(), head).map(|at| at.pfn())
    }

    fn tail<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
        set_type: &dyn Fn(Pfn, PageType),
    ) -> Result<Pfn, HvoError> {
        if !SHARES_ACROSS_NODE {
            return Err(HvoError::SharedWithinFolio);
        }
        let index = self.tail_index(m, order.get())?;
        let published = self.tails[row(node)][index].get_or_publish(
            || {
                let frame = frames
                    .alloc(m, Order::PAGE, Placement::Prefer(node))
                    .ok_or(HvoError::NoMemory)?;
                let tail = tail_record(node, CompoundInfo::any_tail(order));
                m.fill_phys(frame.phys(), &tail, HEAD_PAGES);
                set_type(frame, PageType::TAILS);
                Ok(frame)
            },
            |frame| {
                set_type(frame, PageType::NONE);
                frames.free(m, frame, Order::PAGE);
            },
        )?;
        if matches!(published, Published::Mine(_)) {
            self.ledger.count_tail();
        }
        Ok(published.pfn())
    }
}
