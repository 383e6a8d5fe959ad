//! Types scripts at Linux and at Tailfold, as `cargo run -- compare-linux` does, and fails
//! where an outcome differs without a reason. Each script here is a test; all scripts of
//! this directory are for `cargo run`, since they take minutes. Linux is that of Debian 13's
//! backports, or else of the machine's own Debian. Where neither can be had, the tests are
//! ignored, with a line that says why.

use std::process::ExitCode;
use std::sync::Arc;

use boot::accel::Accelerator;
use boot::artifact::{Firmware, Profile, build_images};
use boot::compare::debian::Source;
use boot::compare::script::Script;
use boot::compare::{Comparison, SCRIPTS, debian, linux};
use boot::error::Error;
use boot::workspace::Workspace;
use libtest_mimic::{Arguments, Failed, Trial};

/// The scripts that are tests.
const TESTS: [&str; 3] = ["pool", "nodes", "numbers"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials(&arguments) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn trials(arguments: &Arguments) -> Result<Vec<Trial>, Error> {
    let comparison = if arguments.list {
        None
    } else {
        match prepare() {
            Err(error @ Error::NoLinux { .. }) => {
                eprintln!("compare: {error}");
                None
            }
            prepared => Some(Arc::new(prepared?)),
        }
    };
    Ok(TESTS.map(|name| trial(name, comparison.clone())).into())
}

fn trial(name: &'static str, comparison: Option<Arc<Comparison>>) -> Trial {
    let skipped = comparison.is_none();
    let test = move || match &comparison {
        Some(comparison) => compare(comparison, name),
        None => Err(Failed::from("there is no Linux to compare with")),
    };
    Trial::test(format!("compare::{name}"), test).with_ignored_flag(skipped)
}

fn prepare() -> Result<Comparison, Error> {
    let workspace = Workspace::find()?;
    let parts = match debian::fetch(&workspace, &Source::Backports) {
        Err(error @ Error::NoLinux { .. }) => {
            eprintln!("compare: {error}; so it is the Linux of this machine's own Debian");
            debian::fetch(&workspace, &Source::Host)?
        }
        parts => parts?,
    };
    let linux = linux::prepare(parts)?;
    let images = build_images(&workspace, Profile::Checked, None, None, "tests-compare")?;
    Ok(Comparison {
        accelerator: Accelerator::choose(&workspace)?.0,
        workspace,
        linux: Some(linux),
        tailfold: Some(images.get(Firmware::Bios).to_owned()),
        memory: None,
        nodes: None,
        smp: None,
    })
}

fn compare(comparison: &Comparison, name: &str) -> Result<(), Failed> {
    let directory = comparison.workspace.root().join(SCRIPTS);
    let report = comparison.run(&Script::read(&directory, name)?)?;
    let unlisted = report.unlisted();
    if unlisted.is_empty() {
        return Ok(());
    }
    Err(Failed::from(format!("{report}\n{}", unlisted.join("\n"))))
}
