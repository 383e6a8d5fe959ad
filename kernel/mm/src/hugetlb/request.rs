//! What somebody asks for, before there are pools.

use crate::addr::NodeId;

/// How many huge pages of a size are asked for, on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<N> {
    /// So many, round robin over all nodes.
    Total(u64),
    /// So many of each of these nodes.
    Nodes(N),
}

impl<N: IntoIterator<Item = (NodeId, u64)>> Request<N> {
    /// Returns how many huge pages are asked for in all.
    #[must_use]
    pub fn total(self) -> u64 {
        match self {
            Self::Total(count) => count,
            Self::Nodes(counts) => counts
                .into_iter()
                .fold(0, |sum, (_, n)| sum.saturating_add(n)),
        }
    }
}
