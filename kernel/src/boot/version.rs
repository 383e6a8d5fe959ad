//! Which Tailfold this is.
#![expect(unsafe_code, reason = "puts a static into a section of its own")]

use core::sync::atomic::{AtomicU8, Ordering};

use ktest::Text;

/// Bytes of a commit's name, and of what may be said of it.
const BYTES: usize = 32;

/// The commit, in ASCII with zeros behind it. All zero in the file that the compiler makes: who
/// makes an image writes it there, so that a commit does not cost a compilation.
///
/// Atomic, for the compiler would take the zeros of a plain static for its value. The section
/// holds nothing else, and who writes to it in the file keeps its size (H-6).
#[unsafe(link_section = ".tailfold.commit")]
#[used]
static COMMIT: [AtomicU8; BYTES] = [const { AtomicU8::new(0) }; BYTES];

/// The version, and the commit behind it if the image says which.
pub(crate) fn version() -> Text<80> {
    let commit = COMMIT.each_ref().map(|byte| byte.load(Ordering::Relaxed));
    let commit = commit.split(|byte| *byte == 0).next();
    let commit = commit.and_then(|bytes| str::from_utf8(bytes).ok());
    let version = env!("CARGO_PKG_VERSION");
    match commit {
        Some(commit) if !commit.is_empty() => Text::of(format_args!("{version} ({commit})")),
        _ => Text::of(format_args!("{version}")),
    }
}
