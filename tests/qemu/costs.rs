//! The cost table: that it is there and says something. How much things cost is for
//! docs/results.md; a test that compares costs would fail for good changes.

use std::sync::Arc;
use std::time::Duration;

use boot::artifact::{self, Contents, Firmware, Images, Profile};
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::{end, hint};
use crate::machines::machine;

/// As long as `cargo run -- bench` has.
const LIMIT: Duration = Duration::from_secs(1800);

/// Rows that must be there, by their beginning.
const ROWS: [&str; 6] = [
    "memmap build",
    "2.00 MiB alloc, 1 at once, HVO off",
    "2.00 MiB alloc, 512 at once, HVO on",
    "2.00 MiB free, 512 at once, HVO on",
    "1.00 GiB alloc, 1 at once, HVO on",
    "compound_head of a tail",
];

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test("costs::table", move || table(&bench))]
}

fn table(bench: &Bench) -> Result<(), Failed> {
    let kernel = artifact::kernel(&bench.workspace, Profile::Release)?;
    let images = Images::at(&bench.workspace, "tests-release");
    artifact::write_images(&bench.workspace, &kernel, &Contents::default(), &images)?;
    let firmware = Firmware::Bios;
    let mut machine = machine(bench, images.get(firmware), firmware);
    machine.accelerator = boot::accel::Accelerator::Tcg;
    machine.icount = true;
    machine.memory = Size::mib(8 << 10);
    machine.command_line = Some("selftest=off init=bench".to_owned());
    let log = bench.log("costs::table")?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    let status = verdict::finished(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    if status.code() != Some(verdict::PASS) {
        return Err(Failed::from(format!("{status}\n{hint}")));
    }
    for row in ROWS {
        match cost(&ended.serial, row) {
            Some(1..) => {}
            found => {
                return Err(Failed::from(format!(
                    "the row `{row}` has {found:?}\n{hint}"
                )));
            }
        }
    }
    Ok(())
}

/// The figure of the row that begins with `row`: the first word behind its name and
/// two blanks or more.
fn cost(serial: &str, row: &str) -> Option<u64> {
    let line = serial
        .lines()
        .filter_map(|line| line.strip_prefix("bench: "))
        .find(|line| line.starts_with(row))?;
    let (_, figure) = line.split_once("  ")?;
    figure.split_whitespace().next()?.parse().ok()
}
