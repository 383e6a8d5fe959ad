//! A short soak: that it runs on all CPUs, says how it goes, and ends as it began.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, hint};
use crate::machines::machine;

/// Ten seconds of soak, with boot and a busy host.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test("soak::ten_seconds_on_four_cpus", move || {
        soak(&bench)
    })]
}

fn soak(bench: &Bench) -> Result<(), Failed> {
    let firmware = Firmware::Bios;
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    (machine.smp, machine.nodes) = (4, 2);
    machine.memory = Size::mib(1024);
    machine.command_line = Some(
        "selftest=off init=soak soak=10s soak_seed=11 hugetlb_free_vmemmap=on hugepages=16"
            .to_owned(),
    );
    let log = bench.log("soak")?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    verdict::soak(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    for text in [
        "soak: 10 s on 4 CPUs and 2 nodes, soak_seed=11",
        " operations, ",
        "soak: CPU 3: ",
        "HugeTLB: registered 2.00 MiB page size, pre-allocated 16 pages",
    ] {
        if !ended.serial.contains(text) {
            return Err(Failed::from(format!("`{text}` is not in the log\n{hint}")));
        }
    }
    Ok(())
}
