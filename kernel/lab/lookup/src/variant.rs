//! A memmap that is measured.

use mm::addr::VirtAddr;
use mm::machine::Memory as _;
use mm::page::encoding::{Encoding, PageShape};

use crate::chase::{self, Chain, Chase, Pattern};
use crate::mapping::Mapping;
use crate::population::Span;
use native::Machine;

/// One memmap, and the loops that look pages up in it.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) encoding: &'static str,
    /// Size of a struct page in bytes.
    pub(super) size: u64,
    pub(super) mapping: Mapping,
    pub(super) descriptor: bool,
    pub(super) memmap: VirtAddr,
    /// Bytes of it that leaves of 2 MiB map.
    pub(super) leaves: u64,
    /// Byte offset of the flags in a folio's data.
    pub(super) flags: u64,
    loops: [[Chase; 2]; 2],
    /// The same lookup through the machine.
    pub(super) finds: fn(&Machine, VirtAddr) -> VirtAddr,
}

impl Variant {
    pub(super) fn of<E: Encoding, S: PageShape>(
        memmap: VirtAddr,
        leaves: u64,
        mapping: Mapping,
        mixed: bool,
    ) -> Self {
        let both = |pattern| Chain::ALL.map(|chain| chase::of::<E, S>(pattern, chain, mixed));
        Self {
            encoding: E::NAME,
            size: S::SIZE,
            mapping,
            descriptor: E::DESCRIPTOR,
            memmap,
            leaves,
            flags: chase::flags::<E, S>(),
            loops: [both(Pattern::Sequential), both(Pattern::Random)],
            finds: |m, page| E::folio::<S>(&|at| m.load64(at), page),
        }
    }

    /// The loop alone.
    pub(super) fn floor() -> Self {
        let both = |pattern| Chain::ALL.map(|chain| chase::floor(pattern, chain));
        Self {
            encoding: "loop",
            size: 0,
            mapping: Mapping::Small,
            descriptor: false,
            memmap: VirtAddr::NULL,
            leaves: 0,
            flags: 0,
            loops: [both(Pattern::Sequential), both(Pattern::Random)],
            finds: |_, page| page,
        }
    }

    /// Encoding, size of struct page, and how it is mapped if not by 2 MiB pages.
    pub(super) fn name(&self) -> String {
        let mapping = match self.mapping {
            Mapping::Large => "",
            Mapping::Small => "+4k",
            Mapping::Folded => "+hvo",
        };
        match self.size {
            0 => self.encoding.to_owned(),
            size => format!("{}/{size}{mapping}", self.encoding),
        }
    }

    /// The same under another name.
    pub(super) fn called(self, encoding: &'static str) -> Self {
        Self { encoding, ..self }
    }

    /// Looks `lookups` pages up; the sum of the words found.
    pub(super) fn run(
        &self,
        pattern: Pattern,
        chain: Chain,
        span: Span,
        lookups: u64,
        start: u64,
    ) -> u64 {
        self.loops[pattern as usize][chain as usize](self.memmap, span, lookups, start)
    }
}
