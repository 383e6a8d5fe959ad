//! `soak=` and `soak_seed=`.

use super::values::decimal;

/// What `init=soak` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Soak {
    /// How long it takes, in seconds.
    pub seconds: u64,
    /// What the random choices of each CPU follow from.
    pub seed: u64,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            seconds: 600,
            seed: 1,
        }
    }
}

/// The longest soak in seconds: thirty days.
const LONGEST: u64 = 30 * 24 * 3600;

/// `10` and `10m` are minutes, `90s` seconds. `None` for anything else, for no time
/// at all and for more than thirty days.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('s') {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('m').unwrap_or(text), 60),
    };
    let seconds = decimal(digits)?.checked_mul(unit)?;
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}
