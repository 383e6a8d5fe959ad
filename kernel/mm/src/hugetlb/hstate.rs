//! One huge page size: its pools, a free list and counters a node.

use core::fmt;
use core::sync::atomic::AtomicU8;

use crate::addr::{MAX_NODES, NodeId, Order};
use crate::machine::Machine;
use crate::node::Nodes;
use crate::page::{self, Page, PageList, PageType};
use crate::sync::{IrqLock, LockClass};

/// The pool of one size on one node.
#[derive(Debug)]
pub(super) struct Pool {
    /// Folios nobody has.
    #[doc(alias = "hugepage_freelists")]
    pub(super) free: PageList,
    /// All folios, free or not.
    #[doc(alias = "nr_huge_pages_node")]
    pub(super) nr: u64,
    /// Those of them that are to go when they can.
    #[doc(alias = "surplus_huge_pages_node")]
    pub(super) surplus: u64,
}

impl Pool {
    const EMPTY: Self = Self {
        free: PageList::new(),
        nr: 0,
        surplus: 0,
    };
}

/// Numbers of a pool, as the control files show them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Folios, free or not.
    #[doc(alias = "nr_hugepages")]
    pub nr: u64,
    /// Folios nobody has.
    #[doc(alias = "free_hugepages")]
    pub free: u64,
    /// Folios that are to go when they can.
    #[doc(alias = "surplus_hugepages")]
    pub surplus: u64,
}

/// A huge page size.
#[derive(Debug)]
#[doc(alias = "struct hstate")]
pub struct Hstate {
    order: Order,
    pools: [IrqLock<Pool>; MAX_NODES],
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
            pools: [const { IrqLock::new(LockClass::HugetlbPool, Pool::EMPTY) }; MAX_NODES],
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

    /// The size for people.
    #[must_use]
    pub const fn name(&self) -> SizeName {
        SizeName(self.order)
    }

    pub(super) const fn pool(&self, node: NodeId) -> &IrqLock<Pool> {
        &self.pools[node.index()]
    }

    /// The numbers of one node.
    pub fn counts<M: Machine>(&self, m: &M, node: NodeId) -> Counts {
        let pool = self.pool(node).lock(m);
        Counts {
            nr: pool.nr,
            free: pool.free.len(),
            surplus: pool.surplus,
        }
    }

    /// The numbers of all nodes together.
    pub fn total<M: Machine>(&self, m: &M) -> Counts {
        let mut total = Counts::default();
        for pool in &self.pools {
            let pool = pool.lock(m);
            total.nr += pool.nr;
            total.free += pool.free.len();
            total.surplus += pool.surplus;
        }
        total
    }

    /// A free folio of `node`'s pool, with a count of one, or `None`.
    #[doc(alias = "dequeue_hugetlb_folio_node")]
    pub fn take<M: Machine>(&self, m: &M, node: NodeId) -> Option<Page> {
        let head = self.pool(node).lock(m).free.pop(m)?;
        head.set_ref_count(m, 1);
        Some(head)
    }

    /// A free folio with a count of one, from the node of the CPU that runs this, else
    /// from the nodes after it in turn; `None` if no pool of `nodes` has one.
    #[doc(alias = "alloc_hugetlb_folio")]
    #[doc(alias = "dequeue_hugetlb_folio_nodemask")]
    pub fn take_near<M: Machine>(&self, m: &M, nodes: &Nodes) -> Option<Page> {
        let own = m.this_node();
        let after = nodes.online().filter(|node| *node > own);
        let before = nodes.online().filter(|node| *node < own);
        self.take(m, own)
            .or_else(|| after.chain(before).find_map(|node| self.take(m, node)))
    }

    /// Drops a reference; the last one puts the folio back into its pool.
    ///
    /// # Panics
    /// If the folio has no reference, or is not of this size.
    #[doc(alias = "free_huge_folio")]
    pub fn put<M: Machine>(&self, m: &M, head: Page) {
        assert!(
            head.page_type(m) == PageType::HUGETLB && page::folio_order(m, head) == self.order,
            "{head:?} is no hugetlb folio of this size"
        );
        if page::folio_put(m, head) {
            self.pool(head.node(m)).lock(m).free.push(m, head);
        }
    }
}
