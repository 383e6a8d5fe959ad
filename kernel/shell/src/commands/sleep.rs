//! `sleep`, in the words of coreutils.

use core::fmt;

use super::Command;
use crate::context::Context;
use crate::io::Status;

/// `sleep NUMBER[smhd]...`: the sum.
#[derive(Debug)]
pub(super) struct Sleep;

impl Command for Sleep {
    fn name(&self) -> &'static str {
        "sleep"
    }

    fn usage(&self) -> &'static str {
        "NUMBER[smhd]..."
    }

    fn about(&self) -> &'static str {
        "wait for some seconds, minutes, hours, days"
    }

    fn run(&self, args: &[&str], context: &mut Context<'_>) -> Result<Status, fmt::Error> {
        if args.is_empty() {
            super::complain("sleep", format_args!("missing operand"), &mut context.io)?;
            return Ok(1);
        }
        let mut total: u64 = 0;
        for arg in args {
            let Some(micros) = micros(arg) else {
                let what = format_args!("invalid time interval '{arg}'");
                super::complain("sleep", what, &mut context.io)?;
                return Ok(1);
            };
            total = total.saturating_add(micros);
        }
        let start = context.io.host().micros();
        while context.io.host().micros().saturating_sub(start) < total {
            if context.io.interrupted() {
                return Err(fmt::Error);
            }
            context.io.host().idle();
        }
        Ok(0)
    }
}

/// A time in microseconds; what does not fit is the longest that does.
fn micros(text: &str) -> Option<u64> {
    let (text, unit) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        b'd' => (&text[..text.len() - 1], 86400),
        _ => (text, 1),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds = match whole {
        "" => 0,
        whole => whole.parse().unwrap_or(u64::MAX),
    };
    // Six digits of the fraction, with zeros for those that are missing.
    let padded = fraction.bytes().chain(core::iter::repeat(b'0')).take(6);
    let part = padded.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let micros = seconds.saturating_mul(1_000_000).saturating_add(part);
    Some(micros.saturating_mul(unit))
}
