//! How the machine sees that a block has become free: by the page type that an
//! allocator stores in its first struct page, at the moment it does.

use mm::addr::Pfn;

/// Type of the first page of a free block, as it lies in `_mapcount`'s bytes.
const FREE: u32 = 0xf000_0000;
/// Bytes of a struct page, and where the type lies in it.
const RECORD: u64 = 64;
const TYPE: u64 = 48;
/// How far in front of the type the block's order lies.
pub(crate) const TYPE_TO_ORDER: u64 = 8;
/// Bytes of address space of a memmap.
const WINDOW: u64 = 1 << 40;

/// What the store of a page type means.
pub(crate) enum Change {
    /// The block that starts here is free now.
    Freed(Pfn),
    /// The block that starts here is no longer free.
    Allocated(Pfn),
}

/// What it means that the 4 bytes `offset` bytes into the memmap were `old` and
/// are `new`.
pub(crate) fn change(offset: u64, old: u32, new: u32) -> Option<Change> {
    if offset >= WINDOW || offset % RECORD != TYPE {
        return None;
    }
    let first = Pfn::new(offset / RECORD);
    match (old == FREE, new == FREE) {
        (false, true) => Some(Change::Freed(first)),
        (true, false) => Some(Change::Allocated(first)),
        _ => None,
    }
}
