//! Plain maps of what should be there: the first oracle.

use std::collections::{BTreeMap, BTreeSet};

use mm::addr::{Order, Pfn, PfnRange, VirtRange};

use crate::machine::EmulatedMachine;
use crate::raw;

/// What a page table should map: non-overlapping leaves by address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageTable {
    leaves: BTreeMap<u64, Mapping>,
}

/// One leaf of a [`PageTable`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Physical address of the first byte.
    pub pa: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
}

impl PageTable {
    /// Whether nothing is mapped in `va..va + size`.
    #[must_use]
    pub fn is_free(&self, va: u64, size: u64) -> bool {
        self.leaves
            .range(..va.saturating_add(size))
            .next_back()
            .is_none_or(|(start, leaf)| start + leaf.size <= va)
    }

    /// Maps, if nothing is in the way; whether it was mapped.
    pub fn map(&mut self, va: u64, mapping: Mapping) -> bool {
        let free = self.is_free(va, mapping.size);
        if free {
            self.leaves.insert(va, mapping);
        }
        free
    }

    /// The leaf that covers `va`, and its address.
    #[must_use]
    pub fn covering(&self, va: u64) -> Option<(u64, Mapping)> {
        let (start, leaf) = self.leaves.range(..=va).next_back()?;
        (va - start < leaf.size).then_some((*start, *leaf))
    }

    /// Unmaps the leaf of exactly `size` that covers `va`.
    pub fn unmap(&mut self, va: u64, size: u64) -> Option<Mapping> {
        let (start, leaf) = self.covering(va)?;
        (leaf.size == size)
            .then(|| self.leaves.remove(&start))
            .flatten()
    }

    /// Replaces the leaf that covers `va` by 512 smaller ones.
    pub fn split(&mut self, va: u64) {
        let Some((start, leaf)) = self.covering(va) else {
            return;
        };
        self.leaves.remove(&start);
        let size = leaf.size / 512;
        for n in 0..512 {
            let small = Mapping {
                pa: leaf.pa + n * size,
                size,
                ..leaf
            };
            self.leaves.insert(start + n * size, small);
        }
    }

    /// Leaves, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Mapping)> + '_ {
        self.leaves.iter().map(|(va, leaf)| (*va, *leaf))
    }

    /// Compares with what the table bytes say about `range`.
    ///
    /// # Panics
    /// At the first difference.
    pub fn assert_matches(&self, m: &EmulatedMachine, root: Pfn, range: VirtRange) {
        let real: Vec<_> = raw::leaves(m, root, range)
            .into_iter()
            .map(|leaf| {
                let raw::Leaf {
                    pa,
                    size,
                    writable,
                    executable,
                    ..
                } = leaf;
                (
                    leaf.va,
                    Mapping {
                        pa,
                        size,
                        writable,
                        executable,
                    },
                )
            })
            .collect();
        let model: Vec<_> = self.iter().collect();
        for (real, model) in real.iter().zip(&model) {
            assert_eq!(real, model, "left: the tables, right: the model");
        }
        assert_eq!(
            real.len(),
            model.len(),
            "leaves in the tables and in the model"
        );
    }
}

/// The free frames of one node, one by one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FreeFrames {
    frames: BTreeSet<u64>,
}

impl FreeFrames {
    /// Adds frames that were not free.
    ///
    /// # Panics
    /// If one was.
    pub fn insert(&mut self, range: PfnRange) {
        for pfn in range.iter() {
            assert!(self.frames.insert(pfn.as_u64()), "{pfn:?} was free already");
        }
    }

    /// Takes frames that were free.
    ///
    /// # Panics
    /// If one was not.
    pub fn remove(&mut self, range: PfnRange) {
        for pfn in range.iter() {
            assert!(self.frames.remove(&pfn.as_u64()), "{pfn:?} was not free");
        }
    }

    /// Whether frame number `pfn` is free.
    #[must_use]
    pub fn contains(&self, pfn: u64) -> bool {
        self.frames.contains(&pfn)
    }

    /// How many are free.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The only way to cut them into naturally aligned blocks so that no two are
    /// buddies of one order: first frame and order, lowest first.
    #[must_use]
    pub fn blocks(&self) -> BTreeMap<u64, u8> {
        let mut blocks = BTreeMap::new();
        let mut frames = self.frames.iter().copied().peekable();
        while let Some(first) = frames.next() {
            let mut end = first + 1;
            while frames.next_if_eq(&end).is_some() {
                end += 1;
            }
            let mut at = first;
            while at < end {
                let order = (0..=Order::MAX.get())
                    .rev()
                    .find(|order| at % (1 << order) == 0 && at + (1 << order) <= end)
                    .expect("a single frame is a block");
                blocks.insert(at, order);
                at += 1 << order;
            }
        }
        blocks
    }
}
