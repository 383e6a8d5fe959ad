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
    h.total(&Metal).persistent()
}

/// Sets how many surplus pages of `h`'s size there may be.
///
/// # Errors
/// [`Errno::EINVAL`] for pages of 1 GiB, as in Linux.
pub(super) fn set_overcommit(h: &Hstate, most: u64) -> Result<(), Errno> {
    if h.order() > Order::PMD {
        return Err(Errno::EINVAL);
    }
    h.set_overcommit(&Metal, most);
    Ok(())
}

/// Makes it `count` pages, on `node` or on all together, as far as that goes.
#[doc(alias = "set_max_huge_pages")]
pub(super) fn resize(h: &Hstate, node: Option<NodeId>, count: u64) {
    MM.hugetlb.set_nr(&Metal, MM.backing(), h, node, count);
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
    // All pages, surplus included; written, how many persistent ones there should be.
    files.read_write(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/nr_hugepages",
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).total(&Metal).nr)?),
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
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).resv(&Metal))?),
    );
    // Those that are to go.
    files.read_only(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/surplus_hugepages",
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).total(&Metal).surplus)?),
    );
    // Surplus pages that there may be.
    files.read_write(
        "/sys/kernel/mm/hugepages/hugepages-{kB}kB/nr_overcommit_hugepages",
        |at, out| Ok(writeln!(out, "{}", hstate_at(at[0]).overcommit(&Metal))?),
        |at, text| set_overcommit(hstate_at(at[0]), kstrtoul(text, 10)?),
    );
}
