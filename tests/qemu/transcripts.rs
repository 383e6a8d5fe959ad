//! README's transcripts are what the program prints: each is run again by the command before it and
//! compared.
//!
//! A transcript is an indented block that begins with a line of the log or a prompt; its command is
//! the last `cargo run -- run ...` in backquotes before it. `...` on a line stands for any lines.
//! Digits are compared by how they group, not by their values, since times and free memory differ
//! from run to run; bars and the picture of the vmemmap by their frames; all other words must be
//! the same, in the same order. The file in `target/qemu-logs` that a failure names is the new
//! transcript.

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::Bench;

const PROMPT: &str = "tailfold# ";

/// A block of README, and what prints it.
#[derive(Debug)]
struct Transcript {
    command: String,
    lines: Vec<String>,
}

impl Transcript {
    /// What is typed at the prompts.
    fn typed(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter_map(|line| line.strip_prefix(PROMPT))
    }
}

/// All of `text`, a Markdown file.
fn transcripts(text: &str) -> Vec<Transcript> {
    let mut found: Vec<Transcript> = Vec::new();
    let mut command = None;
    let mut open = false;
    for line in text.lines() {
        let Some(inner) = line.strip_prefix("    ") else {
            open &= line.is_empty();
            let at = line.rfind("`cargo run -- run").map(|at| &line[at + 1..]);
            if let Some((words, _)) = at.and_then(|rest| rest.split_once('`')) {
                command = Some(words.to_owned());
            }
            continue;
        };
        let starts = inner.starts_with("[    0.0") || inner.starts_with(PROMPT);
        if !open
            && starts
            && let Some(command) = command.take()
        {
            open = true;
            found.push(Transcript {
                command,
                lines: Vec::new(),
            });
        }
        if open && let Some(transcript) = found.last_mut() {
            transcript.lines.push(inner.trim_end().to_owned());
        }
    }
    found
}

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let readme = bench.workspace.root().join("README.md");
    let text = std::fs::read_to_string(readme).unwrap_or_default();
    let found = transcripts(&text);
    assert!(found.len() >= 2, "README.md has a boot and a session");
    (1..)
        .zip(found)
        .map(|(n, transcript)| {
            let bench = Arc::clone(bench);
            Trial::test(format!("transcripts::readme_{n}"), move || {
                check(&bench, n, &transcript)
            })
        })
        .collect()
}

/// The words of a command with double quotes.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, part) in command.split('"').enumerate() {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn check(bench: &Bench, n: u32, transcript: &Transcript) -> Result<(), Failed> {
    let mut words = shell_words(&transcript.command);
    let typed: Vec<&str> = transcript.typed().collect();
    // Nobody is at a terminal: a script types, which looks the same.
    if !typed.is_empty() {
        let line = words.last_mut().ok_or("no command line")?;
        line.push_str(&format!(" script=\"{}\"", typed.join(";")));
    }
    let output = bench.workspace.cargo().args(&words[1..]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let log = bench.log(&format!("transcript-{n}"))?;
    std::fs::write(&log, &printed)?;
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    compare(&transcript.lines, &lines)
        .map_err(|why| format!("{why}\n`{}` printed {}", transcript.command, log.display()).into())
}

/// Compares a transcript with what was printed now: the pieces between its `...` in order, each in
/// one piece. What is before the first is the firmware's.
fn compare(expected: &[String], printed: &[&str]) -> Result<(), String> {
    let printed: Vec<String> = printed.iter().map(|line| shape(line)).collect();
    let mut at = 0;
    for piece in expected.split(|line| line == "...") {
        let wanted: Vec<String> = piece.iter().map(|line| shape(line)).collect();
        // How many lines of the piece are there, behind each place, and where it is most.
        let same = |from: &usize| {
            let there = printed[*from..].iter().zip(&wanted);
            there.take_while(|(there, wanted)| there == wanted).count()
        };
        let best = (at..printed.len()).rev().max_by_key(same).unwrap_or(at);
        let good = same(&best);
        if good < wanted.len() {
            let line = &piece[good];
            let now = printed.get(best + good).map_or("nothing", String::as_str);
            return Err(format!(
                "README has\n  {line}\nbut there is, in shape,\n  {now}"
            ));
        }
        at = best + good;
    }
    Ok(())
}

/// A line without what may differ between runs.
fn shape(line: &str) -> String {
    // The commit, behind the version.
    let line = match line.split_once("Tailfold 0.1.0 (") {
        Some((before, behind)) => {
            let (_, behind) = behind.split_once(')').unwrap_or(("", behind));
            format!("{before}Tailfold 0.1.0{behind}")
        }
        None => line.to_owned(),
    };
    let mut shape = String::new();
    let mut bar = false;
    for c in line.trim_end().chars() {
        match c {
            '|' => {
                bar = !bar;
                shape.push(c);
            }
            '#' | '-' | '.' | '_' if bar => {}
            '#' | '.' if shape.ends_with('[') || shape.ends_with('~') => {
                if !shape.ends_with('~') {
                    shape.push('~');
                }
            }
            // How long a number is, is no matter.
            '0'..='9' | 'a'..='f' if shape.ends_with("9x") => {}
            '0'..='9' if shape.ends_with('9') => {}
            // They are padded on the left.
            '0'..='9' => {
                while shape.ends_with("  ") {
                    shape.pop();
                }
                shape.push('9');
            }
            _ => shape.push(c),
        }
    }
    shape
}
