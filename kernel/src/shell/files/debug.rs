//! `/sys/kernel/debug`: faults on demand, in the words of Linux's fault injection
//! (`Documentation/fault-injection/fault-injection.rst`).

use core::sync::atomic::Ordering;

use mm::machine::FailPoint;
use shell::{Errno, Files, kstrtoul};

use crate::fault::{self, Attributes};

/// A file of each attribute, for one point.
macro_rules! attributes {
    ($files:ident, $name:literal, $point:expr) => {
        // Chance of a failure in percent, above 100 as 100.
        number(
            $files,
            concat!("/sys/kernel/debug/", $name, "/probability"),
            || u64::from(point($point).probability.load(Ordering::Relaxed)),
            |value| point($point).set_probability(value),
        );
        // Only every so many operations may fail.
        number(
            $files,
            concat!("/sys/kernel/debug/", $name, "/interval"),
            || point($point).interval.load(Ordering::Relaxed),
            |value| point($point).interval.store(value, Ordering::Relaxed),
        );
        // Bytes that are still given before anything fails.
        number(
            $files,
            concat!("/sys/kernel/debug/", $name, "/space"),
            || point($point).space.load(Ordering::Relaxed),
            |value| point($point).space.store(value, Ordering::Relaxed),
        );
        // Failures that are left; -1: no end.
        $files.read_write(
            concat!("/sys/kernel/debug/", $name, "/times"),
            |_, out| {
                let times = point($point).times.load(Ordering::Relaxed);
                Ok(writeln!(out, "{times}")?)
            },
            |_, text| {
                let times = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                point($point).times.store(times, Ordering::Relaxed);
                Ok(())
            },
        );
    };
}

fn point(point: FailPoint) -> &'static Attributes {
    fault::attributes(point)
}

fn number(files: &mut Files<'static>, path: &'static str, get: fn() -> u64, set: fn(u64)) {
    files.read_write(
        path,
        move |_, out| Ok(writeln!(out, "{}", get())?),
        move |_, text| {
            set(kstrtoul(text, 0)?);
            Ok(())
        },
    );
}

pub(super) fn add_to(files: &mut Files<'static>) {
    attributes!(files, "fail_page_alloc", FailPoint::PageAlloc);
    attributes!(files, "fail_hugetlb_vmemmap_pte", FailPoint::VmemmapPte);
    attributes!(files, "fail_hugetlb_vmemmap_pmd", FailPoint::VmemmapPmd);
}
