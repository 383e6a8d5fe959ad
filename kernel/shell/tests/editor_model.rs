//! The line editor against a model: a text and a cursor, and a screen that must show them.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use shell::{Editor, Event, LINE_MAX};
use support::terminal::Terminal;

const PROMPT: &str = "tailfold# ";

#[derive(Clone, Debug)]
enum Edit {
    Insert(char),
    Paste(String),
    Backspace,
    Delete,
    Left(u8),
    Right(u8),
    Home,
    End,
    KillStart,
    KillEnd,
    KillWord,
    Clear,
    Nothing(Vec<u8>),
    Enter,
}

fn edit() -> impl Strategy<Value = Edit> {
    let c = prop_oneof![
        8 => prop::char::range(' ', '~'),
        1 => prop::char::range('\u{a1}', '\u{24f}'),
        1 => prop::char::range('\u{250}', '\u{10ffff}'),
    ];
    let nothing = prop_oneof![
        Just(b"\x1b[15~".to_vec()),
        Just(b"\x1bOQ".to_vec()),
        Just(b"\x1b[1;2;3m".to_vec()),
        Just(b"\x00".to_vec()),
    ];
    prop_oneof![
        8 => c.prop_map(Edit::Insert),
        3 => "[ -~]{1,90}".prop_map(Edit::Paste),
        3 => Just(Edit::Backspace),
        3 => Just(Edit::Delete),
        4 => (1..100_u8).prop_map(Edit::Left),
        4 => (1..100_u8).prop_map(Edit::Right),
        2 => Just(Edit::Home),
        2 => Just(Edit::End),
        1 => Just(Edit::KillStart),
        1 => Just(Edit::KillEnd),
        2 => Just(Edit::KillWord),
        1 => Just(Edit::Clear),
        1 => nothing.prop_map(Edit::Nothing),
        1 => Just(Edit::Enter),
    ]
}

impl Edit {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Insert(c) => c.to_string().into(),
            Self::Paste(text) => text.clone().into(),
            Self::Backspace => b"\x7f".into(),
            Self::Delete => b"\x1b[3~".into(),
            Self::Left(n) => b"\x1b[D".repeat((*n).into()),
            Self::Right(n) => b"\x06".repeat((*n).into()),
            Self::Home => b"\x1b[H".into(),
            Self::End => b"\x05".into(),
            Self::KillStart => b"\x15".into(),
            Self::KillEnd => b"\x0b".into(),
            Self::KillWord => b"\x17".into(),
            Self::Clear => b"\x0c".into(),
            Self::Nothing(bytes) => bytes.clone(),
            Self::Enter => b"\r".into(),
        }
    }
}

#[derive(Default, Debug)]
struct Model {
    text: Vec<char>,
    cursor: usize,
}

impl Model {
    fn insert(&mut self, c: char) {
        let bytes: usize = self.text.iter().map(|c| c.len_utf8()).sum();
        if bytes + c.len_utf8() <= LINE_MAX {
            self.text.insert(self.cursor, c);
            self.cursor += 1;
        }
    }

    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Insert(c) => self.insert(*c),
            Edit::Paste(text) => text.chars().for_each(|c| self.insert(c)),
            Edit::Backspace => {
                if self.cursor > 0 {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
            }
            Edit::Delete => {
                if self.cursor < self.text.len() {
                    self.text.remove(self.cursor);
                }
            }
            Edit::Left(n) => self.cursor = self.cursor.saturating_sub((*n).into()),
            Edit::Right(n) => {
                self.cursor = self.text.len().min(self.cursor + usize::from(*n));
            }
            Edit::Home => self.cursor = 0,
            Edit::End => self.cursor = self.text.len(),
            Edit::KillStart => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Edit::KillEnd => self.text.truncate(self.cursor),
            Edit::KillWord => {
                let mut back = |blank: bool| {
                    while self.cursor > 0 && (self.text[self.cursor - 1] == ' ') == blank {
                        self.cursor -= 1;
                        self.text.remove(self.cursor);
                    }
                };
                back(true);
                back(false);
            }
            Edit::Clear | Edit::Nothing(_) => {}
            Edit::Enter => {
                self.text.clear();
                self.cursor = 0;
            }
        }
    }

    /// What the terminal shows for it.
    fn visible(&self) -> String {
        let visible = |&c: &char| match c {
            ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}' => c,
            _ => '?',
        };
        self.text.iter().map(visible).collect()
    }
}

