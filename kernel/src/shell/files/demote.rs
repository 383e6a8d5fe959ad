//! Huge pages cut into smaller ones, and put together again. Only sizes that have a
//! smaller one have these files.

use mm::addr::{NodeId, Order};
use mm::hugetlb::Hstate;
use params::memparse;
use shell::{Errno, Files, kstrtoul};

use super::node_at;
use crate::metal::Metal;
use crate::state::MM;

fn gigantic() -> Result<&'static Hstate, Errno> {
    MM.hugetlb.hstate(Order::PUD).ok_or(Errno::ENOENT)
}

fn target_kib() -> Result<u64, Errno> {
    let target = MM.hugetlb.demote_target(gigantic()?);
    Ok(target.ok_or(Errno::EINVAL)?.order().bytes() >> 10)
}

/// Takes the one size there is, however it is written: `2M`, `2048kB`, `2097152`.
fn set_size(text: &str) -> Result<(), Errno> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let digits = digits.unwrap_or(text.len());
    let with_unit = text.get(..=digits).filter(|text| memparse(text).is_some());
    let bytes = memparse(with_unit.unwrap_or(&text[..digits])).ok_or(Errno::EINVAL)?;
    if bytes >> 10 == target_kib()? && bytes.is_multiple_of(1 << 10) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn demote(node: Option<NodeId>, text: &str) -> Result<(), Errno> {
    let count = kstrtoul(text, 10)?;
    MM.hugetlb
        .demote(&Metal, MM.backing(), gigantic()?, node, count);
    Ok(())
}

pub(super) fn add_to(files: &mut Files<'static>) {
    if gigantic().is_err() {
        return;
    }
    // How many pages are to become pages of `demote_size`; as many as are free do.
    files.write_only(
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/demote",
        |_, text| demote(None, text),
    );
    // What pages are demoted to, in KiB with the unit behind it.
    files.read_write(
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/demote_size",
        |_, out| Ok(writeln!(out, "{}kB", target_kib()?)?),
        |_, text| set_size(text),
    );
    // Not in Linux: how many pages are to be made of free pages of the smaller size.
    files.write_only(
        "/sys/kernel/mm/hugepages/hugepages-1048576kB/promote",
        |_, text| {
            let count = kstrtoul(text, 10)?;
            MM.hugetlb
                .promote(&Metal, MM.backing(), gigantic()?, None, count);
            Ok(())
        },
    );
    // The same by node.
    files.write_only(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/demote",
        |at, text| demote(Some(node_at(at[0])), text),
    );
    files.read_write(
        "/sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/demote_size",
        |_, out| Ok(writeln!(out, "{}kB", target_kib()?)?),
        |_, text| set_size(text),
    );
}
