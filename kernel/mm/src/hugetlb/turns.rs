//! Which node is next.

use core::sync::atomic::{AtomicU8, Ordering};

use super::Backing;
use crate::addr::{MAX_NODES, NodeId};
use crate::frames::Placement;

/// Nodes taking turns.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    nodes: [NodeId; MAX_NODES],
    len: usize,
    at: usize,
    /// Where it is kept whose turn is next; `None` if they do not take turns.
    next: Option<&'a AtomicU8>,
}

impl<'a> Turns<'a> {
    const fn empty(next: Option<&'a AtomicU8>) -> Self {
        Self {
            nodes: [NodeId::ZERO; MAX_NODES],
            len: 0,
            at: 0,
            next,
        }
    }

    /// `node` alone, or all nodes in turn, the one that `next` names first.
    #[doc(alias = "for_each_node_mask_to_alloc")]
    pub(super) fn new(backing: Backing<'_>, node: Option<NodeId>, next: &'a AtomicU8) -> Self {
        if let Some(only) = node {
            return Self::near(backing, Placement::Only(only));
        }
        let mut turns = Self::empty(Some(next));
        backing.nodes.online().for_each(|node| turns.add(node));
        let next = next.load(Ordering::Relaxed);
        turns.at = turns.nodes[..turns.len]
            .iter()
            .position(|node| node.get() >= next)
            .unwrap_or(0);
        turns
    }

    /// The node of `placement` as long as it has something, then, if they may, the others, the
    /// nearest first.
    pub(super) fn near(backing: Backing<'_>, placement: Placement) -> Self {
        let mut turns = Self::empty(None);
        backing
            .nodes
            .near(placement)
            .for_each(|node| turns.add(node));
        turns
    }

    fn add(&mut self, node: NodeId) {
        self.nodes[self.len] = node;
        self.len += 1;
    }

    pub(super) fn current(&self) -> Option<NodeId> {
        self.nodes[..self.len].get(self.at).copied()
    }

    /// The current node has had its turn.
    pub(super) fn advance(&mut self) {
        let Some(next) = self.next else { return };
        self.at = if self.at + 1 < self.len {
            self.at + 1
        } else {
            0
        };
        if let Some(node) = self.current() {
            next.store(node.get(), Ordering::Relaxed);
        }
    }

    /// The current node has nothing left: it gets no further turn.
    pub(super) fn drop_current(&mut self) {
        self.nodes.copy_within(self.at + 1..self.len, self.at);
        self.len -= 1;
        if self.at == self.len {
            self.at = 0;
        }
    }

    /// Asks node after node until `visit` has said yes `count` times or nobody does any
    /// more; how many times it did.
    pub(super) fn visit(&mut self, count: u64, mut visit: impl FnMut(NodeId) -> bool) -> u64 {
        let mut done = 0;
        while done < count
            && let Some(node) = self.current()
        {
            if visit(node) {
                done += 1;
                self.advance();
            } else {
                self.drop_current();
            }
        }
        done
    }
}
