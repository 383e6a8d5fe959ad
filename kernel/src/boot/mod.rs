//! From the boot loader's world to our own.

pub(crate) mod cmdline;
pub(crate) mod cpus;
pub(crate) mod handoff;
pub(crate) mod image;
pub(crate) mod kernel_map;
pub(crate) mod numa;
pub(crate) mod script;
pub(crate) mod version;
