//! What the shell is to run at boot: `script=` on the command line, a file from the host,
//! or a section of the ramdisk text.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use crate::drivers::fw_cfg::FwCfg;
use crate::warn;

/// The file that QEMU's `-fw_cfg name=...` gives us.
const FW_CFG_FILE: &str = "opt/org.tailfold/script";
/// The line of the ramdisk text behind which the script starts.
const SECTION: &str = "--- script";
/// A line that ends it.
const END: &str = "---";
/// Longest script in bytes.
const MAX_BYTES: usize = 64 << 10;

/// The script, if there is one: the commands of the line `option`, or none of them if the shell
/// does not understand the line; else the host's file; else the section of `ramdisk`. Called once.
pub(crate) fn get(option: Option<&str>, ramdisk: Option<&[u8]>) -> Option<&'static str> {
    let of_line = |line: &str| match shell::split_line(line) {
        Ok(text) => text,
        Err(why) => {
            warn!("script={line}: {why}: nothing of it is run");
            String::new()
        }
    };
    let text = option
        .map(of_line)
        .or_else(from_fw_cfg)
        .or_else(|| ramdisk.and_then(section))?;
    Some(Box::leak(text.into_boxed_str()))
}

fn from_fw_cfg() -> Option<String> {
    let device = FwCfg::detect()?;
    let file = device.find(FW_CFG_FILE)?;
    if file.size > MAX_BYTES {
        warn!(
            "fw_cfg: {FW_CFG_FILE} has {} bytes; only the first {MAX_BYTES} are used",
            file.size
        );
    }
    let mut bytes = vec![0; file.size.min(MAX_BYTES)];
    device.read_file(file, &mut bytes);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines between [`SECTION`] and [`END`], or the end of the text.
pub(crate) fn section(ramdisk: &[u8]) -> Option<String> {
    let text = ramdisk.split(|&b| b == 0 || b == 0x1a).next()?;
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim_end);
    lines.find(|line| *line == SECTION)?;
    let mut script = String::new();
    for line in lines.take_while(|line| !line.starts_with(END)) {
        if script.len() + line.len() >= MAX_BYTES {
            warn!("ramdisk file: the script has more than {MAX_BYTES} bytes; the rest is left out");
            break;
        }
        script.push_str(line);
        script.push('\n');
    }
    Some(script)
}
