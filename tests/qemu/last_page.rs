//! The last page, on the smallest screen: its text and its code can be turned to, and take turns
//! where there is no keyboard.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot::artifact::Firmware;
use boot::photo;
use boot::qemu::{Guest, Options};
use boot::screen::Qmp;
use boot::size::Size;
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::Bench;
use crate::machine_checks::wait;
use crate::machines::machine;
use crate::slots::Slot;

const LIMIT: Duration = Duration::from_secs(180);

/// Longest time until pages that take turns have shown the code: every page stays 12 seconds.
const TURNS: Duration = Duration::from_secs(90);

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let with = |name: &str, test: fn(&Bench) -> Result<(), Failed>| {
        let bench = Arc::clone(bench);
        Trial::test(format!("last_page::{name}"), move || test(&bench))
    };
    vec![
        with("is_turned_by_keys", keys),
        with("turns_without_a_keyboard", turns),
    ]
}

/// A guest at its prompt, and what it takes to look at its screen.
struct Session {
    guest: Guest,
    qmp: Qmp,
    file: PathBuf,
    commit: String,
}

impl Session {
    fn start(bench: &Bench, name: &str, more: &[&str]) -> Result<Self, Failed> {
        let firmware = Firmware::Uefi;
        let socket = bench.socket(name)?;
        let mut machine = machine(bench, bench.images.get(firmware), firmware);
        machine.memory = Size::mib(1024);
        machine.screen = Some((640, 480));
        machine.qmp = Some(socket.clone());
        machine.command_line =
            Some("hugetlb_free_vmemmap=on hugepages=16 selftest=buddy:* init=shell".to_owned());
        let log = bench.log(&format!("last_page::{name}"))?;
        let options = Options {
            limit: Some(LIMIT),
            log: Some(&log),
            ..Options::default()
        };
        let mut arguments = machine.arguments()?;
        for word in more {
            arguments.flag(word);
        }
        let mut guest = Guest::start(&arguments, &options)?;
        wait(&mut guest, "tailfold# ")?;
        let qmp = Qmp::connect(&socket)?;
        let _ = std::fs::remove_file(&socket);
        let file = log.with_extension("png");
        let commit = bench.commit.clone();
        Ok(Self {
            guest,
            qmp,
            file,
            commit,
        })
    }

    /// The screen, when it has been the same for a while.
    fn look(&mut self) -> Result<Vec<u8>, Failed> {
        let mut last = Vec::new();
        for _ in 0..40 {
            let arguments = json!({ "filename": self.file, "format": "png" });
            self.qmp.call("screendump", &arguments)?;
            let picture = std::fs::read(&self.file)?;
            if picture == last {
                return Ok(picture);
            }
            last = picture;
            std::thread::sleep(Duration::from_millis(500));
        }
        Err("the screen does not come to rest".into())
    }

    fn press(&mut self, key: &str) -> Result<Vec<u8>, Failed> {
        let keys = json!({ "keys": [{ "type": "qcode", "data": key }] });
        self.qmp.call("send-key", &keys)?;
        std::thread::sleep(Duration::from_millis(300));
        self.look()
    }

    /// Checks that the code on the screen is the text on serial.
    fn check_code(&mut self) -> Result<(), Failed> {
        check_code(&self.file, &self.guest.serial(), &self.commit)
    }
}

/// Checks that the code in the picture `file` holds the report that is in `serial`, and which
/// `commit` it is of.
pub(crate) fn check_code(file: &std::path::Path, serial: &str, commit: &str) -> Result<(), Failed> {
    let text = photo::text(&photo::codes(file)?)?;
    let first = text.lines().next().unwrap_or_default();
    let whole = first.starts_with("Tailfold ") && text.contains("\nSelf-tests: ");
    if !first.contains(commit) {
        return Err(format!("`{first}` does not name the commit {commit}").into());
    }
    if whole && serial.replace('\r', "").contains(&text) {
        Ok(())
    } else {
        Err(format!("the code holds another text than serial:\n{text}\n---\n{serial}").into())
    }
}

/// Page Up leads to the code, then to the log; Page Down back; another key to the text, which is
/// as it was.
fn keys(bench: &Bench) -> Result<(), Failed> {
    let _slot = Slot::take();
    let mut session = Session::start(bench, "keys", &[])?;
    let text = session.look()?;
    let code = session.press("pgup")?;
    session.check_code()?;
    let log = session.press("pgup")?;
    let earlier = session.press("pgup")?;
    if [&text, &code, &earlier].contains(&&log) || earlier == text {
        return Err("Page Up does not show the log, page by page".into());
    }
    if session.press("pgdn")? != log || session.press("pgdn")? != code {
        return Err("Page Down does not lead back".into());
    }
    // Backspace, which changes nothing on an empty line.
    if session.press("backspace")? != text {
        return Err("another key does not show the text as it was".into());
    }
    if photo::codes(&session.file).is_ok() {
        return Err("there is no room for the code beside the text, and it is there".into());
    }
    Ok(())
}

/// Without a keyboard the kernel says so, and the code and the text come by turns.
fn turns(bench: &Bench) -> Result<(), Failed> {
    let slot = Slot::take();
    let mut session = Session::start(bench, "turns", &["-machine", "i8042=off"])?;
    // It sleeps from here on.
    drop(slot);
    let said = "No keyboard answers (USB keyboards are not driven)";
    if !session.guest.serial().contains(said) {
        return Err(format!("`{said}` is not in the log\n{}", session.guest.serial()).into());
    }
    let started = Instant::now();
    let mut seen = Vec::new();
    let mut code_seen = false;
    while !(code_seen && seen.len() > 2) {
        if started.elapsed() > TURNS {
            return Err(format!("{} pages, code: {code_seen}", seen.len()).into());
        }
        let page = session.look()?;
        if photo::codes(&session.file).is_ok() {
            session.check_code()?;
            code_seen = true;
        }
        if !seen.contains(&page) {
            seen.push(page);
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(())
}
