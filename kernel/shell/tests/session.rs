//! A person at the terminal: editor, completion and commands together, and what happens
//! when it is no person.

mod support;

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use shell::{Command, Context, Host, Session, Shell, Status, TypeAhead};
use support::terminal::Terminal;
use support::{Shared, files};

/// Wide enough for the longest path.
const COLUMNS: usize = 132;

/// A host whose screen is a VT100.
struct Desk {
    terminal: Terminal,
    typed: TypeAhead,
    /// What comes in when a command waits for the first time.
    later: Vec<u8>,
    micros: u64,
}

impl Host for Desk {
    fn print(&mut self, text: &str) {
        self.terminal.put(text);
    }

    fn interrupted(&mut self) -> bool {
        self.typed.take_interrupt()
    }

    fn micros(&mut self) -> u64 {
        self.micros
    }

    fn idle(&mut self) {
        self.micros += 1_000_000;
        // Noise may say `sleep 555555555`; a person has had enough after a day.
        if self.micros.is_multiple_of(86_400 * 1_000_000) {
            self.typed.push(3);
        }
        let later = core::mem::take(&mut self.later);
        later.into_iter().for_each(|byte| self.typed.push(byte));
    }

    fn columns(&mut self) -> usize {
        COLUMNS
    }

    fn log(&mut self) -> String {
        "[    0.000000] Tailfold\n".into()
    }
}

/// A command with arguments of its own.
struct Selftest;

impl Command for Selftest {
    fn name(&self) -> &'static str {
        "selftest"
    }

    fn usage(&self) -> &'static str {
        "[GLOB]"
    }

    fn about(&self) -> &'static str {
        "run self-tests"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, core::fmt::Error> {
        use core::fmt::Write;
        writeln!(context.io.out(), "1..{}", args.len())?;
        Ok(3)
    }

    fn complete(&self, _: &str, each: &mut dyn FnMut(&str)) {
        ["buddy", "hvo", "hvo_faults"].into_iter().for_each(each);
    }
}

struct Seat {
    session: Session<'static>,
    desk: Desk,
    state: Shared,
}

impl Seat {
    fn new() -> Self {
        let state = Shared::default();
        let mut shell = Shell::new(files(&state));
        shell.add(Selftest);
        let mut seat = Self {
            session: Session::new(shell),
            desk: Desk {
                terminal: Terminal::new(COLUMNS, 24),
                typed: TypeAhead::new(),
                later: Vec::new(),
                micros: 0,
            },
            state,
        };
        seat.session.start(&mut seat.desk);
        seat
    }

    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.session.feed(byte, &mut self.desk);
        }
    }

    /// What is on the screen after `keys` in a new session.
    fn screen(keys: &str) -> String {
        let mut seat = Self::new();
        seat.feed(keys.as_bytes());
        seat.desk.terminal.text()
    }
}

#[test]
fn a_session() {
    assert_eq!(
        Seat::screen(
            "echo 4 > /proc/sys/vm/nr_hugepages\rcat /proc/sys/vm/nr_hugepages\rselftest a\recho $?\r\x04"
        ),
        "tailfold# echo 4 > /proc/sys/vm/nr_hugepages\n\
         tailfold# cat /proc/sys/vm/nr_hugepages\n4\n\
         tailfold# selftest a\n1..1\n\
         tailfold# echo $?\n3\n\
         tailfold#\nUse \"poweroff\" to leave.\n\
         tailfold#"
    );
}

#[test]
fn tab() {
    for (keys, expected) in [
        // Commands, where one is due.
        ("gr\t", "grep"),
        ("hel\tse\t", "help selftest"),
        ("true;cle\t", "true;clear"),
        ("true|gre\tx", "true|grep x"),
        ("true && se\t", "true && selftest"),
        ("  sle\t1", "  sleep 1"),
        // Paths elsewhere.
        ("cat /pr\t", "cat /proc/"),
        ("cat /proc/me\t", "cat /proc/meminfo"),
        (
            "cat /proc/cmd\t/proc/me\t",
            "cat /proc/cmdline /proc/meminfo",
        ),
        ("cat proc/cm\t", "cat proc/cmdline"),
        ("cd /proc\rcat cm\t", "cat cmdline"),
        ("/pr\t", "/proc/"),
        (
            "echo 1 >/proc/sys/vm/nr\t",
            "echo 1 >/proc/sys/vm/nr_hugepages",
        ),
        (
            "echo 1 > /proc/sys/vm/nr\t",
            "echo 1 > /proc/sys/vm/nr_hugepages",
        ),
        (
            "cat /sy\td\tsy\tn\tn\t1\th\thugepages-2\t\t",
            "cat /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages",
        ),
        // What a command says of itself, else paths.
        ("selftest bu\t", "selftest buddy"),
        ("selftest hv\t", "selftest hvo"),
        ("selftest hv\t_\t", "selftest hvo_faults"),
        ("selftest > /de\tn\t", "selftest > /dev/null"),
        ("selftest /pr\t", "selftest /proc/"),
        // Nothing.
        ("cat /nope\t", "cat /nope"),
        ("nope\t", "nope"),
        ("cat /proc/cmdline/\t", "cat /proc/cmdline/"),
        ("echo '\"\t", "echo '\""),
        // The rest of the line stays.
        ("cat /proc/me x\x02\x02\t", "cat /proc/meminfo  x"),
    ] {
        let screen = Seat::screen(keys);
        let last = screen
            .lines()
            .last()
            .map(|line| line.strip_prefix("tailfold# "));
        assert_eq!(last, Some(Some(expected)), "{}", keys.escape_debug());
    }
    assert_eq!(
        Seat::screen("c\t\tl\t"),
        "tailfold# c\ncat  cd  clear\ntailfold# clear"
    );
    assert_eq!(
        Seat::screen("ls /proc/\t\t"),
        "tailfold# ls /proc/\ncmdline  many  meminfo  sys/\ntailfold# ls /proc/"
    );
}

