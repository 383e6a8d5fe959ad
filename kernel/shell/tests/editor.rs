//! The line editor: keys, what comes of them, and the screen.

mod support;

use shell::{Candidate, Completion, Editor, Event, LINE_MAX};
use support::terminal::Terminal;

const PROMPT: &str = "tailfold# ";

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const RIGHT: &str = "\x1b[C";
const LEFT: &str = "\x1b[D";

/// An editor at a terminal, with the events so far.
struct Desk {
    editor: Editor,
    terminal: Terminal,
    events: Vec<Event>,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            editor: Editor::new(PROMPT),
            terminal: Terminal::new(80, 24),
            events: Vec::new(),
        };
        desk.editor.start(&mut desk.terminal).unwrap();
        desk
    }

    fn typed(keys: &str) -> Self {
        let mut desk = Self::new();
        desk.type_bytes(keys.as_bytes());
        desk
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let event = self.editor.feed(byte, &mut self.terminal).unwrap();
            let prompt = matches!(
                event,
                Some(Event::Line(_) | Event::Interrupt | Event::EndOfInput)
            );
            self.events.extend(event);
            if prompt {
                self.editor.start(&mut self.terminal).unwrap();
            }
        }
    }

    /// The line on the screen, without the prompt.
    #[track_caller]
    fn shown(&self) -> String {
        let line = self.terminal.line() + " ";
        let line = line.strip_prefix(PROMPT).expect("a prompt");
        line.trim_end().into()
    }
}

