//! Paths and the patterns of them.

use alloc::string::String;
use alloc::vec::Vec;

/// What lies between two slashes of a file's path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// This name.
    Name(String),
    /// A number in decimal with something before and behind it.
    Numbered {
        prefix: String,
        suffix: String,
        /// Index of the parameter.
        parameter: usize,
    },
}

/// The names of `path`, without the slashes.
pub(super) fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// The parts of a file's path. `None` if it is no such path.
pub(super) fn parse(path: &str, find: impl Fn(&str) -> Option<usize>) -> Option<Vec<Part>> {
    let parts = path.strip_prefix('/')?.split('/').map(|name| {
        let Some((prefix, rest)) = name.split_once('{') else {
            return (!name.is_empty()).then(|| Part::Name(name.into()));
        };
        let (parameter, suffix) = rest.split_once('}')?;
        Some(Part::Numbered {
            prefix: prefix.into(),
            suffix: suffix.into(),
            parameter: find(parameter)?,
        })
    });
    parts.collect()
}

/// The number in `name` between `prefix` and `suffix`, written as the kernel writes it.
pub(super) fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let shortest = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain && shortest)
}

/// `path` as seen from the directory `from`, without `.`, `..` and doubled slashes. A
/// slash at the end stays: it says that a directory is meant.
#[must_use]
pub fn normalise(from: &str, path: &str) -> String {
    let from = if path.starts_with('/') { "" } else { from };
    let mut kept: Vec<&str> = Vec::new();
    for name in names(from).chain(names(path)) {
        match name {
            "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut result = String::new();
    for name in &kept {
        result.push('/');
        result.push_str(name);
    }
    let directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    if result.is_empty() || directory {
        result.push('/');
    }
    result
}
