//! `cargo run -- compare-linux`.

use super::report::{Report, summary};
use super::script::Script;
use super::{Comparison, SCRIPTS, debian, linux};
use crate::accel::{self, Accelerator};
use crate::artifact::{Firmware, build_images};
use crate::cli::{Accel, CompareOptions, Only};
use crate::error::Error;
use crate::workspace::Workspace;

/// Types the scripts at both sides, and shows what comes of it.
///
/// # Errors
/// [`Error::Unlike`] for differences without a reason; [`Error::NoLinux`] if there is
/// nothing to compare with; [`Error::NoShell`]; those of scripts, building and QEMU.
pub fn compare(options: &CompareOptions) -> Result<(), Error> {
    accel::use_qemu(options.qemu.as_deref());
    let workspace = Workspace::find()?;
    let directory = workspace.root().join(SCRIPTS);
    let names = match &options.scripts[..] {
        [] => Script::names(&directory)?,
        names => names.to_vec(),
    };
    // First what can be wrong at once, then what takes minutes.
    let scripts = names.iter().map(|name| Script::read(&directory, name));
    let scripts: Vec<Script> = scripts.collect::<Result<_, _>>()?;
    let accelerator = match options.accel {
        Accel::Tcg => Accelerator::Tcg,
        Accel::Kvm => Accelerator::Kvm,
        Accel::Auto => Accelerator::choose(&workspace)?.0,
    };
    let linux = match options.only {
        Some(Only::Tailfold) => None,
        _ => {
            let parts = debian::fetch(&workspace, &options.linux)?;
            Some(linux::prepare(parts)?)
        }
    };
    let tailfold = match (options.only, &options.image) {
        (Some(Only::Linux), _) => None,
        (_, Some(image)) => Some(image.clone()),
        _ => {
            let profile = options.kernel.profile();
            let images = build_images(&workspace, profile, None, None, "compare")?;
            Some(images.get(Firmware::Bios).to_owned())
        }
    };
    let comparison = Comparison {
        workspace,
        linux,
        tailfold,
        accelerator,
        memory: options.memory,
        nodes: options.nodes,
        smp: options.smp,
    };
    let mut text = String::new();
    let mut reports: Vec<Report> = Vec::new();
    for script in &scripts {
        let report = comparison.run(script)?;
        let shown = format!("{report}\n");
        print!("{shown}");
        text.push_str(&shown);
        reports.push(report);
    }
    let summary = summary(&reports);
    print!("{summary}");
    if let Some(path) = &options.output {
        std::fs::write(path, text + &summary)
            .map_err(Error::io(format!("writing {}", path.display())))?;
    }
    let lines: Vec<String> = reports.iter().flat_map(Report::unlisted).collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Error::Unlike { lines })
    }
}
