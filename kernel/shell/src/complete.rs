//! What may come after what is typed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::editor::{Candidate, Completion};
use crate::files::normalise;
use crate::run::Shell;

impl Shell<'_> {
    /// The ways to go on with `line`, whose end is where the cursor is.
    #[must_use]
    pub fn complete(&self, line: &str) -> Completion {
        let (start, position) = last_word(line);
        let word = &line[start..];
        let texts: Vec<Candidate> = match position {
            Position::Command if !word.contains('/') => {
                let names = self.commands.iter().map(|command| command.name());
                names.filter(|n| n.starts_with(word)).map(same).collect()
            }
            Position::Argument(command) => self.arguments(command, word),
            _ => self.paths(word),
        };
        Completion {
            word: word.chars().count(),
            candidates: texts,
        }
    }

    /// What `command` says, else paths.
    fn arguments(&self, command: &str, word: &str) -> Vec<Candidate> {
        let mut own = Vec::new();
        if command == "help" {
            own.extend(self.commands.iter().map(|known| same(known.name())));
        } else if let Some(command) = self.commands.iter().find(|c| c.name() == command) {
            command.complete(word, &mut |text| own.push(same(text)));
        }
        own.retain(|candidate| candidate.text.starts_with(word));
        if own.is_empty() {
            own = self.paths(word);
        }
        own
    }

    fn paths(&self, word: &str) -> Vec<Candidate> {
        let (directory, name) = word
            .rsplit_once('/')
            .map_or(("", word), |(directory, name)| {
                (&word[..=directory.len()], name)
            });
        let from = normalise(
            &self.directory,
            if directory.is_empty() { "." } else { directory },
        );
        let entries = self.files.list(&from).unwrap_or_default().into_iter();
        let entries = entries.filter(|entry| entry.name.starts_with(name));
        let candidates = entries.map(|entry| {
            let slash = if entry.mode.is_none() { "/" } else { "" };
            let shown = alloc::format!("{}{slash}", entry.name);
            let text = alloc::format!("{directory}{shown}");
            Candidate { text, shown }
        });
        candidates.collect()
    }
}

fn same(text: &str) -> Candidate {
    let text = text.to_string();
    Candidate {
        shown: String::clone(&text),
        text,
    }
}

/// What a word is for.
enum Position<'l> {
    Command,
    /// An argument of this command.
    Argument(&'l str),
    /// The file of a redirection.
    File,
}

/// Where the last word of `line` starts, and what it is for. Quotes are not looked at: no
/// name here needs them.
fn last_word(line: &str) -> (usize, Position<'_>) {
    let simple = line.rfind([';', '|', '&']).map_or(0, |n| n + 1);
    let is_end = |c: char| c == ' ' || c == '\t' || c == '>' || c == '<';
    let start = line.rfind(is_end).map_or(0, |n| n + 1).max(simple);
    let before = line[simple..start].trim_matches([' ', '\t']);
    let position = if before.is_empty() {
        Position::Command
    } else if before.ends_with(['>', '<']) {
        Position::File
    } else {
        Position::Argument(before.split([' ', '\t']).next().unwrap_or(before))
    };
    (start, position)
}
