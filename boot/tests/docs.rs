//! The documents: prose wraps at 100 columns, and links within the repository lead somewhere.

use std::path::{Path, PathBuf};

use boot::workspace::Workspace;

const COLUMNS: usize = 100;

/// Every Markdown file of the repository, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Workspace::find()
        .expect("cargo runs this test")
        .root()
        .to_owned();
    let mut folders = vec![root.clone(), root.join("docs"), root.join("docs/adr")];
    let mut found = Vec::new();
    for folder in folders.drain(..) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "md") {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 20, "{} documents: too few", found.len());
    found
}

/// Whether `line` cannot be wrapped: a row of a table, code, or one long word such as a link.
fn stays_whole(line: &str) -> bool {
    let text = line.trim_start();
    text.starts_with('|') || line.starts_with("    ") || !text.contains(' ')
}

#[test]
fn prose_wraps() {
    let mut bad = Vec::new();
    for (path, text) in documents() {
        let mut fenced = false;
        for (n, line) in (1..).zip(text.lines()) {
            fenced ^= line.trim_start().starts_with("```");
            if line.chars().count() > COLUMNS && !fenced && !stays_whole(line) {
                bad.push(format!("{}:{n}", path.display()));
            }
        }
    }
    assert!(
        bad.is_empty(),
        "longer than {COLUMNS} columns:\n{}",
        bad.join("\n")
    );
}

/// What `text` links to within the repository, without the place in the file.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        let file = target.split('#').next()?;
        (!file.is_empty() && !file.contains("://")).then_some(file)
    })
}

#[test]
fn links_lead_somewhere() {
    let (mut bad, mut seen) = (Vec::new(), 0);
    for (path, text) in documents() {
        let folder = path.parent().unwrap_or(Path::new(""));
        for link in links(&text) {
            seen += 1;
            if !folder.join(link).exists() {
                bad.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "no such file:\n{}", bad.join("\n"));
    assert!(seen > 20, "{seen} links: too few to be all");
}
