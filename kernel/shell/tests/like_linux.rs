//! The same text given to this shell and to the host's: bash for the language, GNU grep for
//! its patterns. Both are part of every Debian.

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::{Fake, shell};

/// What `program` writes to its output for `input`.
fn host(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| panic!("{program} is needed to compare with: {why}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    String::from_utf8(output.stdout).expect("text")
}

fn sample<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).expect("no filter").current()
}

/// Lines of commands that only print; each line is one that may be wrong.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "[ab#=]{1,3}",
        1 => "[a'\"\\\\ $]{1,4}",
        1 => "'[a\"\\\\ #$;|]{0,4}'",
        1 => "\"[a' #;|?]{0,3}(\\\\[\"\\\\$a])?\"",
        1 => Just("$?".to_owned()),
        1 => Just("\"<$?>\"".to_owned()),
        1 => Just("\\;".to_owned()),
        1 => Just("#".to_owned()),
    ];
    let command = prop_oneof![
        6 => vec(word, 0..4).prop_map(|words| format!("echo {}", words.join(" "))),
        1 => Just("true".to_owned()),
        2 => Just("false".to_owned()),
        1 => Just("cat".to_owned()),
        1 => Just("nosuchcommand".to_owned()),
        1 => Just("> /dev/null".to_owned()),
        1 => Just("echo gone >/dev/null".to_owned()),
        1 => Just("echo a 2>/dev/null b".to_owned()),
        1 => Just("nosuchcommand 2>&1 >/dev/null | grep -c .".to_owned()),
        1 => Just("echo -n".to_owned()),
        1 => Just("grep -c a".to_owned()),
    ];
    let joint = prop::sample::select(vec![" ; ", " && ", " || ", " | ", ";", "|", "&&"]);
    (command.clone(), vec((joint, command), 0..4)).prop_map(|(first, rest)| {
        rest.into_iter()
            .fold(first, |line, (joint, next)| line + joint + &next)
    })
}

/// The language: outputs and `$?` are bash's. Lines that use what this shell has not are left
/// out, by what it says of them.
#[test]
fn lines_mean_what_they_mean_to_bash() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let lines: Vec<String> = (0..2000).map(|_| sample(&mut runner, &line())).collect();
    let mut compared = Vec::new();
    let mut ours = String::new();
    for line in &lines {
        let mut fake = Fake::default();
        let mut shell = shell().0;
        shell.run_line(line, &mut fake);
        let missing = ["no expansion", "unexpected \"&\""];
        if missing.iter().any(|text| fake.printed.contains(text)) {
            continue;
        }
        // What it says of errors is compared elsewhere; bash words them differently.
        let printed: String = (fake.printed.split_inclusive('\n'))
            .filter(|text| !text.starts_with("sh: "))
            .collect();
        writeln!(ours, "{line}\n{printed}={}", shell.status()).unwrap();
        compared.push(line);
    }
    // `eval` has each line parsed by itself, and its input is empty as ours is.
    let mut script = String::new();
    for line in &compared {
        let quoted = line.replace('\'', "'\\''");
        writeln!(
            script,
            "printf '%s\\n' '{quoted}'; true; eval '{quoted}' </dev/null; echo \"=$?\""
        )
        .unwrap();
    }
    let theirs = host("bash", &["--norc", "-s"], &script);
    assert!(compared.len() > 1000, "only {} compared", compared.len());
    let (mut ours, mut theirs) = (ours.lines(), theirs.lines());
    let mut seen = Vec::new();
    loop {
        let (our, their) = (ours.next(), theirs.next());
        assert_eq!(
            our,
            their,
            "after {:?}",
            &seen[seen.len().saturating_sub(4)..]
        );
        let Some(our) = our else { break };
        seen.push(our);
    }
}

/// Patterns: which lines match is GNU grep's.
#[test]
fn patterns_match_what_they_match_for_grep() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let text: Vec<String> = (0..300)
        .map(|_| sample(&mut runner, &"[abAé.*^$|+?\\[\\]\\-]{0,5}"))
        .collect();
    let text = text.join("\n") + "\n";
    let piece = prop_oneof![
        6 => "[abAé]",
        3 => Just(".".to_owned()),
        2 => Just("*".to_owned()),
        1 => Just("^".to_owned()),
        1 => Just("$".to_owned()),
        1 => prop::sample::select(vec!["[ab]", "[^a]", "[]a]", "[^]a]", "[a-b]", "[*.]", "[a-]"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["\\.", "\\*", "\\$", "\\^", "\\[", "\\|", "\\+", "\\?"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["|", "+", "?"]).prop_map(str::to_owned),
    ];
    let pattern = vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    let mut wrong = Vec::new();
    for n in 0..400 {
        let option = ["-n", "-nE", "-nF", "-ni", "-nv"][n % 5];
        let pattern = sample(&mut runner, &pattern);
        let mut shell = shell::Files::new();
        let shown = text.clone();
        shell.read_only("/text", move |_, out| Ok(out.write_str(&shown)?));
        let mut fake = Fake::default();
        let quoted = pattern.replace('\'', "'\\''");
        shell::Shell::new(shell).run_line(&format!("grep {option} -- '{quoted}' /text"), &mut fake);
        let theirs = host("grep", &[option, "--", &pattern], &text);
        if fake.printed != theirs {
            wrong.push(format!("{option} {pattern}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}
