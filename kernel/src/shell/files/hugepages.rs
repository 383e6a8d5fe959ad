//! `/sys/kernel/mm/hugepages`: the pools of each size.

use mm::addr::{NodeId, Order};
use mm::hugetlb::Hstate;
use shell::{Errno, Files, kstrtoul};

use crate::metal::Metal;
use crate::state::MM;

/// The pools of a path's parameter, a size in KiB, which the registry has checked.
pub(super) fn hstate_at(kib: u64) -> &'static Hstate {
    MM.hugetlb
        .hstates()
        .find(|h| h.order().bytes() >> 10 == kib)
        .expect("the registry knows the sizes there are")
}

/// Pages that are not surplus.
#[doc(alias = "persistent_huge_pages")]
pub(super) fn persistent(h: &Hstate) -> u64 {
    let total = h.total(&Metal);
    total.nr - total.surplus
}

/// Pages that somebody has been promised and has not taken.
pub(super) fn reserved(_: &Hstate) -> u64 {
    0
}

/// Surplus pages that there may be.
pub(super) fn overcommit(_: &Hstate) -> u64 {
    0
}

/// Sets [`overcommit`].
///
/// # Errors
/// [`Errno::EINVAL`] for pages of 1 GiB, as in Linux.
pub(super) fn set_overcommit(h: &Hstate, _: u64) -> Result<(), Errno> {
    if h.order() > Order::PMD {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Makes it `count` pages, on `node` or on all together, as far as that goes.
#[doc(alias = "set_max_huge_pages")]
pub(super) fn resize(h: &Hstate, node: Option<NodeId>, count: u64) {
    let has = node.map_or_else(|| persistent(h), |node| h.counts(&Metal, node).nr);
    if count > has {
        MM.hugetlb.grow(&Metal, MM.backing(), h, node, count - has);
    } else {
        MM.hugetlb
            .shrink(&Metal, MM.backing(), h, node, has - count);
    }
}

/// What a write of `text` to a file `nr_hugepages` does.
///
/// # Errors
/// As the number is wrong.
pub(super) fn store(h: &Hstate, node: Option<NodeId>, text: &str) -> Result<(), Errno> {
    resize(h, node, kstrtoul(text, 10)?);
    Ok(())
}

pub(super) fn add_to(files: &mut Files<'static>) {
    // Persistent pages; written, how many there should be.
    files.read_write(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/nr_hugepages",
        |at, out| Ok(writeln!(out, "{}", persistent(hstate_at(at[0])))?),
        |at, text| store(hstate_at(at[0]), None, text),
    );
    // Those that nobody has.
    files.read_only(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/free_hugepages",
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).total(&Metal).free)?),
    );
    // Those that are promised.
    files.read_only(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/resv_hugepages",
        |at, out| Ok(writeln!(out, "{}", reserved(hstate_at(at[0])))?),
    );
    // Those that are to go.
    files.read_only(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/surplus_hugepages",
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).total(&Metal).surplus)?),
    );
    // Surplus pages that there may be.
    files.read_write(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/nr_overcommit_hugepages",
        |at, out| Ok(writeln!(out, "{}", overcommit(hstate_at(at[0])))?),
        |at, text| set_overcommit(hstate_at(at[0]), kstrtoul(text, 10)?),
    );
}
