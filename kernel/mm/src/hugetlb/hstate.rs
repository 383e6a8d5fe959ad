//! One huge page size and its pools.

use core::fmt;
use core::sync::atomic::AtomicU8;

use super::counters::{Counts, Pools};
use super::hold::is_free_of;
use crate::addr::{NodeId, Order};
use crate::frames::Placement;
use crate::machine::Machine;
use crate::node::Nodes;
use crate::page::{self, Page, PageType};
use crate::progress_lock::ProgressLock;
use crate::sync::{IrqLock, LockClass};

/// A huge page size.
#[derive(Debug)]
#[doc(alias = "struct hstate")]
pub struct Hstate {
    order: Order,
    #[doc(alias = "hugetlb_lock")]
    pub(super) pools: IrqLock<Pools>,
    /// Held by whoever changes the number of persistent folios.
    pub(super) resize: ProgressLock,
    /// The node that round robin takes next for a new folio. Relaxed, like the one
    /// below: two who read the same number only try the same node first.
    #[doc(alias = "next_nid_to_alloc")]
    pub(super) next_to_grow: AtomicU8,
    /// The node that round robin takes next to remove one.
    #[doc(alias = "next_nid_to_free")]
    pub(super) next_to_shrink: AtomicU8,
}

/// A size as Linux's log writes it: `2.00 MiB`, `1.00 GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeName(Order);

impl fmt::Display for SizeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= Order::PUD {
            write!(f, "{}.00 GiB", self.0.bytes() >> 30)
        } else {
            write!(f, "{}.00 MiB", self.0.bytes() >> 20)
        }
    }
}

impl Hstate {
    pub(super) const fn new(order: Order) -> Self {
        Self {
            order,
            pools: IrqLock::new(LockClass::HugetlbPool, Pools::EMPTY),
            resize: ProgressLock::new("a huge page pool that is being resized"),
            next_to_grow: AtomicU8::new(0),
            next_to_shrink: AtomicU8::new(0),
        }
    }

    /// log2 of the base pages in a folio.
    #[must_use]
    #[doc(alias = "huge_page_order")]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Whether folios are too large for the buddy allocator of Linux, which gets them
    /// from contiguous ranges, and does not count them among what buddy gave. Here buddy has
    /// blocks of that size.
    #[must_use]
    #[doc(alias = "hstate_is_gigantic")]
    pub fn is_gigantic(&self) -> bool {
        self.order >= Order::PUD
    }

    /// The size for people.
    #[must_use]
    pub const fn name(&self) -> SizeName {
        SizeName(self.order)
    }

    /// The numbers of one node.
    pub fn counts<M: Machine>(&self, m: &M, node: NodeId) -> Counts {
        self.pools.lock(m).counts(node)
    }

    /// The numbers of all nodes together.
    pub fn total<M: Machine>(&self, m: &M) -> Counts {
        self.pools.lock(m).total()
    }

    /// Free folios that are promised to mappings, of all nodes.
    #[doc(alias = "resv_hugepages")]
    pub fn resv<M: Machine>(&self, m: &M) -> u64 {
        self.pools.lock(m).resv()
    }

    /// Free surplus folios that wait for memory to go, of all nodes.
    pub fn stuck<M: Machine>(&self, m: &M) -> u64 {
        self.pools.lock(m).total_stuck()
    }

    /// The most surplus folios that may be made for mappings.
    #[doc(alias = "nr_overcommit_hugepages")]
    pub fn overcommit<M: Machine>(&self, m: &M) -> u64 {
        self.pools.lock(m).overcommit
    }

    /// Sets [`Hstate::overcommit`]. Surplus folios there are stay as they are.
    pub fn set_overcommit<M: Machine>(&self, m: &M, most: u64) {
        self.pools.lock(m).overcommit = most;
    }

    /// A free folio of `node`'s pool that no mapping was promised, with a count of one,
    /// or `None`.
    #[doc(alias = "dequeue_hugetlb_folio_node")]
    pub fn take<M: Machine>(&self, m: &M, node: NodeId) -> Option<Page> {
        self.pools.lock(m).take(m, node)
    }

    /// A free folio with a count of one, from the node of the CPU that runs this, else
    /// from the nodes after it in turn; `None` if no pool of `nodes` has one that no
    /// mapping was promised.
    #[doc(alias = "alloc_hugetlb_folio")]
    #[doc(alias = "dequeue_hugetlb_folio_nodemask")]
    pub fn take_near<M: Machine>(&self, m: &M, nodes: &Nodes) -> Option<Page> {
        let mut pools = self.pools.lock(m);
        nodes
            .near(Placement::local(m))
            .find_map(|node| pools.take(m, node))
    }

    /// Returns whether the folio with head `head` is on a free list.
    #[doc(alias = "folio_test_hugetlb_freed")]
    pub fn has_free<M: Machine>(&self, m: &M, head: Page) -> bool {
        let _pools = self.pools.lock(m);
        is_free_of(m, self, head)
    }

    /// Drops a reference; the last one puts the folio back into its pool. A surplus
    /// folio stays there until something else asks for surplus to go:
    /// [`HugeTlb::put`](super::HugeTlb::put) gives it back at once.
    ///
    /// # Panics
    /// If the folio has no reference, or is not of this size.
    pub fn put<M: Machine>(&self, m: &M, head: Page) {
        if self.put_last(m, head) {
            let node = head.node(m);
            let mut pools = self.pools.lock(m);
            pools.enqueue(m, head);
            if pools.counts(node).surplus > 0 {
                pools.count_stuck(node);
            }
        }
    }

    /// Drops a reference; whether it was the last, so that the folio, frozen now, is
    /// the caller's.
    pub(super) fn put_last<M: Machine>(&self, m: &M, head: Page) -> bool {
        assert!(
            head.page_type(m) == PageType::HUGETLB && page::folio_order(m, head) == self.order,
            "{head:?} is no hugetlb folio of this size"
        );
        let last = page::folio_put(m, head);
        if last {
            // Whatever its users kept there: the last reference need not be a user's.
            page::clear_first_tail(m, head);
        }
        last
    }
}
