//! Noise on the wire: random bytes at full speed into a shell that must live through it.
//!
//! Each seed is the same bytes every time. `NOISE_SEED=N` types those of one seed; what was
//! typed is beside the log.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boot::accel;
use boot::artifact::Firmware;
use boot::machine::Machine;
use libtest_mimic::{Failed, Trial};

use crate::Bench;
use crate::machines::machine;
use crate::slots::Slot;

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// Bytes of a seed, about.
const BYTES: usize = 6 << 10;
/// Longest time to a prompt, on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// Longest time to an answer behind the noise of a seed.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How often a guest that has ended is noticed.
const STEP: Duration = Duration::from_millis(200);
const PROMPT: &str = "tailfold# ";

/// Words and signs that are next to each other by chance. None ends the machine or runs
/// for minutes, and nor do the [`LINES`].
const WORDS: &[&str] = &[
    "echo",
    "cat",
    "ls",
    "help",
    "mmap",
    "touch",
    "madvise",
    "2M",
    "-1",
    "private",
    "node",
    "99999999999999999999",
    "/proc/meminfo",
    "/proc/../sys",
    "*",
    "/*/*/*",
    "[!",
    "$?",
    "$",
    "\"",
    "'",
    "\\",
    "|",
    "||",
    "&&",
    "&",
    ";",
    ">",
    "<",
    "2>&1",
    ">/dev/null",
    "#",
    "(",
    "`",
];

/// Lines in which `@` is a number below ten.
const LINES: &[&str] = &[
    "echo @ > /proc/sys/vm/nr_hugepages",
    "echo @ > /proc/sys/vm/nr_overcommit_hugepages",
    "echo @ > /proc/sys/vm/hugetlb_optimize_vmemmap",
    "mmap 2M @ private noreserve",
    "mmap 2M @ shared node @",
    "touch -w @ @-@",
    "touch @",
    "fork @",
    "madvise @ @",
    "munmap @ @",
    "memfill 50@000",
    "memfill free | cat",
    "grep -v '[@-9]' /proc/vmstat",
    "cat /proc/*info > /dev/null; ls /sys/devices/system/node/node@",
    "kpageflags @@@ @@",
    "sleep 0.@",
];

/// What is typed when the shell has nothing else to do, a seed each: Ctrl-C has to end it.
const OPEN: [&[u8]; 5] = [
    b"sleep 60\r",
    b"\x1b[12;",
    b"\x1b]0;title",
    b"echo \xf0\x9f",
    b"echo \"",
];

pub(crate) fn trials(bench: &Arc<Bench>) -> Vec<Trial> {
    let bench = Arc::clone(bench);
    vec![Trial::test("shell::noise", move || noise(&bench))]
}

fn noise(bench: &Bench) -> Result<(), Failed> {
    let seeds = match std::env::var("NOISE_SEED") {
        Ok(text) => {
            let seed = text.parse();
            vec![seed.map_err(|_| format!("NOISE_SEED={text}: not a number; such as 1"))?]
        }
        Err(_) => SEEDS.to_vec(),
    };
    let log = bench.log("shell::noise")?;
    let firmware = Firmware::Bios;
    let mut machine = machine(bench, bench.images.get(firmware), firmware);
    machine.nodes = 2;
    machine.command_line = Some("selftest=off hugetlb_free_vmemmap=on hugepages=8".to_owned());
    let _slot = Slot::take();
    let mut guest = Typist::start(&machine)?;
    let mut outcome = guest.wait_for(PROMPT, BOOT_LIMIT);
    for seed in seeds {
        if outcome.is_err() {
            break;
        }
        let bytes = bytes_of(seed);
        std::fs::write(log.with_extension(format!("{seed}.bytes")), &bytes)?;
        let open = OPEN[usize::try_from(seed).unwrap_or(0) % OPEN.len()];
        outcome = answers(&mut guest, seed, bytes)
            .and_then(|()| answers(&mut guest, seed, open.to_vec()))
            .map_err(|why| format!("after the noise of NOISE_SEED={seed}: {why}"));
    }
    std::fs::write(&log, guest.output())?;
    outcome.map_err(|why| Failed::from(format!("{why}; the log is {}", log.display())))
}