/// What is typed while a command runs: Ctrl-C ends it and takes what came before it along,
/// the rest waits.
#[test]
fn typed_while_a_command_runs() {
    let mut seat = Seat::new();
    seat.desk.later = b"lost\x03echo kept\r".into();
    seat.feed(b"sleep 1000; echo never\r");
    assert_eq!(seat.desk.micros, 1_000_000);
    let kept: Vec<u8> = core::iter::from_fn(|| seat.desk.typed.pop()).collect();
    seat.feed(&kept);
    assert_eq!(
        seat.desk.terminal.text(),
        "tailfold# sleep 1000; echo never\n^C\ntailfold# echo kept\nkept\ntailfold#"
    );
}

#[test]
fn type_ahead_is_bounded() {
    let mut typed = TypeAhead::new();
    (0..100_000).for_each(|_| typed.push(b'x'));
    assert!(!typed.take_interrupt());
    assert_eq!(core::iter::from_fn(|| typed.pop()).count(), 16 << 10);
    typed.push(3);
    assert_eq!(
        (typed.take_interrupt(), typed.take_interrupt()),
        (true, false)
    );
}

/// A host without a clock that goes: nothing here waits for one, except `sleep`.
#[test]
fn lines_at_full_speed() {
    let mut seat = Seat::new();
    let started = Instant::now();
    for n in 0..2000 {
        seat.feed(format!("echo {n} > /proc/sys/vm/nr_hugepages\r\n").as_bytes());
    }
    assert_eq!(seat.state.borrow().written.len(), 2000);
    assert_eq!(seat.state.borrow().nr_hugepages, 1999);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Lines of 4 KiB, as bad as they come.
#[test]
fn long_lines() {
    let started = Instant::now();
    for piece in [
        "a ",
        "*",
        "/*",
        "|cat",
        ";",
        "'",
        "\"$?\" ",
        "> /dev/null ",
        "echo a;",
        "echo a|",
        "[!",
        "$?",
        "\\",
        "/proc/../",
        "/*/..",
        "*/../",
        "/*/*/* ",
        "x/*/",
        "false||",
        "2>&1 ",
    ] {
        let line = piece.repeat(4096 / piece.len());
        let mut seat = Seat::new();
        seat.feed(line.as_bytes());
        seat.feed(b"\t\t\r");
        seat.feed(b"cat /proc/cmdline\r");
        let screen = seat.desk.terminal.text();
        assert!(
            screen.ends_with("tailfold# cat /proc/cmdline\nselftest=off init=shell\ntailfold#"),
            "{piece}: {screen}"
        );
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Pieces of lines that do something, bytes that do not, and Enter often enough.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => vec(any::<u8>(), 1..8),
        6 => prop::sample::select(vec![
            "cat ", "ls -l ", "grep -r ", "echo ", "cd ", "help ", "selftest ", "sleep 1 ", "dmesg",
            "/proc/", "/sys/", "*", "..", "/dev/null", "> ", ">> ", "< ", "2>&1 ", "| ", "; ", "&& ",
            "|| ", "'", "\"", "\\", "$?", "# ", "-", " ", "\t", "\t\t", "\x1b[A", "\x1b[D", "\x15",
            "/proc/sys/vm/nr_hugepages", "5",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        2 => Just(b"\r".to_vec()),
    ];
    vec(piece, 1..120).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever comes in: it ends, a VT100 understands what comes out, and afterwards the
    /// shell is there.
    #[test]
    fn noise(bytes in input()) {
        let mut seat = Seat::new();
        seat.feed(&bytes);
        seat.feed(b"\x03cat /proc/cmdline; echo \"<$?>\"\r");
        let screen = seat.desk.terminal.text();
        let end = "tailfold# cat /proc/cmdline; echo \"<$?>\"\nselftest=off init=shell\n<0>\ntailfold#";
        prop_assert!(screen.ends_with(end), "{}", screen);
    }
}
