//! One table entry, as the processor reads it.

use bitflags::bitflags;

use crate::addr::{PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, PhysAddr, VirtAddr};

bitflags! {
    /// The bits of an entry beside the address (Intel SDM volume 3, 4.5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PteFlags: u64 {
        /// The entry maps or points to something.
        const PRESENT = 1 << 0;
        /// Writes are allowed, if every level allows them.
        const WRITABLE = 1 << 1;
        /// User mode is allowed. Nothing in this kernel has it.
        const USER = 1 << 2;
        /// Writes go straight to memory.
        const WRITE_THROUGH = 1 << 3;
        /// Not cached.
        const NO_CACHE = 1 << 4;
        /// The processor has used the entry.
        const ACCESSED = 1 << 5;
        /// The processor has written through the entry.
        const DIRTY = 1 << 6;
        /// At levels 2 and 3: a leaf, not a pointer to a table.
        #[doc(alias = "_PAGE_PSE")]
        const LEAF = 1 << 7;
        /// Survives a load of CR3.
        const GLOBAL = 1 << 8;
        /// Instructions may not be fetched.
        const NO_EXECUTE = 1 << 63;
    }
}

impl PteFlags {
    /// Data, readable and writable. Accessed and dirty are set beforehand, so
    /// that the processor never has to.
    #[doc(alias = "PAGE_KERNEL")]
    pub const KERNEL: Self = Self::PRESENT
        .union(Self::WRITABLE)
        .union(Self::ACCESSED)
        .union(Self::DIRTY)
        .union(Self::GLOBAL)
        .union(Self::NO_EXECUTE);
    /// Data, readable only. Dirty is clear, and stays so while INV-4 holds.
    #[doc(alias = "PAGE_KERNEL_RO")]
    pub const KERNEL_RO: Self = Self::PRESENT
        .union(Self::ACCESSED)
        .union(Self::GLOBAL)
        .union(Self::NO_EXECUTE);
    /// Instructions, readable and executable, not writable.
    #[doc(alias = "PAGE_KERNEL_ROX")]
    pub const KERNEL_ROX: Self = Self::PRESENT.union(Self::ACCESSED).union(Self::GLOBAL);
    /// A pointer to a lower table; the leaves decide what is allowed.
    #[doc(alias = "_KERNPG_TABLE")]
    pub const TABLE: Self = Self::PRESENT.union(Self::WRITABLE).union(Self::ACCESSED);
}

/// A page table entry of any level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Pte(u64);

impl Pte {
    /// Maps nothing.
    pub const NONE: Self = Self(0);

    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// An entry for the frame or table at `pfn`.
    #[inline]
    #[must_use]
    pub const fn new(pfn: Pfn, flags: PteFlags) -> Self {
        Self(pfn.phys().as_u64() | flags.bits())
    }

    /// From the 8 bytes in the table.
    #[inline]
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The 8 bytes.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The frame or table it points to.
    #[inline]
    #[must_use]
    #[doc(alias = "pte_pfn")]
    pub const fn pfn(self) -> Pfn {
        PhysAddr::new(self.0 & Self::ADDRESS).pfn()
    }

    /// All bits beside the address.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> PteFlags {
        PteFlags::from_bits_retain(self.0 & !Self::ADDRESS)
    }

    /// Whether it maps or points to something.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & PteFlags::PRESENT.bits() != 0
    }

    /// Whether, at `level`, it maps memory rather than a table.
    #[inline]
    #[must_use]
    #[doc(alias = "pmd_leaf")]
    pub const fn is_leaf(self, level: Level) -> bool {
        let leaf_bit = self.0 & PteFlags::LEAF.bits() != 0;
        self.is_present() && (matches!(level, Level::Pte) || leaf_bit)
    }
}

/// A level of the tables, by the name of its entries in Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Level 1: an entry maps 4 KiB.
    Pte = 1,
    /// Level 2: an entry covers 2 MiB.
    Pmd = 2,
    /// Level 3: an entry covers 1 GiB.
    Pud = 3,
    /// Level 4: an entry covers 512 GiB.
    #[doc(alias = "P4D")]
    Pgd = 4,
}

impl Level {
    /// Bytes of address space behind one entry.
    #[inline]
    #[must_use]
    pub const fn span(self) -> u64 {
        match self {
            Self::Pte => PAGE_SIZE,
            Self::Pmd => PMD_SIZE,
            Self::Pud => PUD_SIZE,
            Self::Pgd => PUD_SIZE * 512,
        }
    }

    /// The index of the entry for `at` in a table of this level.
    #[inline]
    #[must_use]
    pub const fn index(self, at: VirtAddr) -> u64 {
        (at.as_u64() / self.span()) % 512
    }

    /// The next level towards the leaves; `None` below the last.
    #[inline]
    #[must_use]
    pub const fn down(self) -> Option<Self> {
        match self {
            Self::Pte => None,
            Self::Pmd => Some(Self::Pte),
            Self::Pud => Some(Self::Pmd),
            Self::Pgd => Some(Self::Pud),
        }
    }
}
