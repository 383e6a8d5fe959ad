//! What the program does when things go right and wrong, from outside: its
//! messages and exit statuses. The guests are boot sectors, so that no kernel and
//! no boot loader is built for this.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boot::payload::{End, boot_sector};
use tempfile::TempDir;

/// A run of self-tests as the kernel writes it.
const GOOD: &str = "Tailfold 0.0.0\n\
    KTAP version 1\n\
    1..1\n\
    \x20 KTAP version 1\n\
    \x20 # Subtest: a\n\
    \x20 1..2\n\
    \x20 ok 1 b\n\
    \x20 ok 2 c # SKIP no moon\n\
    ok 1 a\n\
    # Totals: pass:1 fail:0 skip:1 total:2\n";

struct Disk {
    dir: TempDir,
    path: PathBuf,
}

fn disk(bytes: &[u8]) -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    // The BIOS takes a stick of a single sector for none.
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(1 << 20), 0);
    std::fs::write(&path, bytes).unwrap();
    Disk { dir, path }
}

fn boot(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
    command.args(arguments).stdin(std::process::Stdio::null());
    command
}

/// For guests that end at once: far more than they need on a busy machine.
const LIMIT: &str = "--timeout=120";

/// Boots `disk` with `options`; gives the exit status and what is on stderr.
fn run(disk: &Path, options: &[&str]) -> (Option<i32>, String) {
    let mut command = boot(options);
    command.args([
        "--accel", "tcg", "--nodes", "1", "--memory", "64M", "--image",
    ]);
    command.arg(disk);
    let output = command.output().unwrap();
    (output.status.code(), stderr(&output))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn test(text: &str, end: End, options: &[&str]) -> (Option<i32>, String) {
    let limit = if end == End::Hang { &[][..] } else { &[LIMIT] };
    run(
        &disk(&boot_sector(text, end)).path,
        &[&["test"], options, limit].concat(),
    )
}

#[test]
fn a_good_run_is_good() {
    let (status, words) = test(GOOD, End::Exit(0x10), &[]);
    assert_eq!(status, Some(0), "{words}");
    assert!(words.contains("1 self-tests passed, 1 skipped"), "{words}");
    assert!(
        words.contains("software emulation (tcg): as asked"),
        "{words}"
    );
}

#[test]
fn a_failed_case_is_named() {
    let text = GOOD
        .replace("  ok 1 b", "  # 1 is not 2\n  not ok 1 b")
        .replace("ok 1 a", "not ok 1 a");
    let (status, words) = test(&text, End::Exit(0x11), &[]);
    assert_eq!(status, Some(3), "{words}");
    assert!(words.contains("1 of 2 self-tests failed: a:b"), "{words}");
}

#[test]
fn a_panic_gives_its_reason() {
    let (status, words) = test("Tailfold\nBail out! out of cheese\n", End::Exit(0x11), &[]);
    assert_eq!(status, Some(4), "{words}");
    assert!(
        words.contains("the kernel stopped: out of cheese"),
        "{words}"
    );
}

#[test]
fn a_panic_that_hangs_is_still_a_panic() {
    let (status, words) = test(
        "Tailfold\nBail out! stuck\n",
        End::Hang,
        &["--timeout", "4"],
    );
    assert_eq!(status, Some(4), "{words}");
}

#[test]
fn status_33_without_a_complete_plan_is_no_pass() {
    let (text, _) = GOOD.split_once("ok 1 a").unwrap();
    let (status, words) = test(text, End::Exit(0x10), &[]);
    assert_eq!(status, Some(5), "{words}");
    assert!(words.contains("suite `a` has no result"), "{words}");
}

#[test]
fn status_35_with_a_complete_plan_is_no_pass() {
    let (status, words) = test(GOOD, End::Exit(0x11), &[]);
    assert_eq!(status, Some(5), "{words}");
}

#[test]
fn a_kernel_that_hangs_is_ended() {
    let (status, words) = test("Tailfold\nthinking\n", End::Hang, &["--timeout", "4"]);
    assert_eq!(status, Some(6), "{words}");
    assert!(words.contains("no verdict after 4 s"), "{words}");
    assert!(words.contains("last words: thinking"), "{words}");
}

#[test]
fn an_image_without_a_kernel_does_not_boot() {
    for (bytes, options) in [
        (boot_sector("", End::Hang), &["test", "--timeout", "4"][..]),
        (vec![0; 1 << 20], &["run", "--timeout", "4"][..]),
        (vec![0; 1 << 20], &["test", "--uefi", "--timeout", "12"][..]),
    ] {
        let (status, words) = run(&disk(&bytes).path, options);
        assert_eq!(status, Some(7), "{options:?}: {words}");
        assert!(words.contains("the image does not boot"), "{words}");
    }
}

#[test]
fn a_reset_is_no_end() {
    let (status, words) = test("Tailfold\n", End::Reset, &[]);
    assert_eq!(status, Some(10), "{words}");
    assert!(words.contains("triple fault"), "{words}");
}

#[test]
fn qemus_refusal_is_passed_on() {
    let (status, words) = test(GOOD, End::Exit(0x10), &["--cpu", "abacus"]);
    assert_eq!(status, Some(10), "{words}");
    assert!(words.contains("abacus"), "{words}");
}

#[test]
fn without_qemu_the_package_is_named() {
    let disk = disk(&boot_sector(GOOD, End::Exit(0x10)));
    let output = boot(&["test", "--accel", "tcg", "--image"])
        .arg(&disk.path)
        .env("PATH", disk.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stderr(&output).contains("install the package qemu-system-x86"));
}

#[test]
fn without_firmware_the_package_is_named() {
    let disk = disk(&boot_sector(GOOD, End::Exit(0x10)));
    let output = boot(&["test", "--uefi", "--image"])
        .arg(&disk.path)
        .env("TAILFOLD_OVMF_CODE", "/nowhere/code.fd")
        .env("TAILFOLD_OVMF_VARS", "/nowhere/vars.fd")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(
        words.contains("/nowhere/code.fd") && words.contains("package ovmf"),
        "{words}"
    );
}

#[test]
fn a_dry_run_prints_the_command_and_needs_nothing() {
    let output = boot(&[
        "run",
        "--dry-run",
        "--memory",
        "4G",
        "--nodes",
        "2",
        "--smp",
        "2",
    ])
    .args(["--append", "selftest=buddy:*,vmemmap:* init=halt"])
    .args(["--image", "/somewhere/my disk.img"])
    .env("PATH", "/nowhere")
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        r"qemu-system-x86_64 -nodefaults \
    -no-user-config \
    -no-reboot \
    -machine q35 \
    -accel tcg \
    -cpu max \
    -smp 2 \
    -m size=4G \
    -object memory-backend-ram,id=m0,size=2G,reserve=off \
    -numa node,nodeid=0,memdev=m0,cpus=0-0 \
    -object memory-backend-ram,id=m1,size=2G,reserve=off \
    -numa node,nodeid=1,memdev=m1,cpus=1-1 \
    -drive 'if=none,id=disk,format=raw,snapshot=on,file=/somewhere/my disk.img' \
    -device ide-hd,drive=disk,bus=ide.0,bootindex=0 \
    -device VGA \
    -display none \
    -serial stdio \
    -monitor none \
    -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
    -fw_cfg 'name=opt/org.tailfold/cmdline,string=selftest=buddy:*,,vmemmap:* init=halt'
"
    );
}

