//! What is known of the processor.

use std::fs;
use std::path::Path;

/// The processor that is measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// As `/proc/cpuinfo` names it.
    pub model: String,
    /// Level and bytes of the caches that hold data, lowest first.
    pub caches: Vec<(u64, u64)>,
}

impl Host {
    /// Asks sysfs and procfs. What they do not tell is left out.
    #[must_use]
    pub fn read() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let mut caches: Vec<_> = (0..8).filter_map(cache).collect();
        caches.sort_unstable();
        caches.dedup();
        Self {
            model: model.unwrap_or_else(|| "unknown processor".to_owned()),
            caches,
        }
    }

    /// Bytes of the last-level cache; 32 MiB if the host does not tell.
    #[must_use]
    pub fn llc(&self) -> u64 {
        self.caches.last().map_or(32 << 20, |(_, bytes)| *bytes)
    }
}

fn cache(index: u32) -> Option<(u64, u64)> {
    let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
    let read = |file| {
        let text = fs::read_to_string(Path::new(&folder).join(file)).ok()?;
        Some(text.trim().to_owned())
    };
    if read("type")? == "Instruction" {
        return None;
    }
    let level = read("level")?.parse().ok()?;
    let kib: u64 = read("size")?.strip_suffix('K')?.parse().ok()?;
    Some((level, kib << 10))
}
