//! Which pages of a huge page are broken, while their own struct pages cannot say so.
//!
//! A folded tail is read-only, so the list hangs on the folio: `private` of its third
//! struct page, which is in the frame that every folio keeps, holds the physical address
//! of the first node. Nodes are 16 bytes each and lie 255 to a frame from the buddy
//! allocator; a frame that is empty goes back. All of it is under one lock.

use crate::addr::{Order, PAGE_SIZE, Pfn, PhysAddr};
use crate::frames::{FrameSource, Placement};
use crate::machine::Machine;
use crate::page::{Flags, Page, PageType, has_hwpoisoned};
use crate::sync::{IrqLock, LockClass};

/// In the folio's word: pages are broken that no list names, because there was no memory
/// for a node.
#[doc(alias = "HPageRawHwpUnreliable")]
const UNRELIABLE: u64 = 1;

/// Bytes of a node: the address of the next one (0: none), and the frame's number plus 1
/// (0: the node is free). The first place in a frame holds its header instead: the next
/// frame's address (0: none) and the number of nodes in use.
const NODE: u64 = 16;
const NODES: u64 = PAGE_SIZE / NODE;

/// There was no frame for a node; the folio is unreliable now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoNode;

/// The lists of all folios.
#[derive(Debug)]
#[doc(alias = "raw_hwp_page")]
pub(crate) struct RawHwp {
    slab: IrqLock<Slab>,
}

#[derive(Debug)]
struct Slab {
    /// The first frame with nodes; 0 if there is none.
    first: u64,
    frames: u64,
}

impl RawHwp {
    pub(super) const fn new() -> Self {
        let slab = Slab {
            first: 0,
            frames: 0,
        };
        Self {
            slab: IrqLock::new(LockClass::RawHwp, slab),
        }
    }

    /// Keeps the lists as they are.
    pub(super) fn lock<'a, M: Machine>(&'a self, m: &'a M) -> impl Drop + 'a {
        self.slab.lock(m)
    }

    /// Frames that hold nodes.
    pub(super) fn frames<M: Machine>(&self, m: &M) -> u64 {
        self.slab.lock(m).frames
    }

    /// Notes that `pfn` is broken on the list of the folio with head `head`, which is not
    /// unreliable.
    ///
    /// # Errors
    /// [`NoNode`].
    #[doc(alias = "folio_set_hugetlb_hwpoison")]
    pub(crate) fn add<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        pfn: Pfn,
    ) -> Result<(), NoNode> {
        let mut slab = self.slab.lock(m);
        let node = match slab.take(m) {
            Some(node) => node,
            None => {
                drop(slab);
                let frame = frames.alloc(m, Order::PAGE, Placement::Prefer(head.node(m)));
                slab = self.slab.lock(m);
                let Some(frame) = frame else {
                    set_word(m, head, word(m, head) | UNRELIABLE);
                    return Err(NoNode);
                };
                slab.grow(m, frame);
                slab.take(m).expect("the frame is new")
            }
        };
        m.write_phys(node, word(m, head));
        m.write_phys(node.offset(8), pfn.as_u64() + 1);
        set_word(m, head, node.as_u64());
        Ok(())
    }

    /// Whether `pfn` is broken by what the folio with head `head` knows: it is on the
    /// list, or the list is not complete. `head` may have ceased to be one.
    pub(super) fn contains<M: Machine>(&self, m: &M, head: Page, pfn: Pfn) -> bool {
        let slab = self.slab.lock(m);
        // Who frees a folio that has this mark takes it away under the lock first, so the
        // word is the list's for as long as the lock is held.
        let listed = has_hwpoisoned(m, head) && head.page_type(m) == PageType::HUGETLB;
        listed && (is_unreliable(m, head) || slab.find(m, head, pfn).is_some())
    }

    /// Strikes `pfn` off the list of `head`; whether it was on it.
    pub(crate) fn remove<M: Machine>(
        &self,
        m: &M,
        frames: &impl FrameSource<M>,
        head: Page,
        pfn: Pfn,
    ) -> bool {
        let mut slab = self.slab.lock(m);
        let Some((before, node)) = slab.find(m, head, pfn) else {
            return false;
        };
        let next = m.read_phys(node);
        match before {
            Some(before) => m.write_phys(before, next),
            None => set_word(m, head, next | word(m, head) & UNRELIABLE),
        }
        let empty = slab.put(m, node);
        drop(slab);
        free(m, frames, empty);
        true
    }

    /// A page on the list of `head`; if there is none, the folio's mark is gone after.
    pub(super) fn first_or_end<M: Machine>(&self, m: &M, head: Page) -> Option<Pfn> {
        let slab = self.slab.lock(m);
        let first = first_node(m, head).and_then(|node| node_pfn(m, node));
        if first.is_none() {
            head.change_flag(m, Flags::HAS_HWPOISONED, false);
        }
        drop(slab);
        first
    }

    /// Whether the list of `head` names any page.
    pub(crate) fn is_empty<M: Machine>(&self, m: &M, head: Page) -> bool {
        first_node(m, head).is_none()
    }
}

