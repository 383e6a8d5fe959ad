//! The end of a kernel that has gone wrong: say everything, once, and stop.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use ktest::Text;

use crate::arch::x86_64::trap::{self, ErrorCode, TrapFrame};
use crate::arch::x86_64::{dump, exit, irq, machine_check, percpu};
use crate::smp::watchdog;
use crate::{console, emerg};

// Who panics, and how often: the CPU's number + 1 in the lower half, above it how
// often it came here. More than once is a panic in a panic.
static PANIC: AtomicU64 = AtomicU64::new(0);

/// Whether another CPU than this one has panicked: this one is to stop.
pub(crate) fn is_under_way_elsewhere() -> bool {
    let who = PANIC.load(Ordering::Acquire) % AGAIN;
    who != 0 && who != percpu::cpu() as u64 + 1
}

/// One more time, in [`PANIC`].
const AGAIN: u64 = 1 << 32;

/// How often this CPU has come here, from 0 on. Does not return on a CPU that comes
/// later than another: that one tells the story.
fn enter() -> u64 {
    let me = percpu::cpu() as u64 + 1;
    match PANIC.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => 0,
        Err(found) if found % AGAIN == me => PANIC.fetch_add(AGAIN, Ordering::AcqRel) / AGAIN + 1,
        Err(_) => irq::halt_forever(),
    }
}

/// A fatal exception with the registers it found; `cr2` was read at its start.
pub(crate) fn on_exception(frame: &TrapFrame, cr2: u64) -> ! {
    let name = trap::name(frame.vector);
    if let Some(stack) = trap::stack_overflow(frame, cr2) {
        die(
            format_args!(
                "{name}: overflow of the {stack} stack at rip {:#x}",
                frame.rip
            ),
            Some((frame, cr2)),
        );
    }
    let code = ErrorCode(frame);
    if frame.vector == trap::PAGE_FAULT {
        die(
            format_args!("{name} at {cr2:#018x}: {code}, rip {:#x}", frame.rip),
            Some((frame, cr2)),
        );
    }
    die(
        format_args!("{name}: {code}, rip {:#x}", frame.rip),
        Some((frame, cr2)),
    )
}

/// A machine check that this CPU cannot go on from, for the reason `why`.
pub(crate) fn on_machine_check(frame: &TrapFrame, why: &str) -> ! {
    let name = trap::name(frame.vector);
    die(
        format_args!("{name}: {why}, rip {:#x}", frame.rip),
        Some((frame, 0)),
    )
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => die(
            format_args!(
                "panicked at {}:{}: {}",
                at.file(),
                at.line(),
                info.message()
            ),
            None,
        ),
        None => die(format_args!("panicked: {}", info.message()), None),
    }
}

/// Prints why and what the processor was doing, and ends the machine as failed.
fn die(reason: fmt::Arguments<'_>, exception: Option<(&TrapFrame, u64)>) -> ! {
    let _ = irq::save();
    match enter() {
        0 => {}
        1 => {
            console::break_locks();
            emerg!(
                "Kernel panic while dumping a panic: {}",
                Text::<400>::of(reason)
            );
            console::bail_out(format_args!("panic in a panic"));
            exit::end(exit::Verdict::Fail)
        }
        _ => exit::end(exit::Verdict::Fail),
    }
    watchdog::stop_others();
    console::break_locks();
    // Formatted once: the message may be long-winded, and lines are not.
    let reason = Text::<400>::of(reason);
    emerg!("Kernel panic - not syncing: {reason}");
    emerg!("CPU: {}", percpu::cpu());
    match exception {
        Some((frame, cr2)) => {
            if frame.vector == trap::MACHINE_CHECK {
                machine_check::describe(&mut |bank| emerg!("mce: [Hardware Error]: {bank}"));
            }
            dump::registers(frame);
            if matches!(frame.vector, trap::PAGE_FAULT | trap::DOUBLE_FAULT) {
                dump::path_to("CR2", cr2);
            }
            dump::path_to("RIP", frame.rip);
            dump::callers(frame.rsp);
        }
        None => {
            let frame = dump::registers_here();
            dump::registers(&frame);
            dump::path_to("RIP", frame.rip);
            dump::callers(frame.rsp);
        }
    }
    watchdog::for_each_stopped(&mut |cpu, at| match at {
        Some(rip) => emerg!("CPU: {cpu} stopped at {}", dump::Code(rip)),
        None => emerg!("CPU: {cpu} does not stop"),
    });
    console::bail_out(format_args!("{reason}"));
    exit::end(exit::Verdict::Fail)
}