#[test]
fn impossible_machines_are_refused_before_anything_is_built() {
    for (options, word) in [
        (&["--nodes", "0"][..], "--nodes 0"),
        (&["--nodes", "200"][..], "--nodes 200"),
        (&["--smp", "0"][..], "--smp"),
        (&["--memory", "4 apples"][..], "4 apples"),
        (&["--icount", "--accel", "kvm"][..], "--icount"),
        (&["--append", "two\nlines"][..], "one line"),
        (
            &["--image", "/nowhere/x.img", "--accel", "tcg"][..],
            "/nowhere/x.img",
        ),
    ] {
        let output = boot(&[&["run"], options].concat()).output().unwrap();
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {words}");
        assert!(words.contains(word), "{options:?}: {words}");
    }
}

#[test]
fn the_log_is_written() {
    let disk = disk(&boot_sector(GOOD, End::Exit(0x10)));
    let log = disk.dir.path().join("serial.log");
    let (status, words) = run(&disk.path, &["run", LIMIT, "--log", log.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{words}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("# Totals: pass:1"), "{text}");
}

#[test]
fn a_run_that_nobody_watches_ends_at_the_verdict() {
    for (verdict, wanted) in [("PASS", 0), ("FAIL", 5)] {
        let disk = disk(&boot_sector(
            &format!("{GOOD}Tailfold: {verdict}\n"),
            End::Hang,
        ));
        let (status, words) = run(&disk.path, &["run"]);
        assert_eq!(status, Some(wanted), "{words}");
        assert!(words.contains("ended at the kernel's verdict"), "{words}");
    }
}

#[test]
fn a_run_without_any_console_is_refused() {
    let disk = disk(&boot_sector("", End::Hang));
    let (status, words) = run(&disk.path, &["run", "--like-pc"]);
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("--screenshot"), "{words}");
}

