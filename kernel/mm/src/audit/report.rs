//! What an audit found.

use core::fmt;

use crate::addr::{Pfn, VirtAddr};

/// Findings that a report keeps; further ones are only counted.
pub const MAX_FINDINGS: usize = 8;

/// What was checked when something was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Every section with RAM has struct pages.
    NoMemmap,
    /// A section without RAM has none.
    MemmapOfHole,
    /// A frame that is no RAM, in a section that has some, is reserved.
    HoleNotReserved,
    /// A page of memmap is mapped present, writable, no-execute, supervisor.
    MemmapRights,
    /// A frame has one owner.
    SecondOwner,
    /// A free frame is neither mapped as memmap nor a page table, and lies in one
    /// free block.
    FreeFrameInUse,
    /// A shared tail page is reached from folded blocks only.
    StrayTail,
    /// The frame is RAM.
    NotRam,
    /// The tails of a folded block are mapped by 4 KiB entries.
    FoldedLeaf,
    /// A block that is marked folded has a shared tail page for its node and order.
    NoTail,
    /// A tail's entry points to the shared tail page of the block's node and order.
    WrongTail,
    /// A tail's entry is present, read-only, no-execute, supervisor and not dirty.
    TailRights,
    /// Every record of a shared tail page is the tail's; this 8-byte word is not.
    TailContent(u64),
    /// A shared tail page has that page type.
    TailType,
    /// The ledger names one shared tail page for each node and order, 7 to 22.
    TailClaim,
    /// As many entries point to a shared tail page as the ledger claims.
    TailEntries,
    /// Every entry of a shared table is the one for its tail page; this one is not.
    TableContent(u64),
    /// A shared table has the page type of a table.
    TableType,
    /// A shared table maps tails of a folded block of its node and order, and nothing else.
    StrayTable,
    /// As many level-2 entries point to a shared table as the ledger claims.
    TableSlots,
    /// A block is naturally aligned, of order 0 to 22, within RAM of its node.
    BlockShape,
    /// Only a compound page's head is marked as folded.
    StrayFlag,
    /// A tail lies behind its head.
    OrphanTail,
    /// A tail's `compound_info` is the mask of its block.
    TailMask,
    /// Only a compound page's head is marked as having broken frames.
    StrayPoison,
    /// A list of broken frames names frames of its own folio, each node in use, and ends.
    PoisonList,
    /// Nothing is both writable and executable.
    WritableExecutable,
    /// Nothing is open to user mode.
    UserAccess,
    /// The sum that is named.
    Sum(&'static str),
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemmap => "RAM without struct pages",
            Self::MemmapOfHole => "struct pages for a hole",
            Self::HoleNotReserved => "a page of a hole that is not reserved",
            Self::MemmapRights => "rights of a page of memmap",
            Self::SecondOwner => "a frame with two owners",
            Self::FreeFrameInUse => "a free frame in use",
            Self::StrayTail => "a shared tail page reached from elsewhere",
            Self::NotRam => "a frame that is no RAM",
            Self::FoldedLeaf => "a folded block under a 2 MiB leaf",
            Self::NoTail => "a folded block without a shared tail page",
            Self::WrongTail => "frame of a tail's entry",
            Self::TailRights => "rights of a tail's entry",
            Self::TailContent(word) => {
                return write!(f, "word {word} of a shared tail page");
            }
            Self::TailType => "page type of a shared tail page",
            Self::TailClaim => "shared tail page of a node and order",
            Self::TailEntries => "entries for a shared tail page",
            Self::TableContent(entry) => {
                return write!(f, "entry {entry} of a shared table");
            }
            Self::TableType => "page type of a shared table",
            Self::StrayTable => "a shared table reached from elsewhere",
            Self::TableSlots => "slots for a shared table",
            Self::BlockShape => "order or alignment of a block",
            Self::StrayFlag => "a folded mark on a page that is no head",
            Self::OrphanTail => "a tail without a head",
            Self::TailMask => "compound_info of a tail",
            Self::StrayPoison => "a mark for broken frames on a page that is no head",
            Self::PoisonList => "list of broken frames of a folio",
            Self::WritableExecutable => "a page both writable and executable",
            Self::UserAccess => "a page open to user mode",
            Self::Sum(name) => name,
        })
    }
}

