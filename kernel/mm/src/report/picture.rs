//! The vmemmap as text.

use core::fmt::{self, Write as _};

use super::Size;
use crate::addr::Order;
use crate::page::Memmap;

/// What is behind one 2 MiB piece of the vmemmap, the struct pages of 128 MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Slot {
    /// No struct pages: no RAM.
    Hole,
    /// One 2 MiB leaf, as populated at boot.
    Leaf,
    /// 4 KiB pages, none of them shared.
    Split,
    /// Some tails are folded.
    Partly,
    /// All that can be is folded: the block is one huge page, or all are.
    Folded,
    /// In a picture that is scaled down: slots of different kinds.
    Mixed,
}

impl Slot {
    /// A slot of 4 KiB pages of which so many are shared tails. It is folded if no
    /// more than the head's frame of each 2 MiB block is left.
    #[must_use]
    pub const fn of_shared(shared: u64) -> Self {
        match shared {
            0 => Self::Split,
            1..MOST_SHARED => Self::Partly,
            _ => Self::Folded,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Hole => '.',
            Self::Leaf => '#',
            Self::Split => '+',
            Self::Partly => '-',
            Self::Folded => '_',
            Self::Mixed => '?',
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hole => "hole",
            Self::Leaf => "leaf",
            Self::Split => "split",
            Self::Partly => "partly folded",
            Self::Folded => "folded",
            Self::Mixed => "mixed",
        }
    }

    const ALL: [Self; 6] = [
        Self::Leaf,
        Self::Split,
        Self::Partly,
        Self::Folded,
        Self::Hole,
        Self::Mixed,
    ];
}

/// Shared entries in a slot whose 64 blocks of 2 MiB are all folded: 7 each.
const MOST_SHARED: u64 = 64 * 7;
/// Characters on a line: 8 GiB if one is a slot.
const WIDTH: usize = 64;
/// The same as a count of slots.
const WIDTH_SLOTS: u64 = 64;
/// Most characters in a picture. Above, one stands for several slots.
const MOST: u64 = 64 * WIDTH_SLOTS;

/// One character a slot; `slot` says what slot `n` is. Lines that repeat the one
/// before are counted, not printed, and a machine of more than 512 GiB is scaled
/// down. Displays as several lines, without a newline at the end.
#[derive(Clone, Copy)]
pub struct Picture<F> {
    /// Slots from frame 0 to the end of RAM.
    pub slots: u64,
    /// The kind of each.
    pub slot: F,
}

impl<F> fmt::Debug for Picture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// The characters of a line.
type Line = [Option<Slot>; WIDTH];

impl<F: Fn(u64) -> Slot> Picture<F> {
    /// Slots that one character stands for.
    const fn scale(&self) -> u64 {
        self.slots.div_ceil(MOST).next_power_of_two()
    }

    fn character(&self, n: u64) -> Option<Slot> {
        let first = n * self.scale();
        let behind = (first + self.scale()).min(self.slots);
        let mut group = (first..behind).map(&self.slot);
        let slot = group.next()?;
        Some(if group.all(|other| other == slot) {
            slot
        } else {
            Slot::Mixed
        })
    }

    fn line(&self, n: u64) -> Line {
        let mut at = n * WIDTH_SLOTS;
        [(); WIDTH].map(|()| {
            at += 1;
            self.character(at - 1)
        })
    }
}

impl<F: Fn(u64) -> Slot> fmt::Display for Picture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale();
        let bytes = Memmap::SECTION.bytes() * scale;
        write!(
            f,
            "vmemmap: one character for {} of RAM, {} of struct pages",
            Size(bytes),
            Size(Order::PMD.bytes() * scale)
        )?;
        let gib_per_line = (bytes * WIDTH_SLOTS) >> 30;
        let mut seen = [false; Slot::ALL.len()];
        let mut last: Option<Line> = None;
        let mut repeats = 0u64;
        for n in 0..self.slots.div_ceil(scale * WIDTH_SLOTS) {
            let line = self.line(n);
            if last == Some(line) {
                repeats += 1;
                continue;
            }
            write_repeats(f, repeats)?;
            (repeats, last) = (0, Some(line));
            write!(f, "\n{:>6} GiB |", n * gib_per_line)?;
            for slot in line.into_iter().flatten() {
                seen[slot as usize] = true;
                f.write_char(slot.letter())?;
            }
            f.write_char('|')?;
        }
        write_repeats(f, repeats)?;
        f.write_str("\n          ")?;
        for slot in Slot::ALL.iter().filter(|slot| seen[**slot as usize]) {
            write!(f, "  {} {}", slot.letter(), slot.name())?;
        }
        Ok(())
    }
}

fn write_repeats(f: &mut fmt::Formatter<'_>, repeats: u64) -> fmt::Result {
    match repeats {
        0 => Ok(()),
        1 => f.write_str("\n           the same once more"),
        n => write!(f, "\n           the same {n} times more"),
    }
}
