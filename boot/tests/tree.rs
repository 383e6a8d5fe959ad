//! The direction of imports: a crate depends on those that stand before it only, and what the
//! kernel can do without is known to nothing that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use boot::workspace::Workspace;
use serde::Deserialize;

/// The crates of the workspace, low to high.
const FLOORS: &[&str] = &[
    "qr",
    "ktest",
    "shell",
    "mm",
    "access",
    "params",
    "suites",
    "lab",
    "lab-cases",
    "kernel",
    "preloader",
    "imager",
    "boot",
    "testkit",
    "native",
    "lookup",
    "tests",
];

/// The experiments, and who may depend on them; the kernel by a feature.
const LAB: &[&str] = &["lab", "lab-cases", "lookup"];
const MAY_USE_LAB: &[&str] = &["kernel", "lab", "lab-cases", "lookup"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    optional: bool,
    path: Option<PathBuf>,
}

fn packages() -> Vec<Package> {
    let workspace = Workspace::find().expect("cargo runs this test");
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .expect("cargo is there");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata.packages
}

#[test]
fn crates_import_downwards() {
    let floors: BTreeMap<_, _> = FLOORS.iter().zip(0..).map(|(name, n)| (*name, n)).collect();
    let packages = packages();
    assert_eq!(packages.len(), FLOORS.len(), "a crate has no floor here");
    for package in &packages {
        let own = floors[package.name.as_str()];
        // What tests alone need may be anywhere.
        let built = package.dependencies.iter().filter(|d| d.kind.is_none());
        for dependency in built.filter(|d| d.path.is_some()) {
            let (user, used) = (&package.name, &dependency.name);
            assert!(floors[used.as_str()] < own, "{user} depends on {used}");
            if LAB.contains(&used.as_str()) {
                assert!(MAY_USE_LAB.contains(&user.as_str()), "{user} needs {used}");
                assert!(
                    user != "kernel" || dependency.optional,
                    "{used} is no feature"
                );
            }
        }
    }
}

/// The modules of `mm`, low to high, as README has them. `audit` stands beside.
const MODULES: &[&[&str]] = &[
    &["addr"],
    &["machine", "frames", "sync"],
    &["progress_lock"],
    &["page"],
    &["paging"],
    &["memblock", "numa"],
    &["vmemmap"],
    &["buddy"],
    &["node"],
    &["hugetlb"],
    &["hwpoison"],
    &["system"],
    &["report"],
];

#[test]
fn modules_of_mm_import_downwards() {
    let workspace = Workspace::find().expect("cargo runs this test");
    let source = workspace.root().join("kernel/mm/src");
    for (floor, modules) in MODULES.iter().enumerate() {
        let above = MODULES[floor + 1..].concat();
        for module in *modules {
            let mut files = vec![source.join(format!("{module}.rs"))];
            let folder = source.join(module);
            let mut folders = vec![folder];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).into_iter().flatten() {
                    let path = entry.expect("an entry").path();
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        files.push(path);
                    }
                }
            }
            for file in files.iter().filter(|file| file.exists()) {
                let text = std::fs::read_to_string(file).expect("a source file");
                for other in &above {
                    let import = format!("use crate::{other}");
                    let imports = text.lines().any(|line| {
                        line.trim_start()
                            .strip_prefix(import.as_str())
                            .is_some_and(|rest| rest.starts_with([':', ';']))
                    });
                    assert!(
                        !imports,
                        "{} imports {other}, which is above it",
                        file.display()
                    );
                }
            }
        }
    }
}

/// The folders in which files import each other in circles, and why each stays.
const CIRCLES: &[&[&str]] = &[
    // A CPU's area holds its segments, is found by them, and both are sized by the most CPUs.
    &["gdt", "percpu", "stack"],
    // A point suspends the fiber, which gives the point to who resumes it.
    &["fiber", "point"],
    // What a page is depends on the policy, what the policy allows on what the page is.
    &["kind", "policy"],
    // A case's `Env` sweeps up after it, by looking at the machine of an `Env`.
    &["env", "sweep"],
    // The initramfs of Linux carries the program of the benchmark that boots it.
    &["bench", "linux"],
];

/// The files below `folder`, by their path without the ending, and what each imports of the others.
fn imports(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|e| e == "rs") && name != "mod" && name != "lib" {
            files.insert(name, std::fs::read_to_string(path).expect("a source file"));
        }
    }
    let above = if folder.ends_with("src") {
        "crate::"
    } else {
        "super::"
    };
    let all: BTreeSet<String> = files.keys().cloned().collect();
    let of = |text: &String| {
        let found = text.lines().filter_map(|line| {
            let line = line.trim_start();
            let path = line.strip_prefix("use ")?.strip_prefix(above)?;
            let end = path.find([':', ';', ' ']).unwrap_or(path.len());
            all.get(&path[..end]).cloned()
        });
        found.collect()
    };
    files
        .iter()
        .map(|(name, text)| (name.clone(), of(text)))
        .collect()
}

/// The files of one circle, if there is one: what is left when those that import nothing that is
/// left are taken away, again and again, and then those that nothing left imports.
fn circle(mut files: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let before = files.len();
        let left: BTreeSet<String> = files.keys().cloned().collect();
        files.retain(|_, imports| imports.iter().any(|other| left.contains(other)));
        let wanted: BTreeSet<String> = files.values().flatten().cloned().collect();
        files.retain(|name, _| wanted.contains(name));
        if files.len() == before {
            return files.into_keys().collect();
        }
    }
}

#[test]
fn files_of_a_folder_import_no_circle() {
    let workspace = Workspace::find().expect("cargo runs this test");
    let mut folders: Vec<PathBuf> = ["kernel", "boot/src", "native/src", "tests/testkit/src"]
        .iter()
        .map(|folder| workspace.root().join(folder))
        .collect();
    let mut seen = 0;
    let mut bad = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        let files = imports(&folder);
        seen += files.values().filter(|imports| !imports.is_empty()).count();
        let found = circle(files);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        if !found.is_empty() && !CIRCLES.contains(&found.as_slice()) {
            bad.push(format!("{}: {found:?}", folder.display()));
        }
    }
    assert!(
        bad.is_empty(),
        "files import each other:\n{}",
        bad.join("\n")
    );
    assert!(seen > 100, "{seen} files with imports: too few to be all");
}
