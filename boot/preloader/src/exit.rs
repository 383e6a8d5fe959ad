//! The moment in which the boot loader takes the machine over from the firmware.
//!
//! Until then all that runs with firmware that walks 5 levels of tables must find them: its drivers
//! and its code for other processors read CR3 and CR4 at times of their own. From `ExitBootServices`
//! on, nothing of it runs any more but what the loader and Tailfold do not call (UEFI 2.10, 7.4.6),
//! so that function is where paging changes.
#![expect(unsafe_code, reason = "writes a table of the firmware, and calls it")]

use core::ptr::NonNull;

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
        // SAFETY: the firmware's table (H-9); a load of one field.
        let original = unsafe { (*services.as_ptr()).exit_boot_services };
        BEFORE.call_once(|| (way, original));
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
    // SAFETY: what the caller wants to call, with its arguments (H-9).
    let status = unsafe { original(image, key) };
    if status.is_success() && levels::are_five() {
        // SAFETY: five they are; UEFI maps memory one to one (UEFI 2.10, 2.3.4); the firmware has
        // just ended (H-9).
        unsafe { way.to_four() };
    }
    status
}

/// The firmware's table, to which no reference is made: the firmware, and what it has loaded, read
/// and write it, too.
fn services() -> Option<NonNull<BootServices>> {
    let system = table::system_table_raw()?.as_ptr();
    // SAFETY: the entry point got it from the firmware (H-9); a load of one field.
    let services = unsafe { (*system).boot_services };
    NonNull::new(services)
}

/// Puts `function` into the table, and mends the table's checksum.
fn set(services: NonNull<BootServices>, function: ExitBootServices) {
    let at = services.as_ptr();
    // SAFETY: the firmware's table, in memory that programs may write, and do: shim does (H-9).
    unsafe { (*at).exit_boot_services = function };
    // SAFETY: as above: the checksum is of the table with 0 in its place (UEFI 2.10, 4.2).
    unsafe { (*at).header.crc = 0 };
    // SAFETY: as above.
    let length = unsafe { (*at).header.size } as usize;
    // SAFETY: as above.
    let calculate = unsafe { (*at).calculate_crc32 };
    let mut crc = 0;
    // SAFETY: the table is as long as it says (H-9).
    let status = unsafe { calculate(at.cast_const().cast(), length, &mut crc) };
    if status.is_success() {
        // SAFETY: as above.
        unsafe { (*at).header.crc = crc };
    }
}