impl Slab {
    /// A free node, which is in use from now on.
    fn take<M: Machine>(&mut self, m: &M) -> Option<PhysAddr> {
        let mut frame = self.first;
        while frame != 0 {
            let header = PhysAddr::new(frame);
            let used = m.read_phys(header.offset(8));
            if used < NODES - 1 {
                let mut nodes = (1..NODES).map(|n| header.offset(n * NODE));
                let node = nodes.find(|node| m.read_phys(node.offset(8)) == 0)?;
                m.write_phys(header.offset(8), used + 1);
                return Some(node);
            }
            frame = m.read_phys(header);
        }
        None
    }

    fn grow<M: Machine>(&mut self, m: &M, frame: Pfn) {
        m.fill_words(frame.phys(), 0, PAGE_SIZE / 8);
        m.write_phys(frame.phys(), self.first);
        self.first = frame.phys().as_u64();
        self.frames += 1;
    }

    /// Makes `node` free; its frame, if nothing in it is in use any more.
    fn put<M: Machine>(&mut self, m: &M, node: PhysAddr) -> Option<Pfn> {
        m.write_phys(node.offset(8), 0);
        let own = node.as_u64() & !(PAGE_SIZE - 1);
        let header = PhysAddr::new(own);
        let used = m.read_phys(header.offset(8)) - 1;
        m.write_phys(header.offset(8), used);
        if used > 0 {
            return None;
        }
        let next = m.read_phys(header);
        if self.first == own {
            self.first = next;
        } else {
            let mut frame = self.first;
            while frame != 0 && m.read_phys(PhysAddr::new(frame)) != own {
                frame = m.read_phys(PhysAddr::new(frame));
            }
            debug_assert!(frame != 0, "a frame of nodes is not on the list of frames");
            m.write_phys(PhysAddr::new(frame), next);
        }
        self.frames -= 1;
        Some(Pfn::new(own / PAGE_SIZE))
    }

    /// The node for `pfn` on the list of `head`, and the one before it.
    fn find<M: Machine>(
        &self,
        m: &M,
        head: Page,
        pfn: Pfn,
    ) -> Option<(Option<PhysAddr>, PhysAddr)> {
        let mut before = None;
        let mut next = first_node(m, head);
        while let Some(node) = next {
            if node_pfn(m, node) == Some(pfn) {
                return Some((before, node));
            }
            before = Some(node);
            next = address(m.read_phys(node));
        }
        None
    }
}

/// Whether pages of the folio are broken that no list names.
pub(crate) fn is_unreliable<M: Machine>(m: &M, head: Page) -> bool {
    word(m, head) & UNRELIABLE != 0
}

fn word<M: Machine>(m: &M, head: Page) -> u64 {
    head.nth(2).private(m)
}

fn set_word<M: Machine>(m: &M, head: Page, word: u64) {
    head.nth(2).set_private(m, word);
}

fn first_node<M: Machine>(m: &M, head: Page) -> Option<PhysAddr> {
    address(word(m, head) & !UNRELIABLE)
}

fn address(raw: u64) -> Option<PhysAddr> {
    (raw != 0).then(|| PhysAddr::new(raw))
}

fn node_pfn<M: Machine>(m: &M, node: PhysAddr) -> Option<Pfn> {
    m.read_phys(node.offset(8)).checked_sub(1).map(Pfn::new)
}

fn free<M: Machine>(m: &M, frames: &impl FrameSource<M>, frame: Option<Pfn>) {
    if let Some(frame) = frame {
        frames.free(m, frame, Order::PAGE);
    }
}
