//! Where the sources and the build's output are, and how to call cargo on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::Error;

/// The bare-metal target of the kernel.
pub const TARGET: &str = "x86_64-unknown-none";

/// The checkout that this program runs in.
///
/// It is looked for each time the program runs: a path that was compiled in would still be the old
/// one in a checkout that was moved or copied together with its `target/`, and the program would
/// build and test the other directory's sources.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

impl Workspace {
    /// Finds the checkout and asks cargo where the output goes.
    ///
    /// # Errors
    /// [`Error::Build`], if there is no checkout here or cargo cannot tell.
    pub fn find() -> Result<Self, Error> {
        let root = checkout()?;
        let output = cargo(&root)
            .args(["metadata", "--no-deps", "--format-version=1"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::io(format!("starting cargo in {}", root.display())))?;
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).map_err(|error| Error::Build {
                what: "anything",
                detail: format!("`cargo metadata` in {}: {error}", root.display()),
            })?;
        Ok(Self {
            root,
            target: metadata.target_directory,
        })
    }

    /// The checkout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the build's output goes: `target/`, unless cargo is told otherwise.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// A directory below [`Self::target`], made if there is none.
    ///
    /// # Errors
    /// [`Error::Io`], if it cannot be made.
    pub fn target_dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.target.join(name);
        std::fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        Ok(path)
    }

    /// The cargo that started this program, or else the one in `PATH`, for this checkout.
    #[must_use]
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Whether the toolchain brings a compiled `core` for [`TARGET`]. The
    /// distributions' compilers do not, and have to compile it.
    ///
    /// # Errors
    /// [`Error::Build`], if rustc cannot tell.
    pub fn has_bare_metal_core(&self) -> Result<bool, Error> {
        let library = self.rustc_prints(&["target-libdir", "--target", TARGET])?;
        Ok(library.exists())
    }

    /// LLVM's tool `name`, which lies beside the compiler.
    ///
    /// # Errors
    /// [`Error::Build`], if rustc cannot tell where it is.
    pub fn llvm_tool(&self, name: &str) -> Result<PathBuf, Error> {
        let library = self.rustc_prints(&["target-libdir"])?;
        Ok(library.with_file_name("bin").join(name))
    }

    /// The path that `rustc --print` says, with the arguments `what`.
    fn rustc_prints(&self, what: &[&str]) -> Result<PathBuf, Error> {
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .arg("--print")
            .args(what)
            .current_dir(&self.root)
            .output()
            .map_err(Error::io("starting rustc"))?;
        if !output.status.success() {
            return Err(Error::Build {
                what: "the kernel",
                detail: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        Ok(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim_end(),
        ))
    }
}

/// Returns the directory of the workspace that cargo runs this program for, or else of the one that
/// the program's file lies in, or else of the one around the current directory.
fn checkout() -> Result<PathBuf, Error> {
    let started = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let places = [
        started,
        std::env::current_exe().ok(),
        std::env::current_dir().ok(),
    ];
    places
        .iter()
        .flatten()
        .find_map(|place| root_around(place))
        .map(Path::to_owned)
        .ok_or_else(|| Error::Build {
            what: "anything",
            detail: "no checkout of Tailfold here: run it from inside one".to_owned(),
        })
}

/// Returns the nearest directory around `place` that holds a workspace with this program.
fn root_around(place: &Path) -> Option<&Path> {
    place.ancestors().find(|directory| {
        std::fs::read_to_string(directory.join("Cargo.toml"))
            .is_ok_and(|text| text.contains("[workspace]"))
            && directory.join("boot/Cargo.toml").is_file()
    })
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        // See docs/adr/0001-toolchain.md. cargo's own -Z options need it before
        // .cargo/config.toml is read.
        .env("RUSTC_BOOTSTRAP", "1")
        .stdin(Stdio::null());
    // Flags for the machine that builds are not meant for the kernel, and what
    // cargo tells of the package it runs is not meant for the next one.
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
    command
}
