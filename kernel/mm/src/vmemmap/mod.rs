//! The virtually contiguous memmap, and how parts of it are folded.
//!
//! Its subject is a naturally aligned block of 2^order pages that nobody else
//! can reach (frozen); it knows nothing of hugetlb. Folding a block (Linux:
//! HugeTLB vmemmap optimization, HVO) keeps the first frame of its memmap and
//! maps all others, read-only, to one frame that every block of the same order on
//! the same node shares:
//!
//! ```text
//!  order 9, before                       after
//!  vmemmap      frame                    vmemmap      frame
//!  +------+     +---+                    +------+     +---+
//!  | head | --> | a |                    | head | --> | i |  a copy of a
//!  +------+     +---+                    +------+     +---+
//!  | tail | --> | b |                    | tail | --+
//!  +------+     +---+                    +------+   |  read-only
//!  | tail | --> | c |                    | tail | --+   +-------------+
//!  +------+     +---+                    +------+   +-> | shared tail |
//!    ...         ...                       ...      |   +-------------+
//!  +------+     +---+                    +------+   |
//!  | tail | --> | h |                    | tail | --+     a..h are free
//!  +------+     +---+                    +------+
//! ```
//!
//! The memmap of a block of order 16 and up is several times 2 MiB. But for the first, all
//! of its page tables would hold the same 512 entries: they are one, too (`tables.rs`).
//!
//! Everything that can fail comes first; then the flag, the copies, the table
//! entries, **one flush**, and only then are frames given back (`gather.rs`).

mod boot;
mod demote;
mod fold;
mod gather;
mod ledger;
mod populate;
mod publish;
mod reshape;
mod rollback;
mod slot;
mod tables;
mod tails;
mod two_steps;
mod unfold;
mod unshare;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub use crate::memblock::RamRange;
pub use boot::BOOT_ORDER;
pub use ledger::{Ledger, Totals};
pub use populate::NoMemoryForMemmap;
pub use publish::{PublishCell, PublishOnce, Published};
pub use unfold::Fill;

use crate::addr::{MAX_NODES, NodeId, Order, PAGE_SIZE};
use crate::machine::{Level, Machine};
use crate::page::encoding::Refusal;
use crate::page::{self, Flags, Memmap, Page, VMEMMAP_TAIL_MIN_ORDER, vmemmap_pages};

/// Orders that can be folded: 7 to 22.
#[doc(alias = "NR_VMEMMAP_TAILS")]
pub const NR_TAILS: usize = Order::COUNT - VMEMMAP_TAIL_MIN_ORDER.index();

/// Why a block was not folded or unfolded. The block is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HvoError {
    /// The struct pages of this build cannot be folded.
    #[error("{0}")]
    Refused(Refusal),
    /// The memmap of a block of this order is less than two frames, or the order
    /// is above the largest folio.
    #[error("order {0} is outside {VMEMMAP_TAIL_MIN_ORDER}..={max}", max = Order::MAX)]
    OrderOutOfBounds(u8),
    /// The vmemmap's base is aligned for folios up to this order only.
    #[error("the vmemmap base is aligned for orders up to {0} only")]
    BaseMisaligned(Order),
    /// The vmemmap's base is aligned for folios of no order.
    #[error("the vmemmap base is not aligned at all")]
    BaseUnaligned,
    /// The head's struct page is not at a multiple of the block's memmap.
    #[error("{0:?} is not aligned to its memmap")]
    HeadMisaligned(Page),
    /// Not the head of a compound page of that order.
    #[error("{0:?} is no head of that order")]
    NotCompound(Page),
    /// Somebody holds a reference: count.
    #[error("the count is {0}, not 0")]
    NotFrozen(u32),
    /// Struct pages are shared within a folio only, so none can change folios folded.
    #[error("struct pages are shared within a folio only; it must be unfolded first")]
    SharedWithinFolio,
    /// The block is folded already.
    #[error("folded already")]
    AlreadyOptimized,
    /// The block with this head is not folded.
    #[error("{0:?} is not the head of a folded block")]
    NotOptimized(Page),
    /// A tail holds something that folding would lose. Found by checked builds.
    #[error("tail {0:?} holds data")]
    TailInUse(Page),
    /// A frame of the block with this head is broken, and its struct page says so.
    #[error("a frame of the block of {0:?} is broken")]
    Poisoned(Page),
    /// No frame for a table, a shared tail or a restored page.
    #[error("out of memory")]
    NoMemory,
    /// A failure was injected while table entries were being stored; they have
    /// been put back.
    #[error("failure injected")]
    Injected,
}

/// The memmap of a machine: geometry, shared tails, and the ledger.
#[derive(Debug)]
pub struct Vmemmap {
    memmap: Memmap,
    /// The shared tail page by node and order, if there is one.
    #[doc(alias = "vmemmap_tails")]
    tails: [[PublishOnce; NR_TAILS]; MAX_NODES],
    /// The table with nothing but entries for it, if there is one.
    tables: [[PublishOnce; NR_TAILS]; MAX_NODES],
    ledger: Ledger,
    /// Blocks to be folded, or folded and not yet taken over, at boot.
    boot: boot::BootBlocks,
    /// Warnings already given, one bit each. Relaxed: only a log line hangs on it.
    warned: AtomicU8,
    /// Whether a leaf is split, and that flushed, before entries change.
    two_steps: AtomicBool,
}

const WARNED_ORDER: u8 = 1 << 0;
const WARNED_ALIGNMENT: u8 = 1 << 1;

