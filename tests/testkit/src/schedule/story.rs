//! What most stories need: a small machine, and a word to those who read.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::World;

/// Boots a machine of 8 MiB, which takes milliseconds: there is one for each schedule.
pub fn small(cpus: usize) -> World {
    World::builder().ram(0, 0, 8).cpus(cpus).boot()
}

/// Tells readers to stop.
#[derive(Debug, Default)]
pub struct Done(AtomicBool);

impl Done {
    /// Tells them.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Does `work` until it is set, at most `times`.
    pub fn until(&self, times: u32, mut work: impl FnMut()) {
        for _ in 0..times {
            work();
            if self.0.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}
