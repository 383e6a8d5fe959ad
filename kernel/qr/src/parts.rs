//! Text as parts that fit a code each, and back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use crate::base45;
use crate::code::MAX_CHARACTERS;

/// What every part starts with; behind it its number, how many there are, and a colon.
const MARK: &str = "TAILFOLD ";

/// Longest mark: `TAILFOLD 99/99:`.
const MAX_MARK: usize = MARK.len() + 6;

/// Most parts that are read.
const MAX_PARTS: usize = 99;

/// Most bytes of a report that is read: many times what a kernel writes.
const MAX_TEXT: usize = 1 << 20;

/// How hard the text is compressed, 0 to 10.
const EFFORT: u8 = 9;

/// Packs `text` into as many parts as it takes, of nearly one length.
#[must_use]
pub fn pack(text: &str) -> Vec<String> {
    let coded = base45::encode(&compress_to_vec_zlib(text.as_bytes(), EFFORT));
    let count = coded.len().div_ceil(MAX_CHARACTERS - MAX_MARK).max(1);
    let length = coded.len().div_ceil(count);
    (1..=count)
        .map(|number| {
            let piece = &coded[(number - 1) * length..coded.len().min(number * length)];
            format!("{MARK}{number}/{count}:{piece}")
        })
        .collect()
}

/// Why parts cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// A part does not start as [`pack`] starts one.
    #[error("a code that is not a report: one starts with `{MARK}1/`")]
    NotOurs,
    /// A part of the report is not among them; its number, and how many there are.
    #[error("code {0} of {1} is missing; all are needed, in any order")]
    Missing(usize, usize),
    /// Two parts are of different reports.
    #[error("codes of different reports")]
    Mixed,
    /// What they hold together is damaged.
    #[error("the text of the codes is damaged")]
    Damaged,
}

/// Number, count and content of a part.
fn split(part: &str) -> Option<(usize, usize, &str)> {
    // What copies a text may add blanks at its ends, and the content may end in one of its own.
    let (head, content) = part.trim_start().strip_prefix(MARK)?.split_once(':')?;
    let (number, count) = head.split_once('/')?;
    let (number, count) = (number.parse().ok()?, count.parse().ok()?);
    let valid = (1..=count).contains(&number) && count <= MAX_PARTS;
    valid.then_some((number, count, content.trim_end_matches(['\r', '\n'])))
}

/// Reads the text back from its parts, which may come in any order and more than once.
///
/// # Errors
/// [`Unreadable`].
pub fn unpack<S: AsRef<str>>(parts: &[S]) -> Result<String, Unreadable> {
    let mut pieces: Vec<Option<&str>> = Vec::new();
    for part in parts {
        let (number, count, content) = split(part.as_ref()).ok_or(Unreadable::NotOurs)?;
        if pieces.is_empty() {
            pieces.resize(count, None);
        }
        let piece = &mut pieces[..];
        if piece.len() != count || piece[number - 1].is_some_and(|other| other != content) {
            return Err(Unreadable::Mixed);
        }
        piece[number - 1] = Some(content);
    }
    if pieces.is_empty() {
        return Err(Unreadable::NotOurs);
    }
    let count = pieces.len();
    let mut coded = String::new();
    for (number, piece) in (1..).zip(pieces) {
        coded.push_str(piece.ok_or(Unreadable::Missing(number, count))?);
    }
    let packed = base45::decode(&coded).ok_or(Unreadable::Damaged)?;
    let bytes = decompress_to_vec_zlib_with_limit(&packed, MAX_TEXT);
    bytes
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(Unreadable::Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Unreadable, pack, unpack};
    use crate::code::MAX_CHARACTERS;

    proptest! {
        /// Any text comes back, whatever the order of its parts, and each fits a code.
        #[test]
        fn text_comes_back(text in ".{0,3000}", turn in 0_usize..20) {
            let mut parts = pack(&text);
            prop_assert!(parts.iter().all(|part| part.len() <= MAX_CHARACTERS));
            let turn = turn % parts.len();
            parts.rotate_left(turn);
            parts.push(parts[0].clone());
            prop_assert_eq!(unpack(&parts).unwrap(), text);
        }

        /// Nothing that a reader may hand over makes it panic.
        #[test]
        fn nothing_panics(parts in prop::collection::vec("(TAILFOLD )?[0-9]{0,2}/?[0-9]{0,4}:?[A-Z0-9 :/]{0,30}", 0..4)) {
            let _ = unpack(&parts);
        }

        /// A wrong character is noticed.
        #[test]
        fn damage_is_noticed(text in "[a-z ]{1,400}", at in any::<prop::sample::Index>()) {
            let mut part = pack(&text).remove(0).into_bytes();
            let at = 13 + at.index(part.len() - 13);
            part[at] = if part[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(unpack(&[String::from_utf8(part).unwrap()]), Err(Unreadable::Damaged));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        // Does not compress: several parts.
        let mut state = 1_u64;
        let text: String = (0..4000)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                char::from(b'!' + (state >> 58) as u8)
            })
            .collect();
        let parts = pack(&text);
        assert!(parts.len() > 2);
        assert_eq!(
            unpack(&parts[1..]),
            Err(Unreadable::Missing(1, parts.len()))
        );
        assert_eq!(unpack(&[&parts[0], "WIFI:S:x;;"]), Err(Unreadable::NotOurs));
        assert_eq!(unpack::<&str>(&[]), Err(Unreadable::NotOurs));
        assert_eq!(unpack(&[&parts[0], &pack("x")[0]]), Err(Unreadable::Mixed));
        let said = Unreadable::Missing(2, 3).to_string();
        assert_eq!(said, "code 2 of 3 is missing; all are needed, in any order");
    }
}
