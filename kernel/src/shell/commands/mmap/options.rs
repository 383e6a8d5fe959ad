//! The words behind `mmap`.

use alloc::format;
use alloc::string::String;

use mm::addr::NodeId;
use mm::frames::Placement;
use mm::hugetlb::{Hstate, MapFlags, Sharing};
use params::memparse;
use shell::kstrtoul;

use super::index;
use crate::state::MM;

/// What is to be mapped, and how.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) h: &'static Hstate,
    pub(super) count: usize,
    pub(super) flags: MapFlags,
}

impl Options {
    /// From `[hugetlb] SIZE COUNT [shared|private] [noreserve] [node N]`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn parse(args: &[&str]) -> Result<Self, String> {
        let args = match args {
            ["hugetlb", rest @ ..] => rest,
            _ => args,
        };
        let [size, count, words @ ..] = args else {
            return Err("a size and a number of pages, as in mmap 2M 3".into());
        };
        let h = size_named(size)?;
        let count = index(count)
            .filter(|count| *count > 0)
            .ok_or_else(|| format!("{count}: not a number of pages; 1 or more"))?;
        let mut flags = MapFlags::SHARED;
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "shared" => flags.sharing = Sharing::Shared,
                "private" => flags.sharing = Sharing::Private,
                "noreserve" => flags = flags.no_reserve(),
                "node" => {
                    let node = node_named(words.next().copied().unwrap_or(""))?;
                    flags = flags.bound_to(Placement::Only(node));
                }
                _ => {
                    return Err(format!("{word}: not shared, private, noreserve or node N"));
                }
            }
        }
        Ok(Self { h, count, flags })
    }
}

fn size_named(word: &str) -> Result<&'static Hstate, String> {
    let bytes = memparse(word);
    let mut sizes = MM.hugetlb.hstates();
    let found = sizes.find(|h| Some(h.order().bytes()) == bytes);
    found.ok_or_else(|| {
        let sizes: String = MM
            .hugetlb
            .hstates()
            .map(|h| format!(" {}M", h.order().bytes() >> 20))
            .collect();
        format!("{word}: no such huge page size; there are{sizes}")
    })
}

fn node_named(word: &str) -> Result<NodeId, String> {
    let number = kstrtoul(word, 10).ok().and_then(|n| u8::try_from(n).ok());
    let node = number.and_then(NodeId::new);
    node.filter(|node| MM.nodes.is_online(*node))
        .ok_or_else(|| format!("{word}: no such node; see /sys/devices/system/node/online"))
}
