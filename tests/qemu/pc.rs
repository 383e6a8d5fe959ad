//! As a PC would: the images without our runner, from a USB stick, without a
//! serial port, on screens of several sizes.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use boot::artifact::Firmware;
use boot::machine::{Arguments, Bus, Serial};
use boot::qemu::{self, End, Guest, Options};
use boot::screen::{self, Shot, When};
use boot::size::Size;
use boot::verdict;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::boots::hint;
use crate::last_page::check_code;
use crate::machines::machine;
use crate::slots::Slot;

const LIMIT: Duration = Duration::from_secs(300);

/// A test that boots something.
type Test = Box<dyn FnOnce(&Bench) -> Result<(), Failed> + Send>;

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut trial = |name: String, test: Test| {
        let bench = Arc::clone(bench);
        trials.push(Trial::test(format!("pc::{name}"), move || test(&bench)));
    };
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let name = firmware.name();
        trial(
            format!("{name}_image_in_plain_qemu"),
            Box::new(move |bench| plain(bench, firmware)),
        );
        trial(
            format!("{name}_stick_without_serial"),
            Box::new(move |bench| stick(bench, firmware)),
        );
    }
    for (firmware, width, height) in [
        (Firmware::Uefi, 640, 480),
        (Firmware::Uefi, 1024, 768),
        (Firmware::Uefi, 1920, 1080),
        (Firmware::Uefi, 2560, 1600),
        (Firmware::Bios, 1280, 720),
    ] {
        trial(
            format!("{}_screen_{width}x{height}", firmware.name()),
            Box::new(move |bench| picture(bench, firmware, width, height)),
        );
    }
    trials
}

