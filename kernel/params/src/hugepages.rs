//! `hugepages=`, `hugepagesz=` and `default_hugepagesz=`: their order matters.
//!
//! A count belongs to the size named last before it. Before any size it is for the
//! default size, whichever that turns out to be: an *implicit* count, which wins
//! over one given for that size by name.

use core::iter::FilterMap;
use core::str::Split;

use mm::addr::{MAX_NODES, NodeId, Order};

use super::values::{decimal, memparse};
use super::{Why, Word};

/// How many huge pages of a size are asked for.
pub type Request<'a> = mm::hugetlb::Request<NodeCounts<'a>>;

/// The node form, `node:count,…`. No node is named twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeCounts<'a>(&'a str);

impl<'a> NodeCounts<'a> {
    fn parse(text: &'a str) -> Result<Self, Why<'a>> {
        let mut seen = 0u64;
        for item in Self(text).items() {
            let (node, _) = pair(item).ok_or(Why::BadNodeCount(item))?;
            let node = u8::try_from(node).ok().and_then(NodeId::new);
            let node = node.ok_or(Why::NoSuchNode(item))?;
            let bit = 1 << node.get();
            if seen & bit != 0 {
                return Err(Why::NodeTwice(node));
            }
            seen |= bit;
        }
        Ok(Self(text))
    }

    /// As in Linux, the list may end with a comma.
    fn items(self) -> Split<'a, char> {
        let text = self.0.strip_suffix(',').unwrap_or(self.0);
        text.split(',')
    }
}

/// The nodes and their counts, in the order of the line.
impl<'a> IntoIterator for NodeCounts<'a> {
    type Item = (NodeId, u64);
    type IntoIter = FilterMap<Split<'a, char>, fn(&'a str) -> Option<Self::Item>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items().filter_map(|item| {
            let (node, count) = pair(item)?;
            Some((NodeId::new(u8::try_from(node).ok()?)?, count))
        })
    }
}

fn pair(item: &str) -> Option<(u64, u64)> {
    let (node, count) = item.split_once(':')?;
    Some((decimal(node)?, decimal(count)?))
}

/// What the words say about huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hugepages<'a> {
    /// Requests by size, if any.
    requests: [Option<Request<'a>>; SIZES.len()],
    default: Option<Order>,
}

/// The sizes there are, smallest first.
const SIZES: [Order; 2] = [Order::PMD, Order::PUD];

fn index(order: Order) -> usize {
    usize::from(order != Order::PMD)
}

impl<'a> Hugepages<'a> {
    /// What is asked for, largest size first: small ones would break up the
    /// memory that large ones need.
    pub fn iter(&self) -> impl Iterator<Item = (Order, Request<'a>)> + use<'a> {
        let requests = SIZES.into_iter().zip(self.requests).rev();
        requests.filter_map(|(order, request)| Some((order, request?)))
    }

    /// What is asked for of size `order`.
    #[must_use]
    pub fn get(&self, order: Order) -> Option<Request<'a>> {
        self.iter().find(|(o, _)| *o == order).map(|(_, r)| r)
    }

    /// The default size.
    #[must_use]
    #[doc(alias = "default_hstate")]
    pub fn default_order(&self) -> Order {
        self.default.unwrap_or(Order::PMD)
    }

    fn total(&self, order: Order) -> u64 {
        self.requests[index(order)].map_or(0, Request::total)
    }

    /// Drops requests that name a node which `exists` denies: as in Linux, the
    /// whole word is ignored then. `complain` gets size, node and total.
    pub fn retain_nodes(
        &mut self,
        exists: impl Fn(NodeId) -> bool,
        mut complain: impl FnMut(Order, NodeId, u64),
    ) {
        for (order, request) in SIZES.into_iter().zip(&mut self.requests) {
            let Some(asked @ Request::Nodes(counts)) = *request else {
                continue;
            };
            let missing = counts.into_iter().find(|(node, _)| !exists(*node));
            if let Some((node, _)) = missing {
                complain(order, node, asked.total());
                *request = None;
            }
        }
    }
}

/// Where a count goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// To the default size, not known yet.
    Implicit,
    Size(Order),
}

