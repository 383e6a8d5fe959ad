//! README's commands: each is one that the program takes, and what boots a machine says how. What
//! they then do is up to the tests of each command.

use std::path::PathBuf;
use std::process::Command;

use boot::cli::{Cli, Command as Sub};
use clap::Parser as _;

/// The checkout.
fn root() -> PathBuf {
    let workspace = boot::workspace::Workspace::find().expect("cargo runs this test");
    workspace.root().to_owned()
}

/// The words of a line as a shell takes them: quotes and comments, and nothing else.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is not closed: {line}");
    words.extend(word);
    words
}

/// The lines of README's code blocks that a person types, and commands in its text.
fn commands() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = text.lines().filter_map(|line| line.strip_prefix("    "));
    // In the text they stand between single back quotes.
    let quoted = text
        .lines()
        .filter(|line| !line.starts_with("    "))
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    blocks
        .chain(quoted)
        .filter(|line| line.starts_with("cargo ") || line.starts_with("make "))
        .map(words)
        .collect()
}

#[test]
fn every_command_of_readme_is_taken() {
    let commands = commands();
    assert!(commands.len() >= 25, "only {} commands", commands.len());
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words[..] {
            ["make", target, ..] => {
                let rule = format!("\n{target}:");
                assert!(makefile.contains(&rule), "no target {target}: {words:?}");
            }
            ["cargo", "run"] => {}
            ["cargo", "run", "--", ref rest @ ..] => taken(rest),
            ["cargo", "run", "-p", package, ..] | ["cargo", "test", "-p", package, ..] => {
                let there = ["", "kernel", "kernel/lab", "tests"]
                    .iter()
                    .any(|dir| root().join(dir).join(package).join("Cargo.toml").exists());
                assert!(there, "no package {package}: {words:?}");
                if let Some(at) = words.iter().position(|word| *word == "--test") {
                    let name = words[at + 1];
                    let dir = root().join("tests").join(package).join("tests");
                    let there = dir.join(format!("{name}.rs")).exists() || dir.join(name).exists();
                    assert!(there, "no test {name}: {words:?}");
                }
            }
            ["cargo", "test"] => {}
            _ => panic!("README has a command of no known kind: {words:?}"),
        }
    }
}

/// The program takes `rest`, and what would boot a machine can say which, or writes help.
fn taken(rest: &[&str]) {
    // In the text a word may be left out, as in `cargo run -- run …`.
    if rest.iter().any(|word| word.contains('…')) {
        return;
    }
    let line = ["boot"].iter().chain(rest);
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(help) if help.exit_code() == 0 => return,
        Err(why) => panic!("README says `cargo run -- {}`:\n{why}", rest.join(" ")),
    };
    let boots = match cli.command {
        None | Some(Sub::Run(_) | Sub::Test(_) | Sub::Bench(_) | Sub::Soak(_)) => true,
        Some(
            Sub::Image(_)
            | Sub::CompareLinux(_)
            | Sub::BenchLinux(_)
            | Sub::Cmdline(_)
            | Sub::Report(_)
            | Sub::Usb(_),
        ) => false,
    };
    if !boots {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_boot"))
        .args(rest)
        .arg("--dry-run")
        .output()
        .unwrap();
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "README says `cargo run -- {}`: {}",
        rest.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn words_are_a_shells() {
    let all = words("cargo run -- test 'hvo*,a b' --append \"x=1 y\" # a 'comment");
    let expected = [
        "cargo", "run", "--", "test", "hvo*,a b", "--append", "x=1 y",
    ];
    assert_eq!(all, expected);
}
