//! For tests: leaves the firmware with 5-level paging on, and starts what lay in its place.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "switches paging under the firmware's feet")]

use preloader::chain;
use preloader::levels::{self, Way};
use uefi::{CStr16, Status, cstr16, entry, println};

/// What is under test. `tests/qemu/preloader.rs` puts it there.
const NEXT: &CStr16 = cstr16!("\\EFI\\BOOT\\NEXT.EFI");

#[entry]
fn main() -> Status {
    if !levels::can_be_five() || levels::are_five() {
        println!("five-levels: not a processor with 4 levels on and 5 to be had");
        return Status::UNSUPPORTED;
    }
    let next = match chain::load(NEXT) {
        Ok(next) => next,
        Err(error) => {
            println!("five-levels: {NEXT}: {error}");
            return Status::NOT_FOUND;
        }
    };
    match Way::prepare() {
        // SAFETY: asked above; UEFI maps memory one to one (H-9; UEFI 2.10, 2.3.4).
        Ok(way) => unsafe { way.to_five() },
        Err(error) => {
            println!("five-levels: no memory: {error:?}");
            return Status::OUT_OF_RESOURCES;
        }
    }
    println!("five-levels: paging has 5 levels: {}", levels::are_five());
    chain::start(next)
}
