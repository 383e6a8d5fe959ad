//! The shared tables, one per node and order: for slots of folded blocks that are tails
//! from end to end.
//!
//! All 512 entries lead, read-only, to the node's shared tail page of the order. As that
//! page it is made when first needed, complete before it is published, and neither changed
//! nor freed after (INV-11). Whoever wants another entry in such a slot gives it a table
//! of its own first.

use super::gather::Gather;
use super::publish::Published;
use super::slot::{Slot, slots};
use super::{HvoError, Vmemmap, row};
use crate::addr::{ENTRIES, NodeId, Order, Pfn, VirtRange};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{PageType, SHARES_ACROSS_NODE, VMEMMAP_TAIL_MIN_ORDER, vmemmap_pages};
use crate::paging::{Pte, PteFlags};

impl Vmemmap {
    /// The table that the slots of tails of folded blocks of `order` on `node` share, if
    /// it exists.
    #[must_use]
    pub fn existing_table(&self, node: NodeId, order: Order) -> Option<Pfn> {
        let index = order.index().checked_sub(VMEMMAP_TAIL_MIN_ORDER.index())?;
        self.tables[row(node)][index].get()
    }

    /// The same; made if need be. `None` if blocks of `order` have no such slots, or there
    /// is no memory: each slot can have a table of its own instead.
    #[must_use]
    pub fn shared_table<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
    ) -> Option<Pfn> {
        self.table(m, frames, node, order, &|frame, page_type| {
            self.memmap.page(frame).set_page_type(m, page_type);
        })
    }

    /// [`Vmemmap::shared_table`] before the frame need have a struct page: its type is set
    /// later, by [`Vmemmap::claim_memmap_frames`].
    pub(super) fn early_table<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
    ) -> Option<Pfn> {
        self.table(m, frames, node, order, &|_, _| ())
    }

    fn table<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        node: NodeId,
        order: Order,
        set_type: &dyn Fn(Pfn, PageType),
    ) -> Option<Pfn> {
        if !SHARES_ACROSS_NODE || vmemmap_pages(order) <= ENTRIES {
            return None;
        }
        let tail = self.existing_tail(node, order)?;
        let index = self.tail_index(m, order.get()).ok()?;
        let published = self.tables[row(node)][index].get_or_publish(
            || {
                let frame = frames
                    .alloc(m, Order::PAGE, Placement::Prefer(node))
                    .ok_or(HvoError::NoMemory)?;
                let entry = Pte::new(tail, PteFlags::KERNEL_RO);
                m.fill_words(frame.phys(), entry.raw(), ENTRIES);
                set_type(frame, PageType::TABLE);
                Ok::<_, HvoError>(frame)
            },
            |frame| {
                set_type(frame, PageType::NONE);
                frames.free(m, frame, Order::PAGE);
            },
        );
        let published = published.ok()?;
        if matches!(published, Published::Mine(_)) {
            self.ledger.count_shared_table();
        }
        Some(published.pfn())
    }

    /// Gives `slot`, whose level-2 entry leads to the shared table `shared` of blocks like
    /// it, the frame `table` as a table of its own with the same entries but for those
    /// that `change` stores, before anybody can see it.
    pub(super) fn own_table<M: Machine>(
        &self,
        m: &M,
        slot: &Slot,
        of: (NodeId, Order),
        (shared, table): (Pfn, Pfn),
        change: impl FnOnce(Pfn),
    ) {
        m.copy_frame(table, shared);
        change(table);
        self.memmap.page(table).set_page_type(m, PageType::TABLE);
        slot.set_table(m, table);
        self.ledger.count_tables(1, true);
        self.count_shared_slot(m, of, false);
    }

    /// Lets every slot of tails of the folded block of `order` with the memmap at `range`
    /// share `shared`, the order's table. Their own tables hold the same entries already;
    /// they go with `gather`.
    pub(super) fn share_tables<M: Machine>(
        &self,
        m: &M,
        of: (NodeId, Order),
        range: VirtRange,
        shared: Option<Pfn>,
        gather: &mut Gather,
    ) {
        let Some(shared) = shared else { return };
        for slot in slots(range).filter(Slot::is_all_tails) {
            if let Some(own) = slot.table(m).filter(|table| *table != shared) {
                slot.set_table(m, shared);
                self.count_shared_slot(m, of, true);
                gather.push_table(m, self.memmap, own, &slot);
            }
        }
    }

    /// Counts a slot of a block of this node and order that begins to share, or ends it.
    pub(super) fn count_shared_slot<M: Machine>(&self, m: &M, of: (NodeId, Order), up: bool) {
        let (node, order) = of;
        if let Ok(index) = self.tail_index(m, order.get()) {
            self.ledger.count_shared_slots(node, index, 1, up);
        }
    }
}
