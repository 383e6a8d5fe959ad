//! Numbers as Linux's control files take them.

use crate::errno::Errno;

/// A number as files of sysfs take it: digits of `base` (0: `0x` is 16, a leading `0` is 8,
/// else 10), a `+` before them, one line break after them, and nothing else.
///
/// # Errors
/// [`Errno::EINVAL`] for anything else, [`Errno::ERANGE`] for what needs more than 64 bits.
pub fn kstrtoul(text: &str, base: u32) -> Result<u64, Errno> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (digits, base) = digits_of(text, base);
    let (value, rest) = number(digits, base)?;
    if rest.is_empty() {
        value.ok_or(Errno::ERANGE)
    } else {
        Err(Errno::EINVAL)
    }
}

/// A number as files of `/proc/sys` take it: blanks before it, `0x` and a leading `0` as
/// in C, a blank or the end after it. What comes behind the blank is ignored.
///
/// # Errors
/// [`Errno::EINVAL`] for anything else, a negative number and one of more than 64 bits.
#[doc(alias = "proc_doulongvec_minmax")]
pub fn sysctl_ulong(text: &str) -> Result<u64, Errno> {
    sysctl_digits(text.trim_ascii_start())
}

/// A switch as files of `/proc/sys` take it: a number as [`sysctl_ulong`] takes it, or a
/// negative one; all but 0 are `true`.
///
/// # Errors
/// As [`sysctl_ulong`].
#[doc(alias = "proc_dobool")]
pub fn sysctl_bool(text: &str) -> Result<bool, Errno> {
    let text = text.trim_ascii_start();
    sysctl_digits(text.strip_prefix('-').unwrap_or(text)).map(|value| value != 0)
}

/// A number at the start of `text`, and a blank or the end behind it.
fn sysctl_digits(text: &str) -> Result<u64, Errno> {
    let (digits, base) = digits_of(text, 0);
    let (value, rest) = number(digits, base)?;
    if rest.is_empty() || rest.starts_with([' ', '\t', '\n']) {
        value.ok_or(Errno::EINVAL)
    } else {
        Err(Errno::EINVAL)
    }
}

/// The digits behind the prefix of a base, and the base.
fn digits_of(text: &str, base: u32) -> (&str, u32) {
    let hex = (text.strip_prefix("0x").or(text.strip_prefix("0X")))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()));
    match (base, hex) {
        (0 | 16, Some(rest)) => (rest, 16),
        (0, None) if text.starts_with('0') => (text, 8),
        (0, None) => (text, 10),
        _ => (text, base),
    }
}

/// The number that `text` starts with, `None` if it does not fit, and what follows it.
fn number(text: &str, base: u32) -> Result<(Option<u64>, &str), Errno> {
    let end = text.find(|c: char| !c.is_digit(base)).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Err(Errno::EINVAL);
    }
    Ok((u64::from_str_radix(digits, base).ok(), rest))
}
