//! What the machine catches.

use core::fmt;

use mm::addr::{Pfn, PhysAddr, VirtAddr};
use mm::machine::Fault;

/// How memory was being used when something was caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// By physical address, as the kernel uses its direct map.
    Physical,
    /// Through a translation of this virtual address.
    Virtual(VirtAddr),
    /// By the table walk for this virtual address.
    Walk(VirtAddr),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Physical => write!(f, "by physical address"),
            Self::Virtual(at) => write!(f, "through a translation of {at:?}"),
            Self::Walk(at) => write!(f, "by the table walk for {at:?}"),
        }
    }
}

/// A broken rule. The machine records it and panics with its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// The frame is outside the RAM that was configured.
    NotRam {
        /// The frame.
        pfn: Pfn,
        /// How it was reached.
        by: Access,
    },
    /// The frame has been freed and not been allocated since.
    UseAfterFree {
        /// The frame.
        pfn: Pfn,
        /// How it was reached.
        by: Access,
    },
    /// The frame was freed while a CPU could still reach it without a walk.
    FreedWhileCached {
        /// First of the frames freed together.
        first: Pfn,
        /// How many.
        pages: u64,
        /// Whose cache.
        cpu: usize,
        /// The page whose translation is stale, or `None` if one of the frames is
        /// a table in the paging-structure cache.
        at: Option<VirtAddr>,
    },
    /// The address is not a multiple of the access size.
    Misaligned {
        /// The address, physical or virtual.
        at: u64,
        /// Bytes accessed.
        size: u64,
    },
    /// A load or store that hardware answers with #PF.
    PageFault(Fault),
    /// An entry with a bit set that must be zero: #PF with the reserved bit.
    ReservedBits {
        /// Where the entry lies.
        entry: PhysAddr,
        /// Its level: 4 at the root, 1 for a last-level table.
        level: u8,
        /// The entry.
        raw: u64,
        /// The offending bits.
        bits: u64,
    },
    /// Machine check: two translations of different size for one address.
    MultiHit {
        /// The address.
        at: VirtAddr,
        /// Bytes of the page that is cached.
        cached: u64,
        /// Bytes of the page that the tables have.
        mapped: u64,
    },
    /// CPUs were waited for with interrupts off: two that do so at once never
    /// come back.
    WaitWithInterruptsOff {
        /// The waiting CPU.
        cpu: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRam { pfn, by } => write!(f, "no RAM at {pfn:?}, used {by}"),
            Self::UseAfterFree { pfn, by } => write!(f, "use after free of {pfn:?}, {by}"),
            Self::FreedWhileCached {
                first,
                pages,
                cpu,
                at,
            } => {
                write!(
                    f,
                    "{first:?} (+{pages}) freed while CPU {cpu} still caches "
                )?;
                match at {
                    Some(at) => write!(f, "a translation of {at:?} to it"),
                    None => write!(f, "it as a table"),
                }
            }
            Self::Misaligned { at, size } => {
                write!(
                    f,
                    "{size}-byte access to {at:#x}, which is not a multiple of it"
                )
            }
            Self::PageFault(Fault { at, code }) => {
                let what = if code & 1 == 0 {
                    "not-present page"
                } else {
                    "protection"
                };
                let how = if code & 2 == 0 { "read" } else { "write" };
                write!(
                    f,
                    "page fault: {how} at {at:?}, {what}, error code {code:#x}"
                )
            }
            Self::ReservedBits {
                entry,
                level,
                raw,
                bits,
            } => write!(
                f,
                "reserved bits {bits:#x} are set in the level-{level} entry {raw:#x} at {entry:?}"
            ),
            Self::MultiHit { at, cached, mapped } => write!(
                f,
                "machine check: {at:?} is cached in a page of {cached:#x} bytes and mapped by one of {mapped:#x}"
            ),
            Self::WaitWithInterruptsOff { cpu } => {
                write!(f, "CPU {cpu} waits for other CPUs with interrupts off")
            }
        }
    }
}
