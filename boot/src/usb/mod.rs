//! USB.
use crate::cli::UsbOptions;
use crate::error::Error;

/// Placeholder until the next commit.
pub fn command(_: &UsbOptions) -> Result<(), Error> {
    Err(Error::Usage("not yet".to_owned()))
}
