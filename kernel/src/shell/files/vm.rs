//! `/proc/sys`: the pools of the default size, the switch of HVO, the watchdog's limit.

use mm::hugetlb::Hstate;
use params::WATCHDOG_THRESH_MAX;
use shell::{Errno, Files, sysctl_bool, sysctl_ulong};

use super::hugepages;
use crate::metal::Metal;
use crate::smp::watchdog;
use crate::state::{self, MM};

/// The pools that a size which is not named means.
pub(super) fn default_hstate() -> &'static Hstate {
    let order = state::options().hugepages.default_order();
    let first = || MM.hugetlb.hstates().next();
    MM.hugetlb
        .hstate(order)
        .or_else(first)
        .expect("2 MiB pages exist on every machine")
}

pub(super) fn add_to(files: &mut Files<'static>) {
    // A number; blanks around it are ignored. Persistent pages of the default size.
    files.read_write(
        "/proc/sys/vm/nr_hugepages",
        |_, out| {
            Ok(writeln!(
                out,
                "{}",
                hugepages::persistent(default_hstate())
            )?)
        },
        |_, text| {
            hugepages::resize(default_hstate(), None, sysctl_ulong(text)?);
            Ok(())
        },
    );
    // A number: surplus pages of the default size that there may be.
    files.read_write(
        "/proc/sys/vm/nr_overcommit_hugepages",
        |_, out| Ok(writeln!(out, "{}", default_hstate().overcommit(&Metal))?),
        |_, text| hugepages::set_overcommit(default_hstate(), sysctl_ulong(text)?),
    );
    // Seconds, 60 at most; 0 switches the watchdog off.
    files.read_write(
        "/proc/sys/kernel/watchdog_thresh",
        |_, out| Ok(writeln!(out, "{}", watchdog::thresh())?),
        |_, text| {
            let seconds = sysctl_ulong(text)?;
            if seconds > WATCHDOG_THRESH_MAX {
                return Err(Errno::EINVAL);
            }
            watchdog::set_thresh(seconds);
            Ok(())
        },
    );
    // 0, or any other number for 1. Concerns pages allocated later.
    files.read_write(
        "/proc/sys/vm/hugetlb_optimize_vmemmap",
        |_, out| Ok(writeln!(out, "{}", u8::from(MM.hugetlb.optimizes()))?),
        |_, text| {
            MM.hugetlb.set_optimize(sysctl_bool(text)?);
            Ok(())
        },
    );
}
