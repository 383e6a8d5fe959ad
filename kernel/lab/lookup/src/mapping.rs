//! What maps a memmap: pages of 2 MiB, or of 4 KiB, which cost more TLB misses.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use mm::addr::VirtRange;

/// What maps a memmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// Pages of 2 MiB throughout, as in a kernel with HVO off.
    Large,
    /// Pages of 4 KiB, with HVO off: no kernel does that. It tells apart what HVO costs in
    /// TLB misses from what it saves in caches.
    Small,
    /// HVO on: pages of 4 KiB where something is folded, and of 2 MiB elsewhere.
    Folded,
}

impl Mapping {
    /// As numbers for programs spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Large => "2m",
            Self::Small => "4k",
            Self::Folded => "hvo",
        }
    }
}

/// Where the host tells what it has mapped.
const SMAPS: &str = "/proc/self/smaps";

/// Bytes in each of `ranges` that the host maps by pages of 2 MiB.
pub(super) fn by_large_pages(ranges: &[VirtRange]) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; ranges.len()];
    let mut start = 0;
    for line in BufReader::new(File::open(SMAPS)?).lines() {
        let line = line?;
        if let Some(kib) = line.strip_prefix("ShmemPmdMapped:") {
            let kib: u64 = kib.trim_end_matches("kB").trim().parse().unwrap_or(0);
            let inside =
                |range: &VirtRange| (range.start.as_u64()..range.end.as_u64()).contains(&start);
            if let Some(n) = ranges.iter().position(inside) {
                bytes[n] += kib << 10;
            }
        } else if let Some((from, _)) = line.split_once('-')
            && let Ok(from) = u64::from_str_radix(from, 16)
        {
            start = from;
        }
    }
    Ok(bytes)
}
