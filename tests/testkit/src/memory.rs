//! Sparse physical memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mm::addr::{Pfn, PfnRange, PhysAddr};

use crate::violation::{Access, Violation};

/// What RAM holds that was never written. Real RAM is not zero after power-on;
/// read as a table entry this one is present and has a reserved bit set.
pub const FRESH_POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;
/// What a freed frame holds. Also a present entry with a reserved bit set.
#[doc(alias = "POISON_FREE")]
pub const FREED_POISON: u64 = 0x6b6b_6b6b_6b6b_6b6b;

const WORDS: usize = 512;
/// Frames in a chunk, the unit in which the host allocates bookkeeping.
const CHUNK: usize = 512;
const CHUNK_PAGES: u64 = CHUNK as u64;

type Frame = [AtomicU64; WORDS];
type Chunk = [OnceLock<Box<Frame>>; CHUNK];

/// One contiguous range of RAM.
#[derive(Debug)]
struct Bank {
    range: PfnRange,
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    /// One bit a frame.
    freed: Box<[AtomicU64]>,
}

impl Bank {
    fn new(range: PfnRange) -> Self {
        Self {
            range,
            chunks: (0..range.pages().div_ceil(CHUNK_PAGES))
                .map(|_| OnceLock::new())
                .collect(),
            freed: std::iter::repeat_with(AtomicU64::default)
                .take(to_usize(range.pages().div_ceil(64)))
                .collect(),
        }
    }

    fn index(&self, pfn: Pfn) -> u64 {
        pfn.as_u64() - self.range.start.as_u64()
    }

    fn frame(&self, pfn: Pfn) -> &Frame {
        let n = self.index(pfn);
        self.chunks[to_usize(n / CHUNK_PAGES)]
            .get_or_init(|| Box::new([const { OnceLock::new() }; CHUNK]))[to_usize(n % CHUNK_PAGES)]
        .get_or_init(|| Box::new([const { AtomicU64::new(FRESH_POISON) }; WORDS]))
    }

    /// The frame if anything was ever written to it or read from it.
    fn existing(&self, pfn: Pfn) -> Option<&Frame> {
        let n = self.index(pfn);
        let chunk = self.chunks[to_usize(n / CHUNK_PAGES)].get()?;
        chunk[to_usize(n % CHUNK_PAGES)].get().map(|frame| &**frame)
    }

    fn freed_bit(&self, pfn: Pfn) -> (&AtomicU64, u64) {
        let n = self.index(pfn);
        (&self.freed[to_usize(n / 64)], 1 << (n % 64))
    }

    fn is_freed(&self, pfn: Pfn) -> bool {
        let (word, bit) = self.freed_bit(pfn);
        word.load(Ordering::Acquire) & bit != 0
    }
}

/// All RAM. Frames come into being when first touched.
#[derive(Debug)]
pub(crate) struct Memory {
    /// By address, without overlap.
    banks: Vec<Bank>,
}

impl Memory {
    pub(crate) fn new(mut ranges: Vec<PfnRange>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| range.start);
        for pair in ranges.windows(2) {
            assert!(
                pair[0].end <= pair[1].start,
                "RAM given twice: {:?}",
                pair[1]
            );
        }
        Self {
            banks: ranges.into_iter().map(Bank::new).collect(),
        }
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = PfnRange> + '_ {
        self.banks.iter().map(|bank| bank.range)
    }

    fn bank(&self, pfn: Pfn) -> Option<&Bank> {
        self.banks.iter().find(|bank| bank.range.contains(pfn))
    }

    /// The word at `at`, in a frame that is RAM and in use.
    pub(crate) fn word(&self, at: PhysAddr, by: Access) -> Result<&AtomicU64, Violation> {
        if !at.as_u64().is_multiple_of(8) {
            return Err(Violation::Misaligned {
                at: at.as_u64(),
                size: 8,
            });
        }
        let pfn = at.pfn();
        Ok(&self.frame(pfn, by)?[to_usize(at.as_u64() / 8) % WORDS])
    }

    /// A frame that is RAM and in use.
    pub(crate) fn frame(&self, pfn: Pfn, by: Access) -> Result<&Frame, Violation> {
        let bank = self.bank(pfn).ok_or(Violation::NotRam { pfn, by })?;
        if bank.is_freed(pfn) {
            return Err(Violation::UseAfterFree { pfn, by });
        }
        Ok(bank.frame(pfn))
    }

    /// What is at `at`, whether freed or not, without bringing the frame into
    /// being; `None` if it is not RAM. For oracles.
    pub(crate) fn peek(&self, at: PhysAddr) -> Option<u64> {
        let bank = self.bank(at.pfn())?;
        Some(bank.existing(at.pfn()).map_or(FRESH_POISON, |frame| {
            frame[to_usize(at.as_u64() / 8) % WORDS].load(Ordering::Acquire)
        }))
    }

    /// Marks frames as freed and poisons what was in them.
    pub(crate) fn mark_freed(&self, first: Pfn, pages: u64) -> Result<(), Violation> {
        for pfn in PfnRange::new(first, first.offset(pages)).iter() {
            let by = Access::Physical;
            let bank = self.bank(pfn).ok_or(Violation::NotRam { pfn, by })?;
            let (word, bit) = bank.freed_bit(pfn);
            word.fetch_or(bit, Ordering::AcqRel);
            if let Some(frame) = bank.existing(pfn) {
                for word in frame {
                    word.store(FREED_POISON, Ordering::Release);
                }
            }
        }
        Ok(())
    }

    /// Marks frames as in use again. They keep the poison.
    pub(crate) fn mark_allocated(&self, first: Pfn, pages: u64) -> Result<(), Violation> {
        for pfn in PfnRange::new(first, first.offset(pages)).iter() {
            let by = Access::Physical;
            let bank = self.bank(pfn).ok_or(Violation::NotRam { pfn, by })?;
            let (word, bit) = bank.freed_bit(pfn);
            word.fetch_and(!bit, Ordering::AcqRel);
        }
        Ok(())
    }

    pub(crate) fn is_freed(&self, pfn: Pfn) -> bool {
        self.bank(pfn).is_some_and(|bank| bank.is_freed(pfn))
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("fits the host")
}
