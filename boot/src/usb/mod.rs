//! Writing a USB stick, as carefully as a person's disks deserve.

mod device;
mod write;

use std::io::{IsTerminal, Write};
use std::path::Path;

pub use device::Device;
pub use write::{verify, write_and_verify};

use crate::artifact::{self, Firmware};
use crate::cli::UsbOptions;
use crate::error::Error;
use crate::workspace::Workspace;

/// `usb`: looks at the device, builds the image, asks, writes, reads back.
///
/// # Errors
/// [`Error::Refused`], [`Error::Differs`], and those of building and writing.
pub fn command(options: &UsbOptions) -> Result<(), Error> {
    let refused = |reason: String| Error::Refused {
        device: options.device.display().to_string(),
        reason,
    };
    // Before minutes of building, and again after them.
    let look = |bytes| {
        let device = Device::look(&options.device)?;
        match device.refusal(bytes) {
            Some(reason) => Err(refused(reason)),
            None => Ok(device),
        }
    };
    look(0)?;
    let workspace = Workspace::find()?;
    let images = artifact::build_images(
        &workspace,
        options.kernel.profile(),
        options.append.as_deref(),
        None,
        "tailfold",
    )?;
    let firmware = options.firmware.chosen().unwrap_or(Firmware::Uefi);
    let image = images.get(firmware);
    let bytes = std::fs::metadata(image)
        .map_err(Error::io(format!("reading {}", image.display())))?
        .len();
    let device = look(bytes)?;
    println!("{device}");
    if !options.yes {
        ask(&device).map_err(refused)?;
    }
    write_and_verify(image, Path::new(device.path()))?;
    println!(
        "{bytes} bytes written to {} and read back.\n\
         Next: take the stick out, start the PC from it by {} (Secure Boot off). Verdict and\n\
         report stay on the screen. The kernel's command line is in the file `ramdisk` on the stick.",
        device.path(),
        match firmware {
            Firmware::Bios => "BIOS, also called legacy or CSM boot",
            Firmware::Uefi => "UEFI",
        },
    );
    Ok(())
}

/// Has the person type the device's name.
fn ask(device: &Device) -> Result<(), String> {
    let name = Path::new(device.path()).file_name().map_or_else(
        || device.path().to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    if !std::io::stdin().is_terminal() {
        return Err("there is nobody to ask; say --yes to go on without".to_owned());
    }
    print!("All that is on it will be lost. Type `{name}` to go on: ");
    let mut answer = String::new();
    let read = std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer));
    match read {
        Ok(_) if answer.trim() == name => Ok(()),
        Ok(_) => Err("nothing was written: the answer was another one".to_owned()),
        Err(error) => Err(format!("nothing was written: no answer ({error})")),
    }
}