/// The line that Enter gives after `keys`.
#[track_caller]
fn line(keys: &[u8]) -> String {
    let mut desk = Desk::new();
    desk.type_bytes(keys);
    desk.type_bytes(b"\r");
    match desk.events.pop() {
        Some(Event::Line(line)) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys() {
    for (keys, expected) in [
        (&b"abc"[..], "abc"),
        (b"abc\x7f", "ab"),
        (b"abc\x08", "ab"),
        (b"\x7f\x7fa", "a"),
        (b"ac\x1b[Db", "abc"),
        (b"ac\x1bODb", "abc"),
        (b"ac\x02b", "abc"),
        (b"b\x1b[D\x1b[D\x1b[Da", "ab"),
        (b"ab\x1b[D\x1b[D\x1b[Cx", "axb"),
        (b"ab\x02\x02\x06x", "axb"),
        (b"bc\x01a", "abc"),
        (b"bc\x1b[Ha", "abc"),
        (b"bc\x1b[1~a", "abc"),
        (b"bc\x1b[7~a", "abc"),
        (b"bc\x1bOHa", "abc"),
        (b"ab\x01\x05c", "abc"),
        (b"ab\x01\x1b[Fc", "abc"),
        (b"ab\x01\x1b[4~c", "abc"),
        (b"ab\x01\x1bOFc", "abc"),
        (b"abc\x01\x1b[3~", "bc"),
        (b"abc\x01\x04", "bc"),
        (b"abc\x04", "abc"),
        (b"abc\x02\x15", "c"),
        (b"abc\x02\x0b", "ab"),
        (b"one two  \x17", "one "),
        (b"one two\x17\x17", ""),
        (b"one two\x1b\x7f", "one "),
        (b"one two\x1bbX", "one Xtwo"),
        (b"one two\x1b[1;5D\x1b[1;5DX", "Xone two"),
        (b"one two\x01\x1bfX", "oneX two"),
        (b"one two\x01\x1b[1;5C\x1bfX", "one twoX"),
        (b"ab\x0cc", "abc"),
        // Sequences that mean nothing here.
        (b"a\x1b[15~b", "ab"),
        (b"a\x1b[200~b\x1b[201~", "ab"),
        (b"a\x1b[?1;2cb", "ab"),
        (b"a\x1b[24;80Rb", "ab"),
        (b"a\x1b[[Ab", "ab"),
        (b"a\x1bOPb", "ab"),
        (b"a\x1bxb", "ab"),
        (b"a\x1b]0;title\x07b", "ab"),
        (b"a\x00\x1c\x1db", "ab"),
        // One that never ends, until something that ends it.
        (b"a\x1b[1;1;1;1\x15b", "b"),
        (b"a\x1b]0;title\x15b", "b"),
        (b"a\x1b\x1b[D\x1b[Db", "ba"),
        // UTF-8, and what is none.
        ("naïve €".as_bytes(), "naïve €"),
        ("€x".as_bytes(), "€x"),
        ("aß\x7f".as_bytes(), "a"),
        ("äö\x02\x7fu".as_bytes(), "uö"),
        ("😀!".as_bytes(), "😀!"),
        ("a\u{9b}2Jb".as_bytes(), "a\u{fffd}2Jb"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"a\xe2\x82b", "a\u{fffd}b"),
        (b"a\xc3", "a"),
        (b"a\xe2\x82\x15b", "b"),
        (b"\xc3\xc3\xa4", "\u{fffd}ä"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
    ] {
        let mut expected = expected.to_owned();
        // A character that Enter breaks off.
        if keys.last().is_some_and(|&byte| byte == 0xc3) {
            expected.push('\u{fffd}');
        }
        assert_eq!(line(keys), expected, "{}", keys.escape_ascii());
    }
}

#[test]
fn each_line_end_is_one_enter() {
    for (bytes, lines) in [
        (&b"a\rb\r"[..], 2),
        (b"a\nb\n", 2),
        (b"a\r\nb\r\n", 2),
        (b"a\r\r\n\n", 3),
        (b"\n\n\n", 3),
        (b"\r\n\r\n", 2),
    ] {
        let mut desk = Desk::new();
        desk.type_bytes(bytes);
        assert_eq!(desk.events.len(), lines, "{}", bytes.escape_ascii());
    }
}

#[test]
fn ctrl_c_and_ctrl_d() {
    let mut desk = Desk::typed("some text\x02\x02\x03");
    assert_eq!(desk.events, [Event::Interrupt]);
    assert_eq!(desk.terminal.text(), "tailfold# some text^C\ntailfold#");
    desk.type_bytes(b"x\r\x04");
    assert_eq!(
        desk.events[1..],
        [Event::Line("x".into()), Event::EndOfInput]
    );
    // In a line it deletes, and rings at the end.
    let desk = Desk::typed("ab\x02\x04\x04");
    assert_eq!((desk.shown().as_str(), desk.terminal.bells), ("a", 1));
}

#[test]
fn ctrl_l_empties_the_screen() {
    let desk = Desk::typed("one\rtwo\rthr\x02\x0c\x05ee");
    assert_eq!(desk.terminal.text(), "tailfold# three");
}

#[test]
fn history() {
    let mut desk = Desk::typed("one\rtwo\r\r  \rtwo\rdraft");
    let mut see = |keys: &str, expected: &str| {
        desk.type_bytes(keys.as_bytes());
        assert_eq!(desk.shown(), expected, "after {}", keys.escape_debug());
    };
    see(UP, "two");
    see(UP, "one");
    see(UP, "one");
    see("!", "one!");
    see(DOWN, "two");
    see(DOWN, "draft");
    see(DOWN, "draft");
    // Changes to an old line go with it.
    see("\x10\x10", "one");
    see("\x0e\x0e", "draft");
    see(UP, "two");
    see("s\r", "");
    see(UP, "twos");
    see(UP, "two");
    see("\x03", "");
    see(UP, "twos");
    assert_eq!(desk.terminal.bells, 2);
}

#[test]
fn history_is_bounded() {
    let mut desk = Desk::new();
    for n in 0..1000 {
        desk.type_bytes(format!("line {n}\r").as_bytes());
    }
    desk.type_bytes(UP.repeat(1000).as_bytes());
    assert_eq!(desk.shown(), "line 936");
    assert_eq!(desk.terminal.bells, 936);
}

#[test]
fn line_of_4_kib() {
    let text = "0123456789abcdef".repeat(LINE_MAX / 16);
    let mut desk = Desk::typed(&text);
    assert_eq!(desk.terminal.bells, 0);
    desk.type_bytes(b"more");
    assert_eq!(desk.terminal.bells, 4);
    // The end is in sight, the start is not; at Enter all of it is.
    assert!(desk.shown().ends_with("cdef") && desk.shown().len() < 70);
    desk.type_bytes(b"\x01");
    assert!(desk.shown().starts_with("01234567"), "{}", desk.shown());
    desk.type_bytes(b"\x05\x7f!\r");
    let whole = text[..LINE_MAX - 1].to_owned() + "!";
    assert_eq!(desk.events, [Event::Line(whole.clone())]);
    let rows = desk.terminal.text().replace('\n', "");
    assert!(rows.ends_with(&format!("{}tailfold#", &whole[3000..])));

    // Bytes are counted, not characters.
    let euros = "€".repeat(2000);
    assert_eq!(line(euros.as_bytes()), "€".repeat(LINE_MAX / 3));
}

/// Typing costs a small multiple of itself in output, wherever the line is.
#[test]
fn output_is_bounded() {
    let desk = Desk::typed(&"x".repeat(LINE_MAX));
    assert!(
        desk.terminal.received < 8 * LINE_MAX,
        "{}",
        desk.terminal.received
    );
    let mut desk = Desk::typed("abc");
    let before = desk.terminal.received;
    desk.type_bytes(b"d");
    assert_eq!(desk.terminal.received - before, 1);
    let before = desk.terminal.received;
    desk.type_bytes(b"\x7f");
    assert!(desk.terminal.received - before <= 4);
}

#[test]
fn narrow_and_wide_terminals() {
    for columns in [20, 40, 132] {
        let mut desk = Desk::new();
        desk.terminal = Terminal::new(columns, 5);
        desk.editor.set_columns(columns);
        desk.editor.start(&mut desk.terminal).unwrap();
        let text = "abcdefghij".repeat(30);
        desk.type_bytes(text.as_bytes());
        desk.type_bytes(LEFT.repeat(150).as_bytes());
        desk.type_bytes(RIGHT.repeat(7).as_bytes());
        let at = desk.terminal.column() - PROMPT.len();
        let shown = desk.shown();
        assert!(shown[at..].starts_with('h'), "{columns}: {shown} at {at}");
    }
    let mut editor = Editor::new(PROMPT);
    editor.set_columns(0);
    assert_eq!(editor.columns(), 20);
}

fn completion(word: usize, texts: &[&str]) -> Completion {
    let candidate = |text: &&str| Candidate {
        text: (*text).into(),
        shown: text.rsplit_once('/').map_or(*text, |(_, name)| name).into(),
    };
    Completion {
        word,
        candidates: texts.iter().map(candidate).collect(),
    }
}

#[test]
fn completes() {
    let complete = |desk: &mut Desk, found: &Completion| {
        desk.type_bytes(b"\t");
        assert_eq!(desk.events.pop(), Some(Event::Complete));
        desk.editor.complete(found, &mut desk.terminal).unwrap();
    };
    // None: a bell.
    let mut desk = Desk::typed("cat x");
    complete(&mut desk, &completion(1, &[]));
    assert_eq!((desk.shown().as_str(), desk.terminal.bells), ("cat x", 1));
    // One: all of it, and a blank unless it is a directory.
    let mut desk = Desk::typed("ca");
    complete(&mut desk, &completion(2, &["cat"]));
    desk.type_bytes(b"/pr");
    assert_eq!(desk.shown(), "cat /pr");
    complete(&mut desk, &completion(3, &["/proc/"]));
    desk.type_bytes(b"!");
    assert_eq!(desk.shown(), "cat /proc/!");
    // In the middle of a line.
    let mut desk = Desk::typed("x y\x02\x02");
    complete(&mut desk, &completion(1, &["xenon"]));
    assert_eq!(desk.shown(), "xenon  y");
    // Several: what they share, a bell, a list.
    let found = completion(3, &["/d/abc", "/d/abd", "/d/abde"]);
    let mut desk = Desk::typed("/d/");
    complete(&mut desk, &found);
    assert_eq!((desk.shown().as_str(), desk.terminal.bells), ("/d/ab", 0));
    let found = completion(5, &["/d/abc", "/d/abd", "/d/abde"]);
    complete(&mut desk, &found);
    assert_eq!(desk.terminal.bells, 1);
    assert_eq!(desk.terminal.text(), "tailfold# /d/ab");
    complete(&mut desk, &found);
    assert_eq!(desk.terminal.bells, 1);
    assert_eq!(
        desk.terminal.text(),
        "tailfold# /d/ab\nabc  abd  abde\ntailfold# /d/ab"
    );
    // Another key between the two: no list.
    let mut desk = Desk::typed("/d/ab");
    complete(&mut desk, &found);
    desk.type_bytes(b"\x02\x06");
    complete(&mut desk, &found);
    assert_eq!(
        (desk.terminal.text().lines().count(), desk.terminal.bells),
        (1, 2)
    );
    // A line that is full takes nothing more.
    let mut desk = Desk::typed(&"x".repeat(LINE_MAX));
    complete(&mut desk, &completion(1, &["xyz"]));
    assert_eq!(desk.terminal.bells, 1);
}
