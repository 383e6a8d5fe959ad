//! Says what would reset the boot loader, takes 5-level paging back, and starts it.
#![no_std]
#![no_main]

use core::fmt::Write as _;
use core::time::Duration;

use preloader::chain::{self, Error};
use preloader::exit;
use preloader::levels::{self, Way};
use uefi::boot;
use uefi::runtime::{self, VariableVendor};
use uefi::{CStr16, Status, cstr16, entry, system};

/// The boot loader. `boot/src/artifact.rs` puts it there.
const LOADER: &CStr16 = cstr16!("\\EFI\\BOOT\\LOADER.EFI");
/// How long a sentence stays before the firmware goes on to its next entry.
const STAYS: Duration = Duration::from_secs(30);

#[entry]
fn main() -> Status {
    if !has_nx() {
        return refuse(format_args!(
            "the processor has no NX (no-execute), or the setup of the\n\
             firmware has it switched off. Look there for NX, XD, EDB, Execute Disable\n\
             or Data Execution Prevention, and switch it on."
        ));
    }
    let secure = is_boot_secure();
    if secure {
        say(format_args!(
            "Tailfold: Secure Boot is on; the firmware will not start what it has no key for."
        ));
    }
    let loader = match chain::load(LOADER) {
        Ok(loader) => loader,
        Err(Error::NotLoaded(status @ (Status::ACCESS_DENIED | Status::SECURITY_VIOLATION)))
            if secure =>
        {
            return refuse(format_args!(
                "the firmware does not take {LOADER} ({status:?}).\n\
                 Switch Secure Boot off in its setup."
            ));
        }
        Err(error) => {
            return refuse(format_args!(
                "{LOADER} cannot be read ({error}).\n\
                 Write the image to the stick again."
            ));
        }
    };
    if levels::are_five() {
        match Way::prepare() {
            Ok(way) => exit::switch_at_exit(way),
            Err(error) => {
                let _ = boot::unload_image(loader);
                return refuse(format_args!(
                    "the firmware has 5-level paging (LA57) on and no memory\n\
                     below 4 GiB for the way back ({:?}). Switch 5-level paging off in its setup.",
                    error.status()
                ));
            }
        }
    }
    let status = chain::start(loader);
    exit::undo();
    refuse(format_args!("the boot loader gave up ({status:?})."))
}

fn has_nx() -> bool {
    // The bit is clear too where IA32_MISC_ENABLE has NX off (Intel SDM volume 4, table 2-2).
    raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_execute_disable())
}

/// Whether the firmware checks signatures (UEFI 2.10, 3.3).
fn is_boot_secure() -> bool {
    let mut value = [0];
    let name = cstr16!("SecureBoot");
    runtime::get_variable(name, &VariableVendor::GLOBAL_VARIABLE, &mut value).is_ok()
        && value == [1]
}

fn say(what: core::fmt::Arguments<'_>) {
    // A console that takes nothing is no reason to stop.
    let _ = system::with_stdout(|out| writeln!(out, "{what}"));
}

/// Says why there is no boot, gives a person the time to read it, and goes back to the firmware.
fn refuse(why: core::fmt::Arguments<'_>) -> Status {
    say(format_args!("\nTailfold cannot start: {why}"));
    say(format_args!(
        "Press a key to go back to the firmware; it goes on by itself in {} seconds.",
        STAYS.as_secs()
    ));
    wait_for_key();
    Status::UNSUPPORTED
}

/// Waits for a key, [`STAYS`] at most.
fn wait_for_key() {
    const STEP: Duration = Duration::from_millis(50);
    // What was typed before is no answer.
    let _ = system::with_stdin(|keys| keys.reset(false));
    let mut left = STAYS;
    while !left.is_zero() && !system::with_stdin(|keys| matches!(keys.read_key(), Ok(Some(_)))) {
        boot::stall(STEP);
        left = left.saturating_sub(STEP);
    }
}
