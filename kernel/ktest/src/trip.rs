//! Makes a case end at one of its checks, though the check holds: how a test finds out whether cases
//! clean up however they end.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Stop;

/// The check to end at, counted from 1; 0: none, and checks are not counted.
///
/// All are Relaxed: they are set and read by the thread that runs the cases.
static AT: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static AS_SKIP: AtomicBool = AtomicBool::new(false);

/// How a case is made to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// As if the check had not held.
    Fails,
    /// As if the case could not go on here.
    Skips,
}

/// From now on the `nth` check ends its case, counted from 1. `u64::MAX` only counts, and 0 ends it.
pub fn trip_at(nth: u64, how: How) {
    if nth > 0 {
        SEEN.store(0, Ordering::Relaxed);
    }
    AS_SKIP.store(how == How::Skips, Ordering::Relaxed);
    AT.store(nth, Ordering::Relaxed);
}

/// Returns how many checks there were since [`trip_at`] was last given one.
pub fn checks_seen() -> u64 {
    SEEN.load(Ordering::Relaxed)
}

/// Counts a check. Returns what the case ends with, if this check is the one.
#[doc(hidden)]
#[inline]
pub fn trip(file: &'static str, line: u32) -> Option<Stop> {
    let at = AT.load(Ordering::Relaxed);
    if at == 0 {
        None
    } else {
        counted(at, file, line)
    }
}

#[cold]
fn counted(at: u64, file: &'static str, line: u32) -> Option<Stop> {
    let seen = SEEN.load(Ordering::Relaxed) + 1;
    SEEN.store(seen, Ordering::Relaxed);
    if seen != at {
        return None;
    }
    Some(if AS_SKIP.load(Ordering::Relaxed) {
        Stop::skipped(format_args!("made to end at {file}:{line}"))
    } else {
        Stop::failed(file, line, format_args!("made to end"))
    })
}
