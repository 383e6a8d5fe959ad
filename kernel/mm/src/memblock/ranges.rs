//! Sets of addresses or frames as sorted ranges, in a table of fixed size.

use arrayvec::ArrayVec;

use crate::addr::{Pfn, PhysAddr};

/// What a range can be made of.
pub(super) trait Point: Copy + Ord {
    /// How far `to` lies above `self`, which is not above it.
    fn distance(self, to: Self) -> u64;
}

impl Point for Pfn {
    fn distance(self, to: Self) -> u64 {
        to.as_u64() - self.as_u64()
    }
}

impl Point for PhysAddr {
    fn distance(self, to: Self) -> u64 {
        to.as_u64() - self.as_u64()
    }
}

/// A half-open range; empty unless `start < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span<T> {
    pub(super) start: T,
    pub(super) end: T,
}

impl<T: Point> Span<T> {
    pub(super) const fn new(start: T, end: T) -> Self {
        Self { start, end }
    }

    pub(super) fn is_empty(self) -> bool {
        self.start >= self.end
    }

    pub(super) fn len(self) -> u64 {
        if self.is_empty() {
            0
        } else {
            self.start.distance(self.end)
        }
    }
}

/// The table has no room for one more range; the set is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// A set kept as ranges that are sorted, not empty, and neither overlap nor touch.
#[derive(Clone, Debug)]
pub(super) struct RangeSet<T, const N: usize> {
    spans: ArrayVec<Span<T>, N>,
}

impl<T: Point, const N: usize> RangeSet<T, N> {
    pub(super) const fn new() -> Self {
        assert!(N > 0, "a set needs room for one range");
        Self {
            spans: ArrayVec::new_const(),
        }
    }

    pub(super) fn as_slice(&self) -> &[Span<T>] {
        &self.spans
    }

    /// Adds all of `span`.
    pub(super) fn insert(&mut self, span: Span<T>) -> Result<(), Full> {
        if span.is_empty() {
            return Ok(());
        }
        // Those that overlap or touch it become one with it.
        let first = self.spans.partition_point(|s| s.end < span.start);
        let behind = self.spans.partition_point(|s| s.start <= span.end);
        if first == behind {
            return self.spans.try_insert(first, span).map_err(|_| Full);
        }
        self.spans[first] = Span {
            start: self.spans[first].start.min(span.start),
            end: self.spans[behind - 1].end.max(span.end),
        };
        self.spans.drain(first + 1..behind);
        Ok(())
    }

    /// Takes all of `span` out.
    pub(super) fn remove(&mut self, span: Span<T>) -> Result<(), Full> {
        if span.is_empty() {
            return Ok(());
        }
        let first = self.spans.partition_point(|s| s.end <= span.start);
        let behind = self.spans.partition_point(|s| s.start < span.end);
        if first == behind {
            return Ok(());
        }
        let left = Span::new(self.spans[first].start, span.start);
        let right = Span::new(span.end, self.spans[behind - 1].end);
        let kept = [left, right].into_iter().filter(|s| !s.is_empty());
        if self.spans.len() - (behind - first) + kept.clone().count() > N {
            return Err(Full);
        }
        self.spans.drain(first..behind);
        for (n, span) in kept.enumerate() {
            self.spans.insert(first + n, span);
        }
        Ok(())
    }

    /// Adds `span`; if there is no room, the shortest range is left out instead.
    /// Returns what is not in the set although it was to be.
    pub(super) fn insert_evicting(&mut self, span: Span<T>) -> Option<Span<T>> {
        self.insert(span).err()?;
        let (at, shortest) = self
            .spans
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, s)| s.len())?;
        if shortest.len() >= span.len() {
            return Some(span);
        }
        self.spans.remove(at);
        let room = self.insert(span);
        debug_assert!(room.is_ok(), "one place was made");
        Some(shortest)
    }

    /// Adds `span`; if there is no room, the narrowest gap between two ranges is
    /// filled up. Returns what is in the set although nobody put it there.
    pub(super) fn insert_bridging(&mut self, span: Span<T>) -> Option<Span<T>> {
        self.insert(span).err()?;
        let at = self.spans.partition_point(|s| s.end < span.start);
        let below = at
            .checked_sub(1)
            .map(|n| Span::new(self.spans[n].end, span.start));
        let above = self
            .spans
            .get(at)
            .map(|next| Span::new(span.end, next.start));
        let between = self
            .spans
            .windows(2)
            .map(|pair| Span::new(pair[0].end, pair[1].start));
        let gap = between
            .chain(below)
            .chain(above)
            .min_by_key(|gap| gap.len())?;
        // The gap touches a range, so it needs no room. If it lies beside `span`,
        // `span` then touches that range too; any other makes two ranges one.
        let room = self.insert(gap).and_then(|()| self.insert(span));
        debug_assert!(room.is_ok(), "one place was made");
        Some(gap)
    }

    /// Whether all of `span` is in the set.
    pub(super) fn contains(&self, span: Span<T>) -> bool {
        self.touching(span)
            .first()
            .is_some_and(|s| s.start <= span.start && span.end <= s.end)
    }

    /// The ranges that have something in common with `span`.
    fn touching(&self, span: Span<T>) -> &[Span<T>] {
        if span.is_empty() {
            return &[];
        }
        let first = self.spans.partition_point(|s| s.end <= span.start);
        let behind = self.spans.partition_point(|s| s.start < span.end);
        &self.spans[first..behind]
    }

    /// What `span` and the set have in common, in order.
    pub(super) fn within(
        &self,
        span: Span<T>,
    ) -> impl DoubleEndedIterator<Item = Span<T>> + Clone + use<'_, T, N> {
        self.touching(span)
            .iter()
            .map(move |s| Span::new(s.start.max(span.start), s.end.min(span.end)))
    }

    /// What of `span` is not in the set, in order.
    pub(super) fn gaps(
        &self,
        span: Span<T>,
    ) -> impl DoubleEndedIterator<Item = Span<T>> + Clone + use<'_, T, N> {
        let taken = self.touching(span);
        (0..=taken.len())
            .map(move |n| {
                let below = n.checked_sub(1).map_or(span.start, |n| taken[n].end);
                let above = taken.get(n).map_or(span.end, |s| s.start);
                Span::new(below, above)
            })
            .filter(|gap| !gap.is_empty())
    }
}
