//! A control file made of two closures.

use core::fmt;

use super::{ControlFile, Mode};
use crate::errno::Errno;

/// The usual control file.
pub(super) struct Item<R, W> {
    path: &'static str,
    mode: Mode,
    show: R,
    store: W,
}

impl<R, W> Item<R, W>
where
    R: Fn(&[u64], &mut dyn fmt::Write) -> Result<(), Errno>,
    W: Fn(&[u64], &str) -> Result<(), Errno>,
{
    pub(super) const fn new(path: &'static str, mode: Mode, show: R, store: W) -> Self {
        Self {
            path,
            mode,
            show,
            store,
        }
    }
}

impl<R, W> ControlFile for Item<R, W>
where
    R: Fn(&[u64], &mut dyn fmt::Write) -> Result<(), Errno>,
    W: Fn(&[u64], &str) -> Result<(), Errno>,
{
    fn path(&self) -> &str {
        self.path
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn read(&self, at: &[u64], out: &mut dyn fmt::Write) -> Result<(), Errno> {
        (self.show)(at, out)
    }

    fn write(&self, at: &[u64], text: &str) -> Result<(), Errno> {
        (self.store)(at, text)
    }
}
