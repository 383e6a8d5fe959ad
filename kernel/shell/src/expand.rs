//! Words to what they stand for.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::files::normalise;
use crate::glob::Glob;
use crate::run::Shell;
use crate::syntax::{Piece, Word};

/// Most memory that the words of a command take, in bytes, with [`WORD_COST`] for each.
#[doc(alias = "ARG_MAX")]
const WORDS_MAX: usize = 128 << 10;
/// What a word takes besides its text.
const WORD_COST: usize = 48;
/// Most directories that are looked at for one pattern. Each `*/..` multiplies the work.
const VISITS_MAX: usize = 2048;

/// A character of a word, and whether it was quoted.
type Quoted = (char, bool);

impl Shell<'_> {
    /// What the words of a command stand for.
    ///
    /// # Errors
    /// If it is too much. The text is what to say.
    pub(crate) fn expand_all(&self, all: &[Word]) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        for word in all {
            self.expand(word, &mut words)?;
            let size: usize = words.iter().map(|word| word.len() + WORD_COST).sum();
            if size > WORDS_MAX {
                let name: &str = words.first().map_or("", |name| name);
                return Err(alloc::format!("{name}: Argument list too long"));
            }
        }
        Ok(words)
    }

    /// The one word that `word` stands for, for a redirection.
    ///
    /// # Errors
    /// If it stands for several. The text is what to say.
    pub(crate) fn one_word(&self, word: &Word) -> Result<String, String> {
        let mut words = Vec::new();
        self.expand(word, &mut words)?;
        match <[String; 1]>::try_from(words) {
            Ok([word]) => Ok(word),
            Err(_) => {
                let text: String = word.iter().map(Piece::to_string).collect();
                Err(alloc::format!("{text}: ambiguous redirect"))
            }
        }
    }

    /// Adds what `word` stands for to `words`: the paths it matches, else itself.
    fn expand(&self, word: &Word, words: &mut Vec<String>) -> Result<(), String> {
        let mut text: Vec<Quoted> = Vec::new();
        for piece in word {
            match piece {
                Piece::Plain(plain) => text.extend(plain.chars().map(|c| (c, false))),
                Piece::Quoted(quoted) => text.extend(quoted.chars().map(|c| (c, true))),
                Piece::Status => text.extend(self.status.to_string().chars().map(|c| (c, true))),
            }
        }
        let itself = || text.iter().map(|&(c, _)| c).collect::<String>();
        let mut found = Vec::new();
        if text.iter().any(|&(c, quoted)| !quoted && "*?[".contains(c)) {
            let paths = self.find(&text);
            found = paths.ok_or_else(|| alloc::format!("{}: too many matches", itself()))?;
        }
        if found.is_empty() {
            found.push(itself());
        }
        words.append(&mut found);
        Ok(())
    }

    /// The paths that match `pattern`, in order. `None` if it takes too long.
    fn find(&self, pattern: &[Quoted]) -> Option<Vec<String>> {
        let absolute = pattern.first().is_some_and(|&(c, _)| c == '/');
        let names = pattern.split(|&(c, _)| c == '/').skip(absolute.into());
        let mut paths = vec![String::from(if absolute { "/" } else { "" })];
        let mut visits = 0;
        let mut names = names.peekable();
        while let Some(name) = names.next() {
            let slash = if names.peek().is_some() { "/" } else { "" };
            let glob = Glob::new(name);
            let mut below = Vec::new();
            for path in paths {
                if let Some(name) = glob.literal() {
                    below.push(alloc::format!("{path}{name}{slash}"));
                    continue;
                }
                visits += 1;
                if visits > VISITS_MAX {
                    return None;
                }
                let entries = self.files.list(&normalise(&self.directory, &path));
                let entries = entries.unwrap_or_default().into_iter();
                let matching = entries.filter(|entry| glob.matches(&entry.name));
                below.extend(matching.map(|e| alloc::format!("{path}{}{slash}", e.name)));
            }
            paths = below;
            if paths.len() > VISITS_MAX {
                return None;
            }
        }
        let exists = |path: &String| {
            self.files
                .resolve(&normalise(&self.directory, path))
                .is_ok()
        };
        paths.retain(exists);
        Some(paths)
    }
}
