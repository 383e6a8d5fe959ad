#![cfg_attr(not(test), no_std)]
//! A report as QR codes, for a machine that has a screen and nothing else: text in, the codes
//! out, and back from what a reader has found in them.
//!
//! The text is compressed (zlib, RFC 1950) and written in Base45 (RFC 9285), whose characters are
//! those that a QR code holds in 5.5 bits each. What does not fit one code is spread over
//! several. A reader of codes shows plain text, which can be sent by any means.
//!
//! ```
//! let parts = qr::pack("Tailfold: PASS\n");
//! assert!(parts[0].starts_with("TAILFOLD 1/1:"));
//! assert_eq!(qr::unpack(&parts).unwrap(), "Tailfold: PASS\n");
//! ```

extern crate alloc;

mod base45;
mod code;
mod parts;

pub use code::{Code, QUIET_ZONE};
pub use parts::{Unreadable, pack, unpack};