#[test]
fn a_guest_is_a_guest_with_any_number_of_nodes() {
    let disk = disk(&boot_sector(GOOD, End::Exit(0x10)));
    let output = boot(&[
        "test",
        "--accel=tcg",
        "--nodes=3",
        "--smp=2",
        "--memory=128M",
        "--like-pc",
        "--bios",
    ])
    .args([LIMIT, "--image"])
    .arg(&disk.path)
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("no KTAP: judged by the exit status alone"));
}

#[test]
fn the_statuses_are_in_the_help() {
    let output = boot(&["--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "run",
        "test",
        "image",
        "bench",
        "usb",
        "--dry-run",
        "Exit status:",
    ] {
        assert!(help.contains(part), "{part} is not in: {help}");
    }
}

#[test]
fn without_debians_packages_nothing_is_compared() {
    let mut command = boot(&["compare-linux", "--only", "linux", "--accel", "tcg"]);
    let output = command.env("PATH", "/var/empty").output().unwrap();
    let words = stderr(&output);
    assert_eq!(output.status.code(), Some(14), "{words}");
    assert!(
        words.contains("skipped: no Linux to compare with"),
        "{words}"
    );
    assert!(words.contains("apt-get"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
}

#[test]
fn a_script_that_makes_no_sense_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.script");
    std::fs::write(&path, "echo 1\n#~ around 3: x\necho 2\n").unwrap();
    let path = path.to_str().unwrap();
    for (script, status, said) in [
        (path, 2, "my.script: line 2: `#~ around 3`"),
        ("no-such-script", 1, "no-such-script.script"),
    ] {
        let output = boot(&["compare-linux", script]).output().unwrap();
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{words}");
        assert!(words.contains(said), "{words}");
    }
}

/// A checkout that was moved or copied together with its `target/` is built where it is now.
#[test]
fn a_moved_checkout_is_built_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("moved");
    let program = moved.join("target/debug/boot");
    for directory in ["boot/src", "target/debug"] {
        std::fs::create_dir_all(moved.join(directory)).unwrap();
    }
    let files = [
        ("Cargo.toml", "[workspace]\nmembers = [\"boot\"]\n"),
        ("boot/Cargo.toml", "[package]\nname = \"boot\"\n"),
        ("boot/src/lib.rs", ""),
    ];
    for (path, text) in files {
        std::fs::write(moved.join(path), text).unwrap();
    }
    std::fs::copy(env!("CARGO_BIN_EXE_boot"), &program).unwrap();
    let by_hand = Command::new(&program)
        .arg("image")
        .env_remove("CARGO_MANIFEST_DIR")
        .output();
    let by_cargo = boot(&["image"])
        .env("CARGO_MANIFEST_DIR", moved.join("boot"))
        .output();
    for output in [by_hand, by_cargo] {
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // This checkout has no kernel, which cargo says, and where it looked.
        assert_eq!(output.status.code(), Some(11), "{said}");
        assert!(said.contains("`kernel`"), "{said}");
        assert!(!moved.join("target/tailfold-bios.img").exists());
    }
}
