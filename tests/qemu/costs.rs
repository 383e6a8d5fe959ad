//! The cost table: that it is there and says something. How much things cost is for
//! docs/results.md; a test that compares costs would fail for good changes.

use std::path::{Path, PathBuf};
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
const ROWS: [&str; 8] = [
    "memmap build",
    "call of all CPUs, empty",
    "2.00 MiB alloc, 1 at once, HVO on: interrupts",
    "2.00 MiB alloc, 1 at once, HVO off",
    "2.00 MiB alloc, 512 at once, HVO on",
    "2.00 MiB free, 512 at once, HVO on",
    "1.00 GiB alloc, 1 at once, HVO on",
    "compound_head of a tail",
];

/// What every batch costs, of any size up to 512: rounds of interrupts.
const FLUSHES: [&str; 6] = [
    "2.00 MiB alloc, 1 at once, HVO on: flushes",
    "2.00 MiB free, 1 at once, HVO on: flushes",
    "2.00 MiB alloc, 512 at once, HVO on: flushes",
    "2.00 MiB free, 512 at once, HVO on: flushes",
    "1.00 GiB alloc, 1 at once, HVO on: flushes",
    "1.00 GiB free, 1 at once, HVO on: flushes",
];

/// Rows of `bench=time`.
const TIMES: [&str; 4] = [
    "33 INVLPGs, 64 pages read; to a full flush",
    "33 INVLPGs, 512 pages read; to a full flush",
    "scan beside a CPU that reads; to a scan alone",
    "scan beside folds and unfolds of 512; to beside reads",
];

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test("costs::tables", move || {
        let image = image(&bench)?;
        table(&bench, &image)?;
        times(&bench, &image)
    })]
}

fn image(bench: &Bench) -> Result<PathBuf, Failed> {
    let kernel = artifact::kernel(&bench.workspace, Profile::Release)?;
    let images = Images::at(&bench.workspace, "tests-release");
    artifact::write_images(&bench.workspace, &kernel, &Contents::default(), &images)?;
    Ok(images.get(Firmware::Bios).to_owned())
}

/// A run of `bench=`; its log and a hint where that is.
fn run(bench: &Bench, image: &Path, what: &str) -> Result<(String, String), Failed> {
    let mut machine = machine(bench, image, Firmware::Bios);
    machine.accelerator = boot::accel::Accelerator::Tcg;
    machine.icount = what == "instructions";
    machine.memory = Size::mib(8 << 10);
    machine.smp = 2;
    machine.command_line = Some(format!("selftest=off init=bench bench={what}"));
    let log = bench.log(&format!("costs::{what}"))?;
    let ended = end(&machine, LIMIT, &log)?;
    let hint = hint(&ended.serial, &log);
    let status = verdict::finished(&ended).map_err(|error| format!("{error}\n{hint}"))?;
    if status.code() != Some(verdict::PASS) {
        return Err(Failed::from(format!("{status}\n{hint}")));
    }
    Ok((ended.serial, hint))
}

fn table(bench: &Bench, image: &Path) -> Result<(), Failed> {
    let (serial, hint) = run(bench, image, "instructions")?;
    for row in ROWS {
        match cost(&serial, row).and_then(|figure| figure.parse().ok()) {
            Some(1_u64..) => {}
            found => {
                return Err(Failed::from(format!(
                    "the row `{row}` has {found:?}\n{hint}"
                )));
            }
        }
    }
    for row in FLUSHES {
        match cost(&serial, row).and_then(|figure| figure.parse().ok()) {
            Some(1..=2_u64) => {}
            found => {
                return Err(Failed::from(format!(
                    "`{row}` are {found:?} and not one or two\n{hint}"
                )));
            }
        }
    }
    Ok(())
}

fn times(bench: &Bench, image: &Path) -> Result<(), Failed> {
    let (serial, hint) = run(bench, image, "time")?;
    for row in TIMES {
        match cost(&serial, row).and_then(|figure| figure.parse::<f64>().ok()) {
            Some(figure) if figure > 0.0 => {}
            found => {
                return Err(Failed::from(format!(
                    "the row `{row}` has {found:?}\n{hint}"
                )));
            }
        }
    }
    if let Some(line) = serial.lines().find(|line| line.contains("read wrongly")) {
        return Err(Failed::from(format!("{line}\n{hint}")));
    }
    Ok(())
}

/// The figure of the row that begins with `row`: the first word behind its name and
/// two blanks or more.
fn cost<'a>(serial: &'a str, row: &str) -> Option<&'a str> {
    let line = serial
        .lines()
        .filter_map(|line| line.strip_prefix("bench: "))
        .find(|line| line.starts_with(row))?;
    let (_, figure) = line.split_once("  ")?;
    figure.split_whitespace().next()
}