/// The image as `cargo run -- image` writes it, in a QEMU started by hand: it boots
/// with the command line of its `ramdisk`, passes, and stays.
fn plain(bench: &Bench, firmware: Firmware) -> Result<(), Failed> {
    let mut words = vec![
        "-m", "4G", "-display", "none", "-serial", "stdio", "-monitor", "none",
    ];
    let disk = format!(
        "format=raw,snapshot=on,file={}",
        bench.images.get(firmware).display()
    );
    let code = format!(
        "if=pflash,format=raw,readonly=on,file={}",
        bench.ovmf.code.display()
    );
    let vars = format!(
        "if=pflash,format=raw,snapshot=on,file={}",
        bench.ovmf.vars.display()
    );
    words.extend(["-drive", &disk]);
    if firmware == Firmware::Uefi {
        words.extend(["-machine", "q35", "-drive", &code, "-drive", &vars]);
    }
    let log = bench.log(&format!("pc::plain_{}", firmware.name()))?;
    let options = Options {
        limit: Some(LIMIT),
        log: Some(&log),
        ..Options::default()
    };
    let _slot = Slot::take();
    let mut guest = Guest::start(&words.into_iter().collect::<Arguments>(), &options)?;
    while !qemu::is_given(&guest.serial()) && guest.elapsed() < LIMIT {
        if guest.has_ended()? {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    // A moment longer: it has to stay.
    std::thread::sleep(Duration::from_secs(1));
    let stays = !guest.has_ended()?;
    let serial = guest.serial();
    drop(guest);
    let hint = hint(&serial, &log);
    for text in ["Command line is from: ramdisk file", "Tailfold: PASS"] {
        if !serial.contains(text) {
            return Err(Failed::from(format!("`{text}` is not in the log\n{hint}")));
        }
    }
    if stays {
        Ok(())
    } else {
        Err(Failed::from(format!("it ended by itself\n{hint}")))
    }
}

/// Size of the stick: larger than the image, which then ends in the midst of it.
const STICK: u64 = 4 << 30;

/// From a stick on USB 3, without a serial port: only the exit status tells.
fn stick(bench: &Bench, firmware: Firmware) -> Result<(), Failed> {
    let stick = bench
        .workspace
        .target()
        .join(format!("tests-stick-{}.img", firmware.name()));
    std::fs::copy(bench.images.get(firmware), &stick)?;
    File::options().write(true).open(&stick)?.set_len(STICK)?;
    let mut machine = machine(bench, &stick, firmware);
    machine.bus = Bus::Usb;
    machine.serial = Serial::None;
    machine.memory = Size::mib(4096);
    machine.command_line = Some("selftest=on init=poweroff".to_owned());
    let _slot = Slot::take();
    let ended = qemu::run(
        &machine.arguments()?,
        &Options {
            limit: Some(LIMIT),
            ..Options::default()
        },
    )?;
    match ended.end {
        End::Status(status) if status.code() == Some(verdict::PASS) => Ok(()),
        end => Err(Failed::from(format!("{end:?}; {}", ended.stderr))),
    }
}

/// On a screen of this size: when the kernel has come to its verdict, text, bars and the code of
/// the report are on it. (Serial tells when to look; the sticks above have none.)
fn picture(bench: &Bench, firmware: Firmware, width: u32, height: u32) -> Result<(), Failed> {
    let name = format!("pc::screen_{}_{width}x{height}", firmware.name());
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    machine.bus = Bus::Usb;
    machine.screen = Some((width, height));
    machine.command_line =
        Some("hugetlb_free_vmemmap=on hugepages=64 selftest=buddy:* init=halt".to_owned());
    machine.qmp = Some(bench.workspace.target_dir("qmp")?.join(&name[4..]));
    let log = bench.log(&name)?;
    let file = log.with_extension("png");
    let slot = Slot::take();
    screen::shoot(
        &machine,
        &Shot {
            file: &file,
            when: When::Verdict,
            limit: LIMIT,
            log: Some(&log),
        },
    )?;
    drop(slot);
    let drawn = Drawn::read(&file)?;
    let bad = |what: &str| Failed::from(format!("{what}: {drawn:?} in {}", file.display()));
    if (drawn.width, drawn.height) != (width, height) {
        return Err(bad("the screen has another size"));
    }
    if drawn.rows < 10 * LINE {
        return Err(bad("not ten lines of text"));
    }
    if drawn.bar < 8 * 8 {
        return Err(bad("no bar as long as eight characters"));
    }
    if width >= WITH_CODE {
        check_code(&file, &std::fs::read_to_string(&log)?, &bench.commit)?;
    }
    Ok(())
}

/// From this width on the report's code stands beside its text.
const WITH_CODE: u32 = 1024;

/// Height of a line of text in pixels.
const LINE: u32 = 12;

/// What is to be seen on a picture.
#[derive(Debug)]
struct Drawn {
    width: u32,
    height: u32,
    /// Rows with pixels that differ from the corner below right.
    rows: u32,
    /// Longest horizontal run of one colour that is no grey, in pixels.
    bar: usize,
}

impl Drawn {
    fn read(file: &std::path::Path) -> Result<Self, Failed> {
        let bad =
            |what: &dyn std::fmt::Display| Failed::from(format!("{}: {what}", file.display()));
        let open = File::open(file).map_err(|error| bad(&error))?;
        let mut reader = png::Decoder::new(std::io::BufReader::new(open))
            .read_info()
            .map_err(|error| bad(&error))?;
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| bad(&"too large"))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(|error| bad(&error))?;
        let samples = info.color_type.samples();
        let background = bytes[bytes.len() - samples..].to_vec();
        let is_colour = |pixel: &[u8]| pixel[..3].iter().any(|sample| *sample != pixel[0]);
        let (mut rows, mut bar) = (0, 0);
        for row in bytes.chunks_exact(info.line_size) {
            let pixels: Vec<&[u8]> = row.chunks_exact(samples).collect();
            rows += u32::from(pixels.iter().any(|pixel| *pixel != background));
            for run in pixels.chunk_by(|a, b| a == b) {
                if is_colour(run[0]) {
                    bar = bar.max(run.len());
                }
            }
        }
        Ok(Self {
            width: info.width,
            height: info.height,
            rows,
            bar,
        })
    }
}
