//! The control files, by the directories that Linux keeps them in.

mod cpuinfo;
mod debug;
mod demote;
mod hugepages;
#[cfg(feature = "lab")]
mod layouts;
mod nodes;
mod poison;
mod proc;
mod vm;
mod vmstat;

use mm::addr::NodeId;
use shell::Files;

use crate::state::MM;

/// All control files.
pub(super) fn all() -> Files<'static> {
    let mut files = Files::new();
    files.parameter("node", |each| {
        MM.nodes
            .online()
            .for_each(|node| each(u64::from(node.get())));
    });
    files.parameter("kB", |each| {
        MM.hugetlb
            .hstates()
            .for_each(|h| each(h.order().bytes() >> 10));
    });
    proc::add_to(&mut files);
    cpuinfo::add_to(&mut files);
    vm::add_to(&mut files);
    hugepages::add_to(&mut files);
    nodes::add_to(&mut files);
    demote::add_to(&mut files);
    debug::add_to(&mut files);
    poison::add_to(&mut files);
    #[cfg(feature = "lab")]
    layouts::add_to(&mut files);
    files
}

/// The node of a path's parameter, which the registry has checked.
fn node_at(value: u64) -> NodeId {
    u8::try_from(value)
        .ok()
        .and_then(NodeId::new)
        .unwrap_or(NodeId::ZERO)
}
