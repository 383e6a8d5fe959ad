//! Time since start, from the time stamp counter.
#![expect(unsafe_code, reason = "reads the counter and drives the 8254 timer")]

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use super::{cpu, irq};

static START: AtomicU64 = AtomicU64::new(0);
// Cycles per second; 0 until known. Relaxed everywhere: written once, early.
static HZ: AtomicU64 = AtomicU64::new(0);

/// Where the frequency came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// CPUID states it.
    Cpuid,
    /// Measured against the 8254 timer.
    Pit,
    /// Not known: one "second" of a time stamp is 2^30 cycles.
    Unknown,
}

/// The counter now.
pub(crate) fn cycles() -> u64 {
    // SAFETY: every x86_64 processor has the counter, and CR4.TSD concerns user
    // mode only (H-2).
    unsafe { _rdtsc() }
}

/// Makes now the time 0.
pub(crate) fn start() {
    START.store(cycles(), Ordering::Relaxed);
}

/// Cycles per second; 0 until [`calibrate`] has run.
pub(crate) fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// Microseconds since [`start`]; 0 until [`calibrate`] has run.
pub(crate) fn micros() -> u64 {
    let hz = hz();
    if hz == 0 {
        return 0;
    }
    let cycles = cycles().wrapping_sub(START.load(Ordering::Relaxed));
    let micros = u128::from(cycles) * 1_000_000 / u128::from(hz);
    u64::try_from(micros).unwrap_or(u64::MAX)
}

/// Time that this CPU spends in a loop, as far as it runs: a host that has other work, or
/// firmware in system management mode, stops it without a word, and the counter goes on.
///
/// One who waits for another CPU of the same machine counts this time and not the clock's. The
/// other was given about as much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnTime {
    last: u64,
    spent: u64,
}

impl OwnTime {
    /// Most microseconds that count between two looks. A turn of a loop that waits takes less
    /// than one; a slice of time that a host gives takes a thousand and more.
    const LONGEST_MICROS: u64 = 1000;

    /// Starts at 0.
    pub(crate) fn start() -> Self {
        Self {
            last: cycles(),
            spent: 0,
        }
    }

    /// Microseconds so far. To be called at every turn, or at every few. 0 until
    /// [`calibrate`] has run.
    pub(crate) fn micros(&mut self) -> u64 {
        let per_milli = hz() / 1000;
        let now = cycles();
        let most = per_milli * Self::LONGEST_MICROS / 1000;
        self.spent += now.wrapping_sub(self.last).min(most);
        self.last = now;
        self.spent
            .saturating_mul(1000)
            .checked_div(per_milli)
            .unwrap_or(0)
    }
}

/// Waits until `done`, `micros` microseconds of [`OwnTime`] at most; whether it came to that.
/// [`calibrate`] has run.
pub(crate) fn wait_until(micros: u64, done: &dyn Fn() -> bool) -> bool {
    let mut own = OwnTime::start();
    loop {
        if done() {
            return true;
        }
        if own.micros() >= micros {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Finds out the frequency in Hz, once.
pub(crate) fn calibrate() -> (u64, Source) {
    let stated = cpu::stated_tsc_hz().filter(|hz| PLAUSIBLE_HZ.contains(hz));
    let (hz, source) = match (stated, stated.is_none().then(measure_often).flatten()) {
        (Some(hz), _) => (hz, Source::Cpuid),
        (None, Some(hz)) => (hz, Source::Pit),
        (None, None) => (1 << 30, Source::Unknown),
    };
    HZ.store(hz, Ordering::Relaxed);
    (hz, source)
}

/// Measurements, of which the shortest counts: an emulator on a busy host stands
/// still now and then, and a second that came out twice as long would stretch every limit.
const MEASUREMENTS: usize = 5;

fn measure_often() -> Option<u64> {
    // If the first finds no timer, the others need not wait for it.
    let first = measure()?;
    let others = (1..MEASUREMENTS).filter_map(|_| measure());
    others.chain([first]).min()
}

const PLAUSIBLE_HZ: core::ops::Range<u64> = 10_000_000..20_000_000_000;

/// Frequency of the 8254 timer in Hz.
const PIT_HZ: u64 = 1_193_182;
/// Timer ticks to measure over: about 10 ms.
const TICKS: u16 = 11_932;
/// Polls before the timer counts as absent. A poll takes a microsecond on a PC, and
/// under an emulator that counts instructions as few as 8 ns.
const MAX_POLLS: u32 = 5_000_000;

/// Counts cycles while channel 2 of the 8254 runs down, as PCs have done it since
/// there were cycles to count. `None` if the timer does not answer, or nonsense.
#[doc(alias = "pit_calibrate_tsc")]
fn measure() -> Option<u64> {
    let mut gate = Port::<u8>::new(0x61);
    let mut mode = Port::<u8>::new(0x43);
    let mut channel2 = Port::<u8>::new(0x42);
    let [low, high] = TICKS.to_le_bytes();
    let irq_state = irq::save();
    // SAFETY: port 0x61 is system control port B on every PC (H-1).
    let before = unsafe { gate.read() };
    // SAFETY: as above. Gate on, speaker off (H-1).
    unsafe { gate.write((before & !0b10) | 0b01) };
    // SAFETY: 0x43 is the timer's mode register: channel 2, both bytes, mode 0 (H-1).
    unsafe { mode.write(0b1011_0000_u8) };
    // SAFETY: 0x42 is channel 2's counter (H-1).
    unsafe { channel2.write(low) };
    // Before it starts: a delay of ours makes the time longer, never shorter.
    let from = cycles();
    // SAFETY: as above; the high byte starts it (H-1).
    unsafe { channel2.write(high) };
    let mut polls = 0;
    // SAFETY: as above; bit 5 is channel 2's output, high when it has run down (H-1).
    while unsafe { gate.read() } & 0b10_0000 == 0 && polls < MAX_POLLS {
        polls += 1;
    }
    let took = cycles().wrapping_sub(from);
    // SAFETY: as above; puts back what was there (H-1).
    unsafe { gate.write(before) };
    irq::restore(irq_state);
    // A missing timer reads as ones at once, or never gets there.
    if polls < 2 || polls == MAX_POLLS {
        return None;
    }
    let hz = took.checked_mul(PIT_HZ)? / u64::from(TICKS);
    PLAUSIBLE_HZ.contains(&hz).then_some(hz)
}