impl Vmemmap {
    /// An empty memmap at the given place.
    #[must_use]
    pub const fn new(memmap: Memmap) -> Self {
        Self {
            memmap,
            tails: [const { [const { PublishOnce::new() }; NR_TAILS] }; MAX_NODES],
            tables: [const { [const { PublishOnce::new() }; NR_TAILS] }; MAX_NODES],
            ledger: Ledger::new(),
            boot: boot::BootBlocks::new(),
            warned: AtomicU8::new(0),
            two_steps: AtomicBool::new(false),
        }
    }

    /// Where it lies.
    #[must_use]
    pub const fn memmap(&self) -> Memmap {
        self.memmap
    }

    /// What has been folded and spent so far.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Warns, once, if the base is not aligned for the largest folio. Folding is
    /// then refused for the orders it cannot serve, and so are pools of such folios:
    /// the mask would not lead their tails to the head, folded or not.
    #[doc(alias = "sparse_init")]
    pub fn check_alignment<M: Machine>(&self, m: &M) {
        let max = self.memmap.max_folio_order();
        if max != Some(Order::MAX) {
            self.warn_once(
                m,
                WARNED_ALIGNMENT,
                format_args!(
                    "vmemmap: base {:#x} is not a multiple of {} MiB; no folios above order {}",
                    self.memmap.base().as_u64(),
                    (vmemmap_pages(Order::MAX) * PAGE_SIZE) >> 20,
                    max.map_or(-1, |order| i32::from(order.get())),
                ),
            );
        }
    }

    /// Whether a block of `order` can be folded at all, block aside.
    ///
    /// # Errors
    /// [`HvoError::Refused`], [`HvoError::OrderOutOfBounds`] or [`HvoError::BaseMisaligned`].
    #[doc(alias = "hugetlb_vmemmap_optimizable")]
    pub fn check_order<M: Machine>(&self, m: &M, order: u8) -> Result<Order, HvoError> {
        page::HVO.map_err(HvoError::Refused)?;
        self.tail_index(m, order)?;
        let order = Order::new(order).ok_or(HvoError::OrderOutOfBounds(order))?;
        match self.memmap.max_folio_order() {
            Some(max) if order <= max => Ok(order),
            max => {
                self.check_alignment(m);
                Err(max.map_or(HvoError::BaseUnaligned, HvoError::BaseMisaligned))
            }
        }
    }

    /// The place of `order` in a table of [`NR_TAILS`]. Both bounds are checked
    /// by one unsigned comparison; a bad order warns once and is an error.
    fn tail_index<M: Machine>(&self, m: &M, order: u8) -> Result<usize, HvoError> {
        let index = usize::from(order).wrapping_sub(VMEMMAP_TAIL_MIN_ORDER.index());
        if index < NR_TAILS {
            return Ok(index);
        }
        let error = HvoError::OrderOutOfBounds(order);
        self.warn_once(
            m,
            WARNED_ORDER,
            format_args!("vmemmap: no shared tail: {error}"),
        );
        Err(error)
    }

    /// What must hold of a block before it is folded.
    fn check_block<M: Machine>(&self, m: &M, head: Page, order: Order) -> Result<(), HvoError> {
        self.check_order(m, order.get())?;
        if !head.address().is_aligned(vmemmap_pages(order) * PAGE_SIZE) {
            return Err(HvoError::HeadMisaligned(head));
        }
        let flags = head.flags(m);
        if !flags.contains(Flags::HEAD) || page::folio_order(m, head) != order {
            return Err(HvoError::NotCompound(head));
        }
        if flags.contains(Flags::VMEMMAP_OPTIMIZED) {
            return Err(HvoError::AlreadyOptimized);
        }
        if flags.contains(Flags::HAS_HWPOISONED) {
            return Err(HvoError::Poisoned(head));
        }
        match head.ref_count(m) {
            0 => Ok(()),
            count => Err(HvoError::NotFrozen(count)),
        }
    }

    /// Checks that folding loses nothing: behind the first frame of the memmap
    /// every struct page is that of a plain tail, or of a page not yet made one.
    fn check_tails<M: Machine>(&self, m: &M, head: Page, order: Order) -> Result<(), HvoError> {
        let node = head.node(m);
        let tail = page::tail_record(node, head.tail_info(order));
        let clean = page::clean_record(node, Flags::empty());
        for n in page::HEAD_PAGES..order.pages() {
            let record = head.nth(n).record(m);
            if record != tail && record != clean {
                return Err(HvoError::TailInUse(head.nth(n)));
            }
        }
        Ok(())
    }

    fn warn_once<M: Machine>(&self, m: &M, which: u8, line: fmt::Arguments<'_>) {
        if self.warned.fetch_or(which, Ordering::Relaxed) & which == 0 {
            m.log(Level::Warn, line);
        }
    }
}

/// Whether the block whose head is `head` is folded.
#[doc(alias = "folio_test_hugetlb_vmemmap_optimized")]
pub fn is_optimized<M: Machine>(m: &M, head: Page) -> bool {
    head.flags(m).contains(Flags::VMEMMAP_OPTIMIZED)
}

/// Bytes that folding a block of `order` frees, tables not counted: with struct pages of
/// 64 bytes 28 KiB for 2 MiB, 16380 KiB for 1 GiB. 0 if it cannot be folded.
#[must_use]
#[doc(alias = "hugetlb_vmemmap_optimizable_size")]
pub const fn optimizable_bytes(order: Order) -> u64 {
    if page::HVO.is_err() {
        return 0;
    }
    vmemmap_pages(order).saturating_sub(1) * PAGE_SIZE
}

/// `node`'s row in a table by node.
const fn row(node: NodeId) -> usize {
    node.index()
}