/// State while a line is being read. Names of Linux's variables are aliases.
pub(super) struct HugepagesParser<'a> {
    gbpages: bool,
    result: Hugepages<'a>,
    /// Sizes that were named.
    known: [bool; SIZES.len()],
    /// The size named last.
    current: Option<Order>,
    /// Whether the size named last was good (`parsed_valid_hugepagesz`).
    valid: bool,
    /// Where the last count went (`last_mhp`).
    last: Option<Target>,
    /// The implicit count, and the word it came from.
    implicit: Option<(Request<'a>, Word<'a>)>,
}

impl<'a> HugepagesParser<'a> {
    pub(super) fn new(gbpages: bool) -> Self {
        Self {
            gbpages,
            result: Hugepages::default(),
            known: [false; SIZES.len()],
            current: None,
            valid: true,
            last: None,
            implicit: None,
        }
    }

    /// The huge page size `text`.
    #[doc(alias = "arch_hugetlb_valid_size")]
    fn size(&self, text: &str) -> Result<Order, Why<'a>> {
        let bytes = memparse(text).ok_or(Why::BadPageSize)?;
        let order = SIZES.into_iter().find(|order| order.bytes() == bytes);
        match order {
            Some(Order::PUD) if !self.gbpages => Err(Why::NoGigabytePages),
            Some(order) => Ok(order),
            None => Err(Why::BadPageSize),
        }
    }

    #[doc(alias = "hugepagesz_setup")]
    pub(super) fn size_word(&mut self, text: &str) -> Result<(), Why<'a>> {
        self.valid = false;
        let order = self.size(text)?;
        // Naming the default size once more is how its count is given.
        let default = self.result.default == Some(order) && self.result.total(order) == 0;
        if self.known[index(order)] && !default {
            return Err(Why::SizeTwice);
        }
        self.now(order);
        Ok(())
    }

    #[doc(alias = "default_hugepagesz_setup")]
    pub(super) fn default_word(&mut self, text: &str) -> Result<(), Why<'a>> {
        self.valid = false;
        if self.result.default.is_some() {
            return Err(Why::DefaultTwice);
        }
        let order = self.size(text)?;
        self.now(order);
        self.result.default = Some(order);
        match self.take_implicit(order) {
            Some((_, why)) => Err(why),
            None => Ok(()),
        }
    }

    fn now(&mut self, order: Order) {
        self.known[index(order)] = true;
        self.current = Some(order);
        self.valid = true;
    }

    /// Gives the implicit count to `order`, the default size. If there was another
    /// count, that one is ignored: why, and the implicit word.
    fn take_implicit(&mut self, order: Order) -> Option<(Word<'a>, Why<'a>)> {
        let (request, word) = self.implicit.take()?;
        let loser = self.result.total(order);
        self.result.requests[index(order)] = Some(request);
        (loser > 0).then_some((
            word,
            Why::ImplicitWins {
                order,
                loser,
                winner: request.total(),
            },
        ))
    }

    #[doc(alias = "hugepages_setup")]
    pub(super) fn count_word(&mut self, word: Word<'a>, text: &'a str) -> Result<(), Why<'a>> {
        if !self.valid {
            self.valid = true;
            return Err(Why::NoPageSize);
        }
        let target = self.current.map_or(Target::Implicit, Target::Size);
        let counted = match target {
            Target::Implicit => false,
            Target::Size(order) => self.result.total(order) > 0,
        };
        if counted || self.last == Some(target) {
            return Err(Why::CountTwice);
        }
        let request = if text.contains(':') {
            Request::Nodes(NodeCounts::parse(text)?)
        } else {
            Request::Total(decimal(text).ok_or(Why::BadCount)?)
        };
        match target {
            Target::Implicit => self.implicit = Some((request, word)),
            Target::Size(order) => self.result.requests[index(order)] = Some(request),
        }
        self.last = Some(target);
        Ok(())
    }

    /// The end of the line: an implicit count that found no size goes to 2 MiB.
    #[doc(alias = "hugetlb_init")]
    pub(super) fn finish(mut self, complain: &mut dyn FnMut(Word<'_>, Why<'_>)) -> Hugepages<'a> {
        if let Some((word, why)) = self.take_implicit(self.result.default_order()) {
            complain(word, why);
        }
        self.result
    }
}

/// The highest node that can be named.
pub(super) const LAST_NODE: usize = MAX_NODES - 1;
