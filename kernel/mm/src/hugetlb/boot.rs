//! Huge pages that exist before their memmap does.
//!
//! With HVO on, 1 GiB pages that the command line asks for are taken from the early
//! allocator and set aside; the memmap is then built with them folded
//! (`vmemmap/boot.rs`), and they enter their pools once there are any. The 16 MiB of
//! struct pages that each would have are never allocated.

use core::fmt;

use super::counters::Kind;
use super::{Backing, Hstate, HugeTlb, Request};
use crate::addr::{MAX_NODES, NodeId, Pfn};
use crate::frames::{FrameSource, Placement};
use crate::machine::{Level, Machine};
use crate::memblock::{EarlyFrames, MemoryMap};
use crate::node::low_watermark;
use crate::page::{HEAD_PAGES, Memmap, PageType};
use crate::vmemmap::{BOOT_ORDER, Vmemmap};

/// Pages that are kept on a node for each block taken there: tables, the head's frame,
/// and what the path to them may need.
const PER_BLOCK: u64 = 16;

/// What became of the aligned blocks of [`BOOT_ORDER`] that hold RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootBlocks {
    /// Taken for huge pages.
    pub taken: u64,
    /// All that hold any RAM.
    pub all: u64,
    /// Those of RAM of two nodes or more, without a hole.
    pub crossing: u64,
    /// Those that are partly no RAM.
    pub holes: u64,
}

impl BootBlocks {
    /// Looks at every aligned block of `map`, none taken.
    #[must_use]
    pub fn survey<const N: usize>(map: &MemoryMap<N>) -> Self {
        let mut found = Self::default();
        let mut next = Pfn::new(0);
        for ram in map.iter() {
            let mut first = ram.range.start.align_down(BOOT_ORDER).max(next);
            while first < ram.range.end {
                let block = first.block(BOOT_ORDER);
                let parts = map.iter().map(|ram| (ram.node, ram.range.intersect(block)));
                let parts = parts.filter(|(_, part)| !part.is_empty());
                let pages: u64 = parts.clone().map(|(_, part)| part.pages()).sum();
                let nodes = parts.fold(0u64, |nodes, (node, _)| nodes | 1 << node.get());
                found.all += 1;
                found.holes += u64::from(pages < BOOT_ORDER.pages());
                found.crossing += u64::from(pages == BOOT_ORDER.pages() && nodes.count_ones() > 1);
                first = block.end;
            }
            next = first;
        }
        found
    }
}

impl fmt::Display for BootBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            taken,
            all,
            crossing,
            holes,
        } = self;
        write!(
            f,
            "{taken} of {all} aligned blocks taken before the memmap is built; \
             {crossing} cross a node boundary, {holes} have a hole"
        )
    }
}

impl HugeTlb {
    /// Takes what `request` asks for of 1 GiB pages from `early`, before the memmap is
    /// built, so that it is built folded. Takes blocks that are wholly RAM of one node
    /// and free, the highest first, and leaves each node what its struct pages and
    /// tables need. Nothing, if HVO is off or the machine has no such pages.
    ///
    /// What cannot be had is logged by [`HugeTlb::add_boot_folios`].
    #[doc(alias = "__alloc_bootmem_huge_page")]
    #[doc(alias = "hugetlb_hstate_alloc_pages")]
    pub fn take_early<M: Machine, const N: usize>(
        &self,
        m: &M,
        early: &EarlyFrames<'_, N>,
        vmemmap: &Vmemmap,
        request: Request<impl IntoIterator<Item = (NodeId, u64)>>,
    ) -> BootBlocks {
        let map = early.lock(m).map();
        let mut found = BootBlocks::survey(map);
        let possible = m.has_gbpages() && vmemmap.check_order(m, BOOT_ORDER.get()).is_ok();
        if !possible || !self.optimizes() {
            return found;
        }
        let present = map.pages_by_node();
        let mut taken = [0; MAX_NODES];
        let mut take = |node: NodeId| {
            let (present, taken) = (present[node.index()], &mut taken[node.index()]);
            let free = early.lock(m).free_pages(node);
            let rest = present.saturating_sub((*taken + 1) * BOOT_ORDER.pages());
            if free < BOOT_ORDER.pages() + needed(rest, *taken + 1) {
                return false;
            }
            let Some(block) = early.alloc(m, BOOT_ORDER, Placement::Only(node)) else {
                return false;
            };
            if vmemmap.set_aside(m, block).is_err() {
                early.free(m, block, BOOT_ORDER);
                return false;
            }
            *taken += 1;
            true
        };
        match request {
            Request::Nodes(counts) => {
                for (node, count) in counts {
                    found.taken += (0..count).take_while(|_| take(node)).fold(0, |n, _| n + 1);
                }
            }
            Request::Total(count) => {
                let nodes = (0u8..).zip(present).filter(|(_, pages)| *pages > 0);
                let mut open = nodes.fold(0u64, |open, (n, _)| open | 1 << n);
                // Round robin; a node that has nothing left gets no further turn.
                while open != 0 && found.taken < count {
                    for n in 0u8..64 {
                        if open >> n & 1 == 0 || found.taken == count {
                            continue;
                        }
                        if take(NodeId::of(n)) {
                            found.taken += 1;
                        } else {
                            open &= !(1 << n);
                        }
                    }
                }
            }
        }
        found
    }

    /// Puts the folios that were folded from the start into the pools of `h`, and logs
    /// what is missing of `request`; how many there are.
    #[doc(alias = "gather_bootmem_prealloc")]
    pub fn add_boot_folios<M: Machine>(
        &self,
        m: &M,
        backing: Backing<'_>,
        h: &Hstate,
        request: Request<impl IntoIterator<Item = (NodeId, u64)>>,
    ) -> u64 {
        let mut added = [0; MAX_NODES];
        for block in backing.vmemmap.set_aside_blocks() {
            let head = backing.vmemmap.memmap().page(block);
            backing.vmemmap.take_over(block);
            head.set_page_type(m, PageType::HUGETLB);
            let node = head.node(m);
            added[node.index()] += 1;
            h.pools.lock(m).add(m, head, Kind::Persistent);
        }
        let total = added.iter().sum();
        match request {
            Request::Total(count) => shortfall(m, h, None, count, total),
            Request::Nodes(counts) => counts
                .into_iter()
                .for_each(|(node, count)| shortfall(m, h, Some(node), count, added[node.index()])),
        }
        total
    }
}

/// Pages that a node needs for itself: the struct pages of `rest` pages of RAM, what
/// `taken` blocks take, and what huge pages always leave alone.
fn needed(rest: u64, taken: u64) -> u64 {
    // A section more at each end of a range, whose struct pages are whole leaves.
    let memmap = rest.div_ceil(HEAD_PAGES) + 4 * Memmap::SECTION.pages() / HEAD_PAGES;
    memmap + taken * PER_BLOCK + low_watermark(rest)
}

fn shortfall<M: Machine>(m: &M, h: &Hstate, node: Option<NodeId>, count: u64, added: u64) {
    if added >= count {
        return;
    }
    let size = h.name();
    match node {
        None => m.log(
            Level::Warn,
            format_args!(
                "HugeTLB: allocating {count} of page size {size} failed.  Only allocated {added} hugepages."
            ),
        ),
        Some(node) => m.log(
            Level::Warn,
            format_args!(
                "HugeTLB: allocating {count} of page size {size} failed node{node}.  Only allocated {added} hugepages."
            ),
        ),
    }
}