/// Where something was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// In what maps this address.
    Virt(VirtAddr),
    /// In or about this frame.
    Frame(Pfn),
    /// In the ledger.
    Ledger,
}

/// One thing that is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// Where.
    pub at: At,
    /// What should have been there: a count, a frame, bits or a word, by
    /// [`Finding::check`].
    pub expected: u64,
    /// What was there instead.
    pub found: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            at,
            expected,
            found,
        } = self;
        match at {
            At::Virt(at) => write!(f, "{check} at {:#018x}", at.as_u64())?,
            At::Frame(pfn) => write!(f, "{check} at pfn {:#x}", pfn.as_u64())?,
            At::Ledger => write!(f, "ledger: {check}")?,
        }
        match (check, at) {
            (_, At::Ledger) | (Check::TailEntries | Check::TableSlots, _) => {
                write!(f, ": claimed {expected}, found {found}")
            }
            (Check::MemmapRights | Check::TailRights, _) => {
                write!(f, ": expected entry bits {expected:#x}, found {found:#x}")
            }
            (Check::WrongTail, _) => write!(f, ": expected pfn {expected:#x}, found {found:#x}"),
            (
                Check::TailContent(_)
                | Check::TailType
                | Check::TailMask
                | Check::TableContent(_)
                | Check::TableType,
                _,
            ) => write!(f, ": expected {expected:#x}, found {found:#x}"),
            (
                Check::SecondOwner
                | Check::FreeFrameInUse
                | Check::StrayTail
                | Check::StrayTable
                | Check::NotRam,
                At::Virt(_),
            ) => write!(f, ": pfn {found:#x}"),
            _ => write!(f, ": found {found:#x}"),
        }
    }
}

/// Counts, and what was wrong. Printed, it is one line if nothing was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Sections with struct pages.
    pub sections: u64,
    /// Sections whose struct pages lie under one 2 MiB leaf.
    pub leaves: u64,
    /// Frames that hold struct pages of their own.
    pub memmap_pages: u64,
    /// Entries that point to a shared tail page: frames saved.
    pub saved: u64,
    /// Entries of folded blocks, behind the first, that point to a frame of their own.
    pub unshared: u64,
    /// Frames that their struct pages, or a list on their folio, call broken.
    pub poisoned: u64,
    /// Folded blocks.
    pub folded: u64,
    /// Shared tail pages.
    pub tails: u64,
    /// Last-level tables of the vmemmap, shared ones included, each once.
    pub tables: u64,
    /// Of these, the shared ones.
    pub shared_tables: u64,
    /// Slots of 2 MiB of struct pages that are mapped by one of these.
    pub shared_slots: u64,
    /// Tables of all levels, the vmemmap's included.
    pub page_tables: u64,
    /// Pages in free blocks.
    pub free_pages: u64,
    count: u64,
    findings: [Option<Finding>; MAX_FINDINGS],
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.count == 0
    }

    /// How many things were found.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first [`MAX_FINDINGS`] of them.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + '_ {
        self.findings.iter().flatten().copied()
    }

    pub(super) fn find(&mut self, check: Check, at: At, expected: u64, found: u64) {
        let finding = Finding {
            check,
            at,
            expected,
            found,
        };
        if let Some(free) = self.findings.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(finding);
        }
        self.count += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "audit: {} sections, {} memmap pages, {} saved by {} folded blocks and {} tails, \
             {} of {} page tables, {} free pages",
            self.sections,
            self.memmap_pages,
            self.saved,
            self.folded,
            self.tails,
            self.tables,
            self.page_tables,
            self.free_pages,
        )?;
        if self.poisoned > 0 {
            write!(f, ", {} broken", self.poisoned)?;
        }
        if self.shared_slots > 0 {
            let (slots, tables) = (self.shared_slots, self.shared_tables);
            write!(f, ", {slots} slots by {tables} shared tables")?;
        }
        if self.unshared > 0 {
            write!(f, ", {} unshared", self.unshared)?;
        }
        f.write_str(": ")?;
        if self.is_ok() {
            return write!(f, "ok");
        }
        write!(f, "{} findings", self.count)?;
        for finding in self.findings() {
            write!(f, "\naudit: {finding}")?;
        }
        if self.count > MAX_FINDINGS as u64 {
            write!(f, "\naudit: and {} more", self.count - MAX_FINDINGS as u64)?;
        }
        Ok(())
    }
}
