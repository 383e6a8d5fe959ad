//! Measures, on the processor that this runs on, what is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use lookup::{
    Bench, Chain, Host, Scenario, Settings, csv, measure, memory_that_fits, plot, tables,
};

/// Measures what it costs to find a page's folio: all encodings, all sizes of struct page, HVO off
/// and on.
#[derive(Parser)]
struct Lookup {
    /// Memory described, in GiB, a power of two: the largest working set.
    #[arg(long, default_value_t = 16)]
    gib: u64,
    /// Samples of each point.
    #[arg(long, default_value_t = 15)]
    samples: usize,
    /// Lookups in a sample.
    #[arg(long, default_value_t = 8192)]
    lookups: u64,
    /// Each working set is 2^STEP times the one before.
    #[arg(long, default_value_t = 1)]
    step: u32,
    /// Few samples, few working sets: about a tenth of the time.
    #[arg(long)]
    quick: bool,
    /// Only the scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the picture goes. Numbers go beside it, as CSV, and so does a picture of
    /// independent lookups.
    #[arg(long, default_value = "target/lookup.svg")]
    svg: PathBuf,
}

fn main() -> ExitCode {
    match lookup(&Lookup::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("lookup: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(arguments: &Lookup) -> anyhow::Result<Settings> {
    let gib = arguments.gib;
    ensure!(
        gib.is_power_of_two() && (Bench::MIN_GIB..=Bench::MAX_GIB).contains(&gib),
        "--gib {gib}: a power of two from {} to {} is needed",
        Bench::MIN_GIB,
        Bench::MAX_GIB
    );
    ensure!(
        arguments.samples > 0 && arguments.lookups >= 8 && (1..=16).contains(&arguments.step),
        "--samples must be 1 or more, --lookups 8 or more, --step 1 to 16"
    );
    let mut scenarios = Scenario::ALL.to_vec();
    scenarios.retain(|scenario| scenario.name.contains(&arguments.only));
    ensure!(
        !scenarios.is_empty(),
        "--only {}: there are {}",
        arguments.only,
        Scenario::ALL.map(|scenario| scenario.name).join(", ")
    );
    let (fits, why) = memory_that_fits(gib)?;
    if let Some(why) = why {
        eprintln!("{gib} GiB: {why}; measuring {fits} GiB");
    }
    Ok(Settings {
        gib: fits,
        samples: if arguments.quick {
            5
        } else {
            arguments.samples
        },
        lookups: arguments.lookups,
        step: if arguments.quick { 2 } else { arguments.step },
        scenarios,
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn lookup(arguments: &Lookup) -> anyhow::Result<()> {
    let settings = settings(arguments)?;
    let host = Host::read();
    let measured = measure(&settings, &host, &mut |line| eprintln!("{line}"))?;
    println!("{}; caches {:?}", host.model, host.caches);
    print!("{}", tables(&measured, &settings.scenarios));
    let svg = |chain| plot(&measured, &settings.scenarios, chain, &host);
    write(&arguments.svg, &svg(Chain::Dependent))?;
    let beside = |end: &str| {
        let stem = arguments.svg.with_extension("");
        PathBuf::from(format!("{}{end}", stem.display()))
    };
    write(&beside("-independent.svg"), &svg(Chain::Independent))?;
    write(&beside(".csv"), &csv(&measured.points))
}
