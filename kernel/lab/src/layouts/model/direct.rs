//! The direct map, for models whose memmap is ordinary memory.
//!
//! What lies there has an address, which encodings compute with and store; it is
//! reached by physical address, which on bare metal is the same instruction.

use super::Spec;
use crate::layouts::error::LayoutError;
use crate::layouts::ledger::Ledger;
use mm::addr::{Order, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use mm::frames::{FrameSource, Placement};
use mm::machine::Machine;
use mm::page::encoding::PageShape;

/// The address of physical address 0. A multiple of 512 GiB: what is aligned in physical
/// memory is aligned here.
#[doc(alias = "PAGE_OFFSET")]
pub const DIRECT_MAP: VirtAddr = VirtAddr::new(0xffff_8880_0000_0000);

/// The address of `at` in the direct map.
#[doc(alias = "phys_to_virt")]
pub(in crate::layouts) const fn virt(at: PhysAddr) -> VirtAddr {
    DIRECT_MAP.offset(at.as_u64())
}

/// The physical address of `at`, an address in the direct map.
#[doc(alias = "virt_to_phys")]
pub(in crate::layouts) const fn phys(at: VirtAddr) -> PhysAddr {
    PhysAddr::new(at.as_u64() - DIRECT_MAP.as_u64())
}

/// Frames for the struct pages of `pages` pages, in one piece: the address of the first,
/// a multiple of their size rounded up to a power of two, plus the skew. What a size that
/// is no power of two leaves of the block goes back.
pub(super) fn take<M: Machine, S: PageShape>(
    m: &M,
    frames: &impl FrameSource<M>,
    spec: &Spec,
    pages: u64,
    ledger: &mut Ledger,
) -> Result<VirtAddr, LayoutError> {
    let (bytes, order) = spec.block::<S>(pages)?;
    let block = frames
        .alloc(m, order, Placement::Prefer(spec.node))
        .ok_or(LayoutError::NoMemory)?;
    let used = bytes / PAGE_SIZE;
    if order > Order::PAGE {
        frames.split(m, block, order);
        if used < order.pages() {
            frames.free_pages(m, block.offset(used), order.pages() - used);
        }
    }
    ledger.frames += used;
    Ok(virt(block.phys()).offset(spec.skew))
}

/// Gives back what [`take`] took.
pub(super) fn give<M: Machine, S: PageShape>(
    m: &M,
    frames: &impl FrameSource<M>,
    spec: &Spec,
    pages: u64,
    at: VirtAddr,
    ledger: &mut Ledger,
) {
    let first: Pfn = phys(VirtAddr::new(at.as_u64() - spec.skew)).pfn();
    let used = (pages * S::SIZE + spec.skew).div_ceil(PAGE_SIZE);
    frames.free_pages(m, first, used);
    ledger.frames -= used;
}

/// Loads 8 bytes at `at`, in the direct map.
#[inline(always)]
pub(super) fn load<M: Machine>(m: &M, at: VirtAddr) -> u64 {
    m.read_phys(phys(at))
}

/// Stores 8 bytes at `at`, in the direct map.
#[inline(always)]
pub(super) fn store<M: Machine>(m: &M, at: VirtAddr, value: u64) {
    m.write_phys(phys(at), value);
}
