//! The file `ramdisk` on an image or a stick: the kernel's command line, and a script for its shell.
//!
//! The boot loader for BIOS finds the file by its long name only. Editors that replace a file leave
//! an entry that has none (a short name with a mark for lower case, which Linux's vfat and Windows
//! make), and the loader then finds nothing. What is written here always has the long name.

use std::io::{Read, Write};
use std::path::Path;

use crate::artifact;
use crate::cli::CmdlineOptions;
use crate::error::Error;
use crate::partition::{mount, open, refused};

/// The file's name.
const NAME: &str = "ramdisk";
/// The line behind which the script starts.
const SECTION: &str = "--- script";
/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Longest command line and script that the kernel reads, in bytes.
const MAX_WORDS: usize = 4096;
const MAX_SCRIPT: usize = 64 << 10;

/// `cmdline`: shows what is there, or writes what is asked for and reads it back.
///
/// # Errors
/// [`Error::Refused`] for what is no image or stick of ours; [`Error::Usage`] for words that cannot
/// be; [`Error::Io`].
pub fn command(options: &CmdlineOptions) -> Result<(), Error> {
    let target = &options.target;
    let Some(words) = &options.words else {
        print!("{}", read(target)?);
        return Ok(());
    };
    check_words(words)?;
    let script = match options.script.as_deref() {
        None => script_of(&read(target)?).map(str::to_owned),
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(Error::io(format!("reading {}", path.display())))?,
        ),
    };
    if let Some(script) = &script {
        check_script(script)?;
    }
    let text = text(words, script.as_deref());
    write(target, &text)?;
    let found = read(target)?;
    if found != text {
        return Err(refused(
            target,
            "what was read back is not what was written",
        ));
    }
    print!("{found}");
    Ok(())
}

/// Refuses words that the kernel would read as something else.
fn check_words(words: &str) -> Result<(), Error> {
    let refused = |why: String| Err(Error::Usage(format!("the kernel command line {why}")));
    if words.trim().is_empty() {
        return refused("has no words; the kernel would take its built-in ones".to_owned());
    }
    if words.trim_start().starts_with("---") {
        return refused("begins with ---, which ends it; put a word before".to_owned());
    }
    if words.len() > MAX_WORDS {
        return refused(format!("has {} bytes, {MAX_WORDS} at most", words.len()));
    }
    match words
        .chars()
        .find(|&c| c == '#' || !(' '..='~').contains(&c))
    {
        Some('#') => refused("has a #, behind which all is comment; leave it out".to_owned()),
        Some(c) => refused(format!("has {c:?}; it is one line of plain ASCII")),
        None => Ok(()),
    }
}

/// Refuses a script that the kernel would cut.
fn check_script(script: &str) -> Result<(), Error> {
    let refused = |why: String| Err(Error::Usage(format!("the script {why}")));
    if script.len() >= MAX_SCRIPT {
        return refused(format!(
            "has {} bytes, fewer than {MAX_SCRIPT} are read",
            script.len()
        ));
    }
    if script.contains(['\0', '\u{1a}']) {
        return refused("has a byte that ends it, 0 or 0x1a".to_owned());
    }
    match script.lines().position(|line| line.starts_with("---")) {
        Some(n) => refused(format!("has --- in line {}, which ends it", n + 1)),
        None => Ok(()),
    }
}

/// The file's text for a command line and a script.
fn text(words: &str, script: Option<&str>) -> String {
    let mut text = artifact::ramdisk_text(words);
    if let Some(script) = script {
        text.push_str(SECTION);
        text.push('\n');
        text.push_str(script.trim_end());
        text.push('\n');
    }
    text
}

/// The script in the file's text, if there is one.
fn script_of(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (line, behind) = rest.split_once('\n')?;
        if line.trim_end() == SECTION {
            return Some(behind);
        }
        rest = behind;
    }
}

/// The file's text; nothing, if there is none.
///
/// # Errors
/// [`Error::Refused`], [`Error::Io`].
pub fn read(target: &Path) -> Result<String, Error> {
    let system = mount(target, false)?;
    let root = system.root_dir();
    let mut bytes = Vec::new();
    // The long name, or an entry that has none, under which its editor left it.
    if let Ok(file) = root.open_file(NAME) {
        file.take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(Error::io(format!("reading {NAME} on {}", target.display())))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes the file, in place of whatever has its name.
///
/// # Errors
/// [`Error::Refused`], [`Error::Io`].
pub fn write(target: &Path, text: &str) -> Result<(), Error> {
    let writing = || Error::io(format!("writing {NAME} on {}", target.display()));
    {
        let system = mount(target, true)?;
        let root = system.root_dir();
        // Before the old file goes: a full partition must not lose it.
        let free = system.stats().map_err(writing())?;
        let free = u64::from(free.free_clusters()) * u64::from(free.cluster_size());
        if free < text.len() as u64 {
            let why = format!("{free} bytes are free on it, and {} are needed", text.len());
            return Err(refused(target, &why));
        }
        if root.open_file(NAME).is_ok() {
            root.remove(NAME).map_err(writing())?;
        }
        let mut file = root.create_file(NAME).map_err(writing())?;
        file.write_all(text.as_bytes()).map_err(writing())?;
        file.flush().map_err(writing())?;
        drop(file);
        drop(root);
        system.unmount().map_err(writing())?;
    }
    open(target, true)?.sync_all().map_err(writing())
}

#[cfg(test)]
mod tests {
    use super::{MAX_SCRIPT, MAX_WORDS, check_script, check_words, script_of, text};

    #[test]
    fn what_the_kernel_would_read_otherwise_is_refused() {
        assert!(check_words("hugepages=0:64,1:8 script=\"a; b\"").is_ok());
        let long = "x".repeat(MAX_WORDS + 1);
        for (words, why) in [
            ("", "no words"),
            ("  ", "no words"),
            ("--- script", "begins with ---"),
            ("a=1 # b", "has a #"),
            ("a=\u{e9}", "plain ASCII"),
            ("a\nb", "plain ASCII"),
            (&long, "4097 bytes"),
        ] {
            let error = check_words(words).unwrap_err().to_string();
            assert!(error.contains(why), "{words:?}: {error}");
        }
        assert!(check_script("echo a\necho '---'\n").is_ok());
        for (script, why) in [
            (String::from("echo a\n--- b\n"), "line 2"),
            (String::from("echo a\0"), "0 or 0x1a"),
            ("x".repeat(MAX_SCRIPT), "65536 bytes"),
        ] {
            let error = check_script(&script).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_script_stays_behind_its_line() {
        let both = text("a=1 b", Some("echo x\necho y\n"));
        assert!(
            both.contains("\na=1 b\n--- script\necho x\necho y\n"),
            "{both}"
        );
        assert_eq!(script_of(&both), Some("echo x\necho y\n"));
        assert_eq!(text("a=1 b", script_of(&both)), both);
        // The header speaks of the line, and is no script.
        let none = text("a=1", None);
        assert_eq!(script_of(&none), None);
    }
}
