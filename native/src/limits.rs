//! How many mappings a process may have.

use std::fs;

use crate::host::HostError;

/// The file that says how many, and can be written by root.
#[doc(alias = "sysctl_max_map_count")]
pub const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// Mappings that the program itself has, about.
const OWN: u64 = 1000;

/// What the file says; what Linux has by default where there is no such file.
#[must_use]
pub fn max_map_count() -> u64 {
    let text = fs::read_to_string(MAX_MAP_COUNT).unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

/// Makes sure that `mappings` more can be made, and raises the host's limit for that if
/// it is too low and we may.
///
/// # Errors
/// [`HostError::TooManyMappings`] if we may not.
pub fn need_mappings(mappings: u64) -> Result<(), HostError> {
    let needed = mappings + OWN;
    if max_map_count() < needed {
        // Whether that worked is what the file says afterwards.
        let _ = fs::write(MAX_MAP_COUNT, needed.to_string());
    }
    let allowed = max_map_count();
    if allowed < needed {
        return Err(HostError::TooManyMappings { needed, allowed });
    }
    Ok(())
}
