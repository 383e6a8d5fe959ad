//! The moment in which the boot loader takes the machine over from the firmware.
//!
//! Until then all that runs with firmware that walks 5 levels of tables must find them: its drivers
//! and its code for other processors read CR3 and CR4 at times of their own. From `ExitBootServices`
//! on, nothing of it runs any more but what the loader and Tailfold do not call (UEFI 2.10, 7.4.6),
//! so that function is where paging changes.
#![expect(unsafe_code, reason = "writes a table of the firmware, and calls it")]

use core::ptr;

use spin::Once;
use uefi::{Status, table};
use uefi_raw::table::boot::BootServices;

use crate::levels::{self, Way};

type ExitBootServices = unsafe extern "efiapi" fn(uefi_raw::Handle, usize) -> Status;

/// The way to 4 levels, and the firmware's own function.
static BEFORE: Once<(Way, ExitBootServices)> = Once::new();

/// Lets `ExitBootServices` of every program switch to 4 levels by `way` when it has succeeded.
pub fn switch_at_exit(way: Way) {
    if let Some(services) = services() {
        BEFORE.call_once(|| (way, services.exit_boot_services));
        set(services, exit_boot_services);
    }
}

/// Undoes [`switch_at_exit`]: the program came back.
pub fn undo() {
    if let (Some(services), Some((_, original))) = (services(), BEFORE.get()) {
        set(services, *original);
    }
}

unsafe extern "efiapi" fn exit_boot_services(image: uefi_raw::Handle, key: usize) -> Status {
    let Some((way, original)) = BEFORE.get() else {
        return Status::NOT_READY;
    };
    // SAFETY: what the caller wants to call, with its arguments.
    let status = unsafe { original(image, key) };
    if status.is_success() && levels::are_five() {
        // SAFETY: five they are; UEFI maps memory one to one (UEFI 2.10, 2.3.4); the firmware has
        // just ended.
        unsafe { way.to_four() };
    }
    status
}

/// The firmware's table; one reference at a time.
fn services() -> Option<&'static mut BootServices> {
    // SAFETY: the entry point got it from the firmware.
    let services = unsafe { table::system_table_raw()?.as_ref() }.boot_services;
    // SAFETY: it is there until boot services end, in memory that programs may write and which
    // others (shim) write too. The crate `uefi` keeps no reference to it between calls.
    unsafe { services.as_mut() }
}

/// Puts `function` into the table, and mends the table's checksum.
fn set(services: &mut BootServices, function: ExitBootServices) {
    services.exit_boot_services = function;
    services.header.crc = 0;
    let (bytes, length) = (ptr::from_ref(services), services.header.size as usize);
    let mut crc = 0;
    // SAFETY: the table is as long as it says.
    let status = unsafe { (services.calculate_crc32)(bytes.cast(), length, &mut crc) };
    if status.is_success() {
        services.header.crc = crc;
    }
}
