//! Base45 (RFC 9285): two bytes are three characters, least significant first; a last single
//! byte is two.

use alloc::string::String;
use alloc::vec::Vec;

const ALPHABET: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

/// Writes `bytes` as text.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for pair in bytes.chunks(2) {
        let value = pair
            .iter()
            .fold(0_usize, |value, b| value << 8 | usize::from(*b));
        let digits = [value % 45, value / 45 % 45, value / 45 / 45];
        for digit in &digits[..=pair.len()] {
            text.push(char::from(ALPHABET[*digit]));
        }
    }
    text
}

/// Reads the bytes back. `None` if `text` is not Base45.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(3) {
        let mut value = 0;
        for c in group.iter().rev() {
            value = value * 45 + ALPHABET.iter().position(|a| a == c)?;
        }
        match group.len() {
            3 => bytes.extend_from_slice(&u16::try_from(value).ok()?.to_be_bytes()),
            2 => bytes.push(u8::try_from(value).ok()?),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    /// The examples of RFC 9285, sections 4.3 and 4.4.
    #[test]
    fn examples_of_the_rfc() {
        for (plain, coded) in [
            ("AB", "BB8"),
            ("Hello!!", "%69 VD92EX0"),
            ("base-45", "UJCLQE7W581"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decode("QED8WEX0").as_deref(), Some(&b"ietf!"[..]));
    }

    /// What nothing encodes to is refused: a value beyond its bytes, a character or a length that
    /// there is not.
    #[test]
    fn nothing_else_is_read() {
        for wrong in [":::", "GGW", "::", "A", "BB8A", "bb8", "B_8", "B\u{e9}"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
        assert_eq!(decode("FGW").as_deref(), Some(&[0xff, 0xff][..]));
    }
}