/// Types `bytes`, ends whatever they began, and asks. What is typed while a command runs
/// is thrown away by the Ctrl-C.
fn answers(guest: &mut Typist, seed: u64, bytes: Vec<u8>) -> Result<(), String> {
    guest.type_bytes(bytes);
    // The answer is none of the bytes that are typed, which are echoed.
    let line = format!("\x03\x15echo \"ok\" {seed}\r");
    guest.type_bytes(line.into_bytes());
    guest.wait_for(&format!("\nok {seed}\r\n{PROMPT}"), ANSWER_LIMIT)?;
    let line =
        format!("memfill free; munmap 0 1 2 3 4 5 6 7 8 9; audit && echo \"clean\" {seed}\r");
    guest.type_bytes(line.into_bytes());
    guest.wait_for(&format!("\nclean {seed}\r\n{PROMPT}"), ANSWER_LIMIT)
}

/// The noise of a seed.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut bytes = Vec::new();
    while bytes.len() < BYTES {
        match random.below(9) {
            // All values, also those that are no UTF-8.
            0 | 1 => bytes.extend((0..512).map(|_| random.byte())),
            // Escape sequences, whole and cut, with numbers that fit nowhere.
            2 => {
                for _ in 0..40 {
                    bytes.extend(b"\x1b[");
                    let digits = random.below(30);
                    bytes.extend((0..digits).map(|_| b"0123456789;?"[random.index(12)]));
                    bytes.extend((0..random.below(2)).map(|_| b"ABCDHFP~mnZ"[random.index(11)]));
                }
            }
            // A line longer than the editor takes, and control characters in it.
            3 => {
                let filler = b'a' + u8::try_from(random.below(26)).unwrap_or(0);
                let line = (0..4200).map(|n| {
                    if n % 997 == 996 {
                        random.byte() & 31
                    } else {
                        filler
                    }
                });
                bytes.extend(line);
                bytes.push(b'\r');
            }
            4 => bytes.resize(bytes.len() + random.index(600), 0),
            // Nearly commands; the cursor, the history and completion in between.
            5 => {
                for _ in 0..30 {
                    let word = WORDS[random.index(WORDS.len())];
                    bytes.extend(word.bytes().chain(*b" "));
                    match random.below(8) {
                        0 => bytes.extend(b"\x1b[A"),
                        1 => bytes.extend(b"\x1b[D\x1b[D"),
                        2 => bytes.extend(b"\t"),
                        3 | 4 => bytes.push(b'\r'),
                        _ => {}
                    }
                }
            }
            // Commands, one in eight of them ended as soon as it is typed.
            _ => {
                for _ in 0..12 {
                    let line = LINES[random.index(LINES.len())].bytes();
                    let digit = |random: &mut Random| b"0123456789"[random.index(10)];
                    bytes.extend(line.map(|c| if c == b'@' { digit(&mut random) } else { c }));
                    bytes.push(b'\r');
                    if random.below(8) == 0 {
                        bytes.push(0x03);
                    }
                }
            }
        }
    }
    bytes
}

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Somebody at the serial port who types without looking. The guest ends when this is
/// dropped.
struct Typist {
    child: Child,
    typed: Sender<Vec<u8>>,
    news: Receiver<()>,
    output: Arc<Mutex<Vec<u8>>>,
    /// Up to here the output was searched.
    seen: usize,
}

impl Typist {
    fn start(machine: &Machine) -> Result<Self, Failed> {
        let mut child = Command::new(accel::qemu())
            .args(machine.arguments()?.iter())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (typed, to_type) = channel::<Vec<u8>>();
        let (news_sender, news) = channel();
        let output = Arc::<Mutex<Vec<u8>>>::default();
        if let (Some(mut to), Some(mut from)) = (child.stdin.take(), child.stdout.take()) {
            // A guest that takes nothing blocks this one only.
            std::thread::spawn(move || {
                while let Ok(bytes) = to_type.recv() {
                    if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                        return;
                    }
                }
            });
            let sink = Arc::clone(&output);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                    sink.extend(&buffer[..n]);
                    drop(sink);
                    if news_sender.send(()).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            typed,
            news,
            output,
            seen: 0,
        })
    }

    fn type_bytes(&self, bytes: Vec<u8>) {
        // If the guest has ended, whoever waits for it notices.
        let _ = self.typed.send(bytes);
    }

    /// Waits until `text` is written behind what was waited for last.
    fn wait_for(&mut self, text: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let output = self.output();
            let rest = &output[self.seen..];
            let found = rest.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                self.seen += at + text.len();
                return Ok(());
            }
            match self.news.recv_timeout(STEP) {
                Ok(()) => while self.news.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the guest ended without {text:?}"));
                }
            }
            if Instant::now() > deadline {
                return Err(format!("no {text:?} in {} s", limit.as_secs()));
            }
        }
    }

    fn output(&self) -> Vec<u8> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.clone()
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
