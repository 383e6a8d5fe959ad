//! Boots the kernel on every machine of the matrix, in QEMU and in Bochs. Each in-kernel case is a test
//! of its own, named `machine::suite:case`; what a boot as a whole must show is
//! `machine::boot`. The usual filters of `cargo test` choose, and only machines of
//! which something is chosen are booted:
//!
//! ```sh
//! cargo test -p tests                          # all
//! cargo test -p tests -- uefi_2nodes_4G        # one machine
//! cargo test -p tests -- hvo:tails_are_shared  # one case, on all machines
//! ```

mod boots;
mod costs;
mod endings;
mod last_page;
mod layouts;
mod machine_checks;
mod machines;
mod noise;
mod pc;
mod preloader;
mod replaced_ramdisk;
mod shell;
mod slots;
mod soak;
mod transcripts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use boot::artifact::{self, Contents, Images, Profile};
use boot::error::Error;
use boot::workspace::Workspace;
use libtest_mimic::{Arguments, Trial};

use boots::Boots;

/// What all tests share: the images, and where logs go.
#[derive(Debug)]
struct Bench {
    workspace: Workspace,
    /// The kernel, for images with a command line of their own.
    kernel: PathBuf,
    images: Images,
    /// Images whose `ramdisk` says to run the self-tests and end.
    ramdisk_images: Images,
    accelerator: boot::accel::Accelerator,
    ovmf: boot::firmware::Ovmf,
    /// What the images are of.
    commit: String,
}

/// The text of `ramdisk` on [`Bench::ramdisk_images`]: as a person would edit it.
const RAMDISK: &str =
    "# edited on the stick\r\nselftest=buddy:*,paging:*\r\ninit=poweroff # at last";

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
    let bench = Arc::new(Bench::build()?);
    let cases = boots::list(&bench)?;
    let mut trials = endings::trials(&bench);
    trials.extend(layouts::trials(&bench));
    trials.extend(pc::trials(&bench));
    trials.extend(preloader::trials(&bench));
    trials.extend(last_page::trials(&bench));
    trials.extend(replaced_ramdisk::trials(&bench));
    trials.extend(costs::trials(&bench));
    trials.extend(machine_checks::trials(&bench));
    trials.extend(soak::trials(&bench));
    trials.extend(shell::trials(&bench));
    trials.extend(transcripts::trials(&bench));
    trials.extend(noise::trials(&bench));
    let boots = Boots::new(bench, machines::all(), &cases);
    trials.extend(boots.trials(arguments));
    Ok(trials)
}

impl Bench {
    /// A path for the socket of QEMU's protocol of the test `name`, where nothing is: what a run
    /// before left behind would be taken for this run's.
    fn socket(&self, name: &str) -> Result<PathBuf, Error> {
        let directory = self.workspace.target_dir("qmp")?;
        let socket = directory.join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        Ok(socket)
    }

    fn build() -> Result<Self, Error> {
        let workspace = Workspace::find()?;
        let kernel = artifact::kernel(&workspace, Profile::Checked)?;
        let build = |stem: &str, contents: &Contents| {
            let images = Images::at(&workspace, stem);
            artifact::write_images(&workspace, &kernel, contents, &images)?;
            Ok::<_, Error>(images)
        };
        let images = build("tests", &Contents::default())?;
        let ramdisk_images = build(
            "tests-ramdisk",
            &Contents {
                ramdisk: RAMDISK.to_owned(),
                ..Contents::default()
            },
        )?;
        let (accelerator, why) = boot::accel::Accelerator::choose(&workspace)?;
        eprintln!("accelerator: {}: {why}", accelerator.name());
        Ok(Self {
            images,
            ramdisk_images,
            accelerator,
            ovmf: boot::firmware::Ovmf::find()?,
            commit: artifact::commit(&workspace),
            kernel,
            workspace,
        })
    }

    /// Where the serial output of `name` is kept.
    fn log(&self, name: &str) -> Result<std::path::PathBuf, Error> {
        let dir = self.workspace.target_dir("qemu-logs")?;
        Ok(dir.join(format!("{}.log", name.replace([':', '/'], "_"))))
    }
}
