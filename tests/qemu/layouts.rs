//! The kernel with other struct pages than the usual: each is built and runs the
//! self-tests, of which those that its layout cannot have say so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boot::artifact::{self, Build, Contents, Firmware, Images, Profile};
use boot::ktap::Status;
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, hint};
use crate::machines::machine;

const LIMIT: Duration = Duration::from_secs(300);

/// Suites that hold for every layout, or skip with the reason. The long ones are left to
/// the usual kernel.
const SUITES: &str = "memory_map:*,buddy:*,paging:*,vmemmap:*,vmemmap_audit:*,compound_info:*,\
    layout:*,hvo:*,hvo_faults:*,hvo_orders:*,hugetlb:*,gigantic_demote:*,hwpoison:*,smp_churn:one_table,\
    smp_churn:nobody_sees_freed_frames,smp_locks:*";

/// A layout, and what must be seen there.
struct Other {
    name: &'static str,
    /// Bytes of a struct page.
    size: u32,
    /// Cases that must pass, not be skipped: what the layout is for.
    must_pass: &'static [&'static str],
    /// Cases that must be skipped, because the layout cannot.
    must_skip: &'static [&'static str],
}

const OTHERS: [Other; 4] = [
    Other {
        name: "pointer-64",
        size: 64,
        must_pass: &[
            "layout:folds_or_refuses",
            "hugetlb:mixed_churn_until_full",
            "vmemmap_audit:finds_nothing",
        ],
        must_skip: &["hvo:twice_is_refused"],
    },
    Other {
        name: "pointer-56",
        size: 56,
        must_pass: &[
            "layout:frames_are_alike_where_it_says",
            "vmemmap:round_trips",
            "vmemmap_audit:finds_nothing",
        ],
        must_skip: &["hvo:twice_is_refused", "vmemmap:is_mapped_by_leaves"],
    },
    Other {
        name: "fake-head-64",
        size: 64,
        must_pass: &[
            "layout:tails_show_the_head_or_not",
            "hvo:thousand_round_trips",
        ],
        must_skip: &["hvo:tails_are_shared"],
    },
    Other {
        name: "order-64",
        size: 64,
        must_pass: &["hvo:tails_are_shared", "vmemmap:misaligned_base_is_found"],
        must_skip: &[],
    },
];

/// One is built at a time: they share a directory.
static BUILDING: Mutex<()> = Mutex::new(());

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let others = OTHERS.into_iter().map(|other| {
        let bench = Arc::clone(bench);
        Trial::test(format!("layouts::{}", other.name), move || {
            boot(&bench, &other)
        })
    });
    others.collect()
}

fn build(bench: &Bench, layout: &'static str) -> Result<Images, boot::error::Error> {
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let build = Build {
        profile: Profile::Checked,
        layout: Some(layout),
    };
    let kernel = artifact::kernel(&bench.workspace, build)?;
    let images = Images::at(&bench.workspace, &format!("tests-{layout}"));
    artifact::write_images(&bench.workspace, &kernel, &Contents::default(), &images)?;
    Ok(images)
}

fn boot(bench: &Bench, other: &Other) -> Result<(), Failed> {
    let images = build(bench, other.name)?;
    let firmware = Firmware::Bios;
    let mut machine = machine(bench, images.get(firmware), firmware);
    (machine.smp, machine.nodes) = (2, 2);
    machine.memory = Size::mib(4096);
    let words = "hugetlb_free_vmemmap=on init=poweroff";
    machine.command_line = Some(format!("selftest={SUITES} {words}"));
    let log = bench.log(&format!("layout-{}", other.name))?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    let report = verdict::tests(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    let line = format!(" page_struct={} ", other.size);
    if !ended.serial.contains(&line) {
        return Err(format!("`{line}` is not in the log\n{hint}").into());
    }
    for (names, skipped) in [(other.must_pass, false), (other.must_skip, true)] {
        for name in names {
            let case = report.cases.iter().find(|case| case.full_name() == *name);
            if case.is_none_or(|case| (case.status == Status::Skipped) != skipped) {
                return Err(format!("{name}: skipped should be {skipped}: {case:?}").into());
            }
        }
    }
    Ok(())
}
