//! Numbers and switches as Linux reads them.

/// A number with an optional suffix K, M, G, T, P or E (powers of 1024, either
/// case). `0x` means hexadecimal and a leading 0 octal. `None` if it is anything
/// else, anything follows it, or it does not fit in 64 bits.
#[must_use]
pub fn memparse(text: &str) -> Option<u64> {
    let suffix = text.chars().next_back()?.to_ascii_uppercase();
    // In hexadecimal, E is a digit.
    let hex = text.starts_with("0x") || text.starts_with("0X");
    let power = match suffix {
        'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        'E' if !hex => 6,
        _ => return number(text),
    };
    let digits = &text[..text.len() - 1];
    number(digits)?.checked_mul(1 << (10 * power))
}

/// A number, `0x` for hexadecimal, a leading 0 for octal.
#[doc(alias = "kstrtoull")]
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    digits_of(digits, radix)
}

/// A decimal number.
pub(super) fn decimal(text: &str) -> Option<u64> {
    digits_of(text, 10)
}

fn digits_of(text: &str, radix: u32) -> Option<u64> {
    // `from_str_radix` would take a sign.
    if text.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(text, radix).ok()
}

/// On or off as `kstrtobool` sees it, which looks at the first letter: `1`, `y`,
/// `t`, `e`, `on`, and their opposites `0`, `n`, `f`, `d`, `of`.
#[must_use]
#[doc(alias = "kstrtobool")]
pub fn strtobool(text: &str) -> Option<bool> {
    let mut letters = text.bytes().map(|byte| byte.to_ascii_lowercase());
    match letters.next()? {
        b'1' | b'y' | b't' | b'e' => Some(true),
        b'0' | b'n' | b'f' | b'd' => Some(false),
        b'o' => match letters.next()? {
            b'n' => Some(true),
            b'f' => Some(false),
            _ => None,
        },
        _ => None,
    }
}
