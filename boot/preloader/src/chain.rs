//! The next program on the volume that this one was started from.

use core::fmt;
use core::mem::MaybeUninit;

use uefi::boot::{self, LoadImageSource};
use uefi::proto::BootPolicy;
use uefi::proto::device_path::DevicePath;
use uefi::proto::device_path::build::{BuildError, DevicePathBuilder, media};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CStr16, Handle, Status};

/// Longest path of a device with a file on it, in bytes; those of disks have some hundred.
const PATH_BYTES: usize = 2048;

/// Why a program cannot be started.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Error {
    /// The firmware does not tell the volume, or its path is too long.
    #[error("the firmware does not tell what it was read from")]
    NoVolume,
    /// The firmware cannot read the file, or will not run it.
    #[error("the firmware's answer is {0:?}")]
    NotLoaded(Status),
}

impl<T: fmt::Debug> From<uefi::Error<T>> for Error {
    fn from(error: uefi::Error<T>) -> Self {
        Self::NotLoaded(error.status())
    }
}

impl From<BuildError> for Error {
    fn from(_: BuildError) -> Self {
        Self::NoVolume
    }
}

/// Loads the program `file`, a path from the root of the volume of this one.
///
/// # Errors
/// [`Error`].
pub fn load(file: &CStr16) -> Result<Handle, Error> {
    let this = boot::image_handle();
    let device = boot::open_protocol_exclusive::<LoadedImage>(this)?
        .device()
        .ok_or(Error::NoVolume)?;
    let mut buffer = [MaybeUninit::uninit(); PATH_BYTES];
    let mut path = DevicePathBuilder::with_buf(&mut buffer);
    let volume = boot::open_protocol_exclusive::<DevicePath>(device)?;
    for node in volume.node_iter() {
        path = path.push(&node)?;
    }
    // The next program opens it too.
    drop(volume);
    let device_path = path
        .push(&media::FilePath { path_name: file })?
        .finalize()?;
    let source = LoadImageSource::FromDevicePath {
        device_path,
        boot_policy: BootPolicy::ExactMatch,
    };
    Ok(boot::load_image(this, source)?)
}

/// Starts what [`load`] gave; comes back only if that program gives up.
pub fn start(program: Handle) -> Status {
    boot::start_image(program).map_or_else(|error| error.status(), |()| Status::SUCCESS)
}
