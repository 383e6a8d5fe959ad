//! The few devices this kernel talks to.

pub(crate) mod acpi;
pub(crate) mod framebuffer;
pub(crate) mod fw_cfg;
pub(crate) mod io_apic;
pub(crate) mod keyboard;
pub(crate) mod pic;
pub(crate) mod serial;