/// The row is the prompt, then a part of the line, as wide as fits, with the cursor in it.
#[track_caller]
fn check(model: &Model, terminal: &Terminal, columns: usize) {
    let row: Vec<char> = terminal.line().chars().collect();
    let (prompt, shown) = row.split_at(PROMPT.trim_end().len());
    assert_eq!(prompt.iter().collect::<String>(), PROMPT.trim_end());
    let shown: String = shown.iter().skip(1).collect();
    let width = columns - 1 - PROMPT.len();
    let text: Vec<char> = model.visible().chars().collect();
    let at = terminal.column() - PROMPT.len();
    assert!(at <= model.cursor, "cursor {at} for {model:?}");
    let first = model.cursor - at;
    assert!(text.len() > width || first == 0, "scrolled without need");
    let end = text.len().min(first + width);
    assert!(
        end > model.cursor || end == text.len(),
        "cursor out of sight"
    );
    let expected: String = text[first..end].iter().collect();
    assert_eq!(shown, expected.trim_end(), "{model:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn screen_shows_the_line(
        edits in vec(edit(), 1..80),
        columns in prop_oneof![Just(80), 20..140_usize],
    ) {
        let mut editor = Editor::new(PROMPT);
        editor.set_columns(columns);
        let mut terminal = Terminal::new(columns, 24);
        editor.start(&mut terminal).unwrap();
        let mut model = Model::default();
        for edit in edits {
            for byte in edit.bytes() {
                let event = editor.feed(byte, &mut terminal).unwrap();
                if let Some(Event::Line(line)) = event {
                    prop_assert_eq!(&line, &model.text.iter().collect::<String>());
                    let all = terminal.text().replace('\n', "");
                    if columns == 80 && !model.text.contains(&' ') {
                        prop_assert!(all.ends_with(&model.visible()));
                    }
                    editor.start(&mut terminal).unwrap();
                } else {
                    prop_assert_eq!(event, None);
                }
            }
            model.apply(&edit);
            check(&model, &terminal, columns);
        }
    }

    /// Any bytes at all: nothing breaks, a VT100 understands what comes out, and it comes to
    /// no more than a bounded amount for each.
    #[test]
    fn noise(bytes in vec(any::<u8>(), 1..3000)) {
        let mut editor = Editor::new(PROMPT);
        let mut terminal = Terminal::new(80, 24);
        editor.start(&mut terminal).unwrap();
        for &byte in &bytes {
            let before = terminal.received;
            match editor.feed(byte, &mut terminal).unwrap() {
                Some(Event::Line(line)) => {
                    prop_assert!(line.len() <= LINE_MAX);
                    prop_assert!(!line.contains(char::is_control));
                    editor.start(&mut terminal).unwrap();
                }
                Some(Event::Interrupt) => editor.start(&mut terminal).unwrap(),
                None => prop_assert!(terminal.received - before < 200),
                Some(Event::EndOfInput | Event::Complete) => {}
            }
            prop_assert!(terminal.line().starts_with(PROMPT.trim_end()));
        }
        // Whatever came before: after Ctrl-C a line is a line.
        editor.feed(0x03, &mut terminal).unwrap();
        editor.start(&mut terminal).unwrap();
        for &byte in b"echo" {
            prop_assert_eq!(editor.feed(byte, &mut terminal).unwrap(), None);
        }
        let event = editor.feed(b'\r', &mut terminal).unwrap();
        prop_assert_eq!(event, Some(Event::Line("echo".into())));
    }
}
