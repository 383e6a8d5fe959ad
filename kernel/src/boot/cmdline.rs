//! The command line: where it comes from. What it means is `mm`'s business.

use core::fmt;

use spin::Mutex;

use crate::drivers::fw_cfg::FwCfg;
use crate::warn;

/// Longest command line in bytes.
#[doc(alias = "COMMAND_LINE_SIZE")]
pub(crate) const MAX_BYTES: usize = 4096;

/// The file that QEMU's `-fw_cfg name=...` gives us.
const FW_CFG_FILE: &str = "opt/org.tailfold/cmdline";

/// Without any: test everything, then take commands.
const DEFAULT: &[u8] = b"selftest=on init=shell";

/// Where a command line came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The host, through QEMU.
    FwCfg,
    /// The file `ramdisk` beside the kernel, which a person can edit.
    Ramdisk,
    /// Nowhere.
    BuiltIn,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FwCfg => "fw_cfg",
            Self::Ramdisk => "ramdisk file",
            Self::BuiltIn => "built-in default",
        })
    }
}

static LINE: Mutex<[u8; MAX_BYTES]> = Mutex::new([0; MAX_BYTES]);

/// The command line and where it is from: the host's if it gives one, else the
/// text in `ramdisk`, else the default. Called once.
pub(crate) fn get(ramdisk: Option<&[u8]>) -> (&'static [u8], Source) {
    let line = spin::MutexGuard::leak(LINE.lock());
    let (len, source) = match from_fw_cfg(line) {
        Some(len) => (len, Source::FwCfg),
        None => match ramdisk.map(|text| from_text(text, line)) {
            Some(len) if len > 0 => (len, Source::Ramdisk),
            _ => {
                line[..DEFAULT.len()].copy_from_slice(DEFAULT);
                (DEFAULT.len(), Source::BuiltIn)
            }
        },
    };
    (&line[..len], source)
}

fn from_fw_cfg(line: &mut [u8; MAX_BYTES]) -> Option<usize> {
    let device = FwCfg::detect()?;
    let file = device.find(FW_CFG_FILE)?;
    let len = device.read_file(file, line);
    if len < file.size {
        warn!(
            "fw_cfg: {FW_CFG_FILE} has {} bytes; only the first {MAX_BYTES} are used",
            file.size
        );
    }
    // A file may end in a line break or a zero; inside the line they are blanks.
    for byte in &mut line[..len] {
        if matches!(byte, 0 | b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Some(line[..len].trim_ascii_end().len())
}

/// The words of a text file, on one line: `#` starts a comment, line breaks of any
/// system are blanks, the text ends at a zero byte or at a line that starts with `---`. A byte
/// that no text has makes a blank and one warning. Returns the length.
pub(crate) fn from_text(text: &[u8], line: &mut [u8; MAX_BYTES]) -> usize {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = text.split(|&b| b == 0 || b == 0x1a).next().unwrap_or(&[]);
    let (mut len, mut junk, mut lost) = (0, 0_usize, 0_usize);
    let lines = text.split(|&b| b == b'\n' || b == b'\r');
    for words in lines.take_while(|line| !line.trim_ascii().starts_with(b"---")) {
        let words = words.split(|&b| b == b'#').next().unwrap_or(&[]);
        let words = words.trim_ascii();
        if words.is_empty() {
            continue;
        }
        let blank = (len > 0).then_some(&b' ');
        for &byte in blank.into_iter().chain(words) {
            let Some(to) = line.get_mut(len) else {
                lost += 1;
                continue;
            };
            let is_text = byte == b'\t' || (b' '..=b'~').contains(&byte);
            junk += usize::from(!is_text);
            *to = if is_text { byte } else { b' ' };
            len += 1;
        }
    }
    if junk > 0 {
        warn!("ramdisk file: {junk} bytes that are no plain text taken as blanks");
    }
    if lost > 0 {
        warn!("ramdisk file: more than {MAX_BYTES} bytes of words; {lost} left out");
    }
    len
}
