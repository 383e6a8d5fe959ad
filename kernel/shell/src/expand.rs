//! Words to what they stand for.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::files::normalise;
use crate::glob::Glob;
use crate::run::Shell;
use crate::syntax::{Piece, Word};

impl Shell<'_> {
    /// The one word that `word` stands for, for a redirection.
    pub(crate) fn one_word(&self, word: &Word) -> Result<String, String> {
        let mut words = Vec::new();
        self.expand(word, &mut words);
        match <[String; 1]>::try_from(words) {
            Ok([word]) => Ok(word),
            Err(_) => {
                let text: String = word.iter().map(Piece::to_string).collect();
                Err(alloc::format!("{text}: ambiguous redirect"))
            }
        }
    }

    /// Adds what `word` stands for to `words`.
    pub(crate) fn expand(&self, word: &Word, words: &mut Vec<String>) {
        let mut text: Vec<(char, bool)> = Vec::new();
        for piece in word {
            match piece {
                Piece::Plain(plain) => text.extend(plain.chars().map(|c| (c, false))),
                Piece::Quoted(quoted) => text.extend(quoted.chars().map(|c| (c, true))),
                Piece::Status => text.extend(self.status.to_string().chars().map(|c| (c, true))),
            }
        }
        let before = words.len();
        if text.iter().any(|&(c, quoted)| !quoted && "*?[".contains(c)) {
            let absolute = text.first().is_some_and(|&(c, _)| c == '/');
            let start = if absolute { "/" } else { "" };
            let names: Vec<&[(char, bool)]> = text.split(|&(c, _)| c == '/').collect();
            self.find(start.into(), &names[usize::from(absolute)..], words);
        }
        if words.len() == before {
            words.push(text.into_iter().map(|(c, _)| c).collect());
        }
    }

    /// Adds the paths below `path` that match `names` to `words`.
    fn find(&self, path: String, names: &[&[(char, bool)]], words: &mut Vec<String>) {
        let Some((name, below)) = names.split_first() else {
            if self
                .files
                .resolve(&normalise(&self.directory, &path))
                .is_ok()
            {
                words.push(path);
            }
            return;
        };
        let slash = if below.is_empty() { "" } else { "/" };
        let glob = Glob::new(name);
        if let Some(name) = glob.literal() {
            return self.find(alloc::format!("{path}{name}{slash}"), below, words);
        }
        let entries = self.files.list(&normalise(&self.directory, &path));
        for entry in entries.unwrap_or_default() {
            if glob.matches(&entry.name) {
                let path = alloc::format!("{path}{}{slash}", entry.name);
                self.find(path, below, words);
            }
        }
    }
}
