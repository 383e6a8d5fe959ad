//! Where frames come from and go to, as seen by code that only needs a few.
//!
//! `paging` and `vmemmap` lie below the allocators, so they are handed one: the
//! early allocator while the memory map is being built, the buddy allocator after.

use crate::addr::{NodeId, Order, Pfn};
use crate::machine::Machine;

/// How strictly an allocation sticks to the node it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// From this node or not at all.
    #[doc(alias = "__GFP_THISNODE")]
    Only(NodeId),
    /// From this node if it can be, else from the others; which first is the source's choice.
    Prefer(NodeId),
}

impl Placement {
    /// From the node of the CPU that runs this, if it can be: for whoever has no
    /// better reason for a node.
    #[doc(alias = "numa_mem_id")]
    pub fn local<M: Machine>(machine: &M) -> Self {
        Self::Prefer(machine.this_node())
    }

    /// The node asked for.
    #[must_use]
    pub const fn node(self) -> NodeId {
        match self {
            Self::Only(node) | Self::Prefer(node) => node,
        }
    }
}

/// Something that hands out frames.
///
/// A block handed out belongs to the caller (INV-5). Its content is undefined.
pub trait FrameSource<M: Machine> {
    /// A naturally aligned block of `order`, or `None` if there is none.
    fn alloc(&self, machine: &M, order: Order, placement: Placement) -> Option<Pfn>;

    /// Takes back a block of `order` that came from [`FrameSource::alloc`] whole.
    fn free(&self, machine: &M, block: Pfn, order: Order);

    /// Makes every frame of an allocated block an allocation of its own, so that
    /// parts of it can be freed.
    #[doc(alias = "split_page")]
    fn split(&self, machine: &M, block: Pfn, order: Order);

    /// Takes back `pages` consecutive frames that are each an allocation of its
    /// own, whatever their nodes. They come back as the largest aligned blocks they
    /// form.
    #[doc(alias = "free_contig_range")]
    fn free_pages(&self, machine: &M, first: Pfn, pages: u64);
}
