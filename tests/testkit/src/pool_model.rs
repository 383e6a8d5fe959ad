//! What the counters of a pool of huge pages on two nodes may be after each operation:
//! a plain model for property tests, which knows nothing of the pools' code.

use std::collections::BTreeSet;

use mm::addr::NodeId;
use mm::hugetlb::Hstate;

use crate::EmulatedMachine;

/// Nodes of the machines that the model is for.
pub const NODES: usize = 2;

/// Node number `node`.
///
/// # Panics
/// If there cannot be one.
#[must_use]
pub fn node_id(node: usize) -> NodeId {
    NodeId::of(u8::try_from(node).expect("few nodes"))
}

/// What the counters of one size may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Counters {
    /// Folios by node.
    pub nr: [u64; NODES],
    /// Free ones.
    pub free: [u64; NODES],
    /// Surplus ones.
    pub surplus: [u64; NODES],
    /// Promises, of all nodes.
    pub resv: u64,
}

impl Counters {
    /// What they are now.
    #[must_use]
    pub fn read(m: &EmulatedMachine, h: &Hstate) -> Self {
        let mut read = Self {
            resv: h.resv(m),
            ..Self::default()
        };
        for node in 0..NODES {
            let counts = h.counts(m, node_id(node));
            read.nr[node] = counts.nr;
            read.free[node] = counts.free;
            read.surplus[node] = counts.surplus;
        }
        read
    }

    /// Free and promised to nobody.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free.iter().sum::<u64>().saturating_sub(self.resv)
    }

    /// In use or promised: Linux compares it with what stays, though surplus covers
    /// some of it.
    pub fn needed(&self) -> u64 {
        self.nr.iter().sum::<u64>() - self.available()
    }

    /// Surplus folios of both nodes.
    #[must_use]
    pub fn surplus(&self) -> u64 {
        self.surplus.iter().sum()
    }

    /// What stays on `node`.
    #[must_use]
    pub fn persistent_on(&self, node: usize) -> u64 {
        self.nr[node] - self.surplus[node]
    }

    /// What stays, on both nodes.
    #[must_use]
    pub fn persistent(&self) -> u64 {
        (0..NODES).map(|node| self.persistent_on(node)).sum()
    }

    /// `count` new free folios on `node`.
    pub fn add(&mut self, node: usize, count: u64) {
        self.nr[node] += count;
        self.free[node] += count;
    }

    /// A free folio that nobody was promised goes, if there is one of that kind.
    pub fn remove(&mut self, node: usize, surplus: bool) -> bool {
        let has = if surplus {
            self.surplus[node]
        } else {
            self.persistent_on(node)
        };
        if has == 0 || self.free[node] == 0 || self.available() == 0 {
            return false;
        }
        self.nr[node] -= 1;
        self.free[node] -= 1;
        self.surplus[node] -= u64::from(surplus);
        true
    }

    /// The last reference to a folio of `node` is dropped.
    pub fn put(&mut self, node: usize) {
        if self.surplus[node] > 0 {
            self.nr[node] -= 1;
            self.surplus[node] -= 1;
        } else {
            self.free[node] += 1;
        }
    }
}

/// All that the counters may be: whose turn is next is not known, nor what is stuck.
#[derive(Clone, Debug)]
pub struct Model {
    /// All that they may be.
    pub may: BTreeSet<Counters>,
    /// Surplus folios that there may be.
    pub overcommit: u64,
    /// Some free surplus may be stuck, and go when others are put.
    pub loose: bool,
}

impl Model {
    /// Nodes of `asked`, or all in turn from either one, say yes `count` times to `visit`
    /// or do not any more.
    pub fn turns(
        &mut self,
        asked: Option<usize>,
        count: impl Fn(&Counters) -> u64,
        visit: impl Fn(&mut Counters, usize) -> bool,
    ) {
        let rows: &[&[usize]] = match asked {
            None => &[&[0, 1], &[1, 0]],
            Some(0) => &[&[0]],
            Some(_) => &[&[1]],
        };
        let mut after = BTreeSet::new();
        for (before, row) in self
            .may
            .iter()
            .flat_map(|c| rows.iter().map(move |r| (c, r)))
        {
            let (mut now, mut left, mut row) = (*before, count(before), row.to_vec());
            while left > 0 && !row.is_empty() {
                if visit(&mut now, row[0]) {
                    left -= 1;
                    row.rotate_left(1);
                } else {
                    row.remove(0);
                }
            }
            after.insert(now);
        }
        self.may = after;
    }

    /// Changes every state that there may be.
    pub fn each(&mut self, change: impl Fn(&mut Counters)) {
        let changed = self.may.iter().map(|before| {
            let mut now = *before;
            change(&mut now);
            now
        });
        self.may = changed.collect();
    }

    /// What is stuck goes, as far as it is not promised; the model does not know how
    /// much that is.
    pub fn retry(&mut self) {
        if !self.loose {
            return;
        }
        let mut open: Vec<Counters> = self.may.iter().copied().collect();
        while let Some(before) = open.pop() {
            for node in 0..NODES {
                let mut now = before;
                if now.remove(node, true) && self.may.insert(now) {
                    open.push(now);
                }
            }
        }
    }

    /// `count` written to `nr_hugepages`, of node `asked` or of all.
    pub fn set_nr(&mut self, asked: Option<usize>, count: u64) {
        let target = move |c: &Counters| match asked {
            Some(node) => count + c.persistent_on(1 - node),
            None => count,
        };
        // The target does not move meanwhile: the other node's part is not touched.
        self.turns(
            asked,
            |c| target(c).saturating_sub(c.persistent()),
            |c, node| {
                let some = c.surplus[node] > 0;
                c.surplus[node] -= u64::from(some);
                some
            },
        );
        let (grow, shrink): (BTreeSet<_>, BTreeSet<_>) =
            self.may.iter().partition(|c| target(c) > c.persistent());
        self.may = grow;
        self.turns(
            asked,
            |c| target(c) - c.persistent(),
            |c, node| {
                c.add(node, 1);
                true
            },
        );
        let grown = std::mem::replace(&mut self.may, shrink);
        self.turns(
            asked,
            |c| c.persistent().saturating_sub(target(c).max(c.needed())),
            |c, node| c.remove(node, false),
        );
        self.turns(
            asked,
            |c| c.persistent() - target(c),
            |c, node| {
                let some = c.persistent_on(node) > 0;
                c.surplus[node] += u64::from(some);
                some
            },
        );
        self.may.extend(grown);
        self.retry();
    }

    /// `count` promises are taken back.
    pub fn unreserve(&mut self, count: u64) {
        self.each(|c| c.resv -= count);
        self.turns(None, |_| count, |c, node| c.remove(node, true));
        self.retry();
    }

    /// A folio of `node` is put for the last time.
    pub fn put(&mut self, node: usize) {
        self.each(|c| c.put(node));
        self.retry();
    }
}
