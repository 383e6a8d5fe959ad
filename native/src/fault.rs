//! `SIGSEGV`, which is this machine's page fault.
//!
//! It is only ever raised by an instruction of `access`, or by a load of `lookup::chase`
//! that is the first to touch its page, so the handler may do what any function may: no lock
//! is held and no allocation is under way at such an instruction.
//! What is outside all windows, or is to be neither mapped nor fixed up, is a bug and ends the
//! process with a line that says what was touched.
#![expect(
    unsafe_code,
    reason = "handles a signal, and changes where it returns to"
)]

use std::io::Write as _;
use std::mem::{MaybeUninit, zeroed};
use std::sync::{Arc, Mutex, Once};

use mm::machine::Fault;

use crate::interrupts::lock;
use crate::machine::Shared;
use crate::shadow::Touch;

/// Bit 1 of a page fault's error code.
const WRITE: u64 = 1 << 1;

/// The machines of this process.
static MACHINES: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// Lets faults in the windows of `machine` be handled.
pub(crate) fn register(machine: &Arc<Shared>) {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(install);
    lock(&MACHINES).push(Arc::clone(machine));
}

/// Ends that.
pub(crate) fn unregister(machine: &Arc<Shared>) {
    lock(&MACHINES).retain(|other| !Arc::ptr_eq(other, machine));
}

fn install() {
    // SAFETY: all fields of `sigaction` may be zero (N-2).
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // NODEFER: what is wrong in the handler itself ends the process at once.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    let mut old = MaybeUninit::uninit();
    // SAFETY: both structures live until the call is over (N-2).
    let failed = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, old.as_mut_ptr()) };
    assert!(failed == 0, "sigaction for SIGSEGV refused");
}

/// A register of the interrupted thread.
fn register_of(context: &mut libc::ucontext_t, which: libc::c_int) -> &mut i64 {
    let index = usize::try_from(which).expect("numbers of registers are small");
    &mut context.uc_mcontext.gregs[index]
}

/// A thread that faults here is put back where it was, or at a fixup.
extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut core::ffi::c_void) {
    // SAFETY: the kernel passes the signal's information (N-2).
    let info = unsafe { &*info };
    // SAFETY: it is about `SIGSEGV`, which has an address (N-2).
    let at = unsafe { info.si_addr() }.addr() as u64;
    // SAFETY: the kernel passes the interrupted thread's context, which is the handler's
    // to change until it returns (N-2).
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = register_of(context, libc::REG_RIP).cast_unsigned();
    let write = register_of(context, libc::REG_ERR).cast_unsigned() & WRITE;
    let Some((machine, at)) = find(at) else {
        die(at, rip, "is no memory of this machine");
    };
    let touched = machine.page_fault(at, write != 0);
    let code = match touched {
        Ok(Touch::Mapped) => return,
        Ok(Touch::NotPresent) => write,
        Ok(Touch::ReadOnly) => Fault::WRITE_TO_READ_ONLY,
        Err(why) => die(at, rip, &format!("could not be mapped: {why}")),
    };
    let Some(fixup) = access::fixup(rip) else {
        die(at, rip, &format!("faults with error code {code:#x}"));
    };
    *register_of(context, libc::REG_R10) = code.cast_signed();
    *register_of(context, libc::REG_R11) = at.cast_signed();
    *register_of(context, libc::REG_RIP) = fixup.cast_signed();
}

/// Whose memory the process's `at` is, and what address of `mm`'s.
fn find(at: u64) -> Option<(Arc<Shared>, u64)> {
    // A stray pointer, perhaps used while the list is locked: windows are not there.
    if at < 1 << 20 {
        return None;
    }
    let machines = lock(&MACHINES);
    let of = |machine: &Arc<Shared>| Some((Arc::clone(machine), machine.guest(at)?));
    machines.iter().find_map(of)
}

/// No unwinding out of a signal handler: the process ends.
fn die(at: u64, rip: u64, why: &str) -> ! {
    // Not `eprintln`, which test harnesses keep to themselves until a test is over.
    let line = format!("BUG: the instruction at {rip:#x} touched {at:#x}, which {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    // SAFETY: back to what a fault does to a process without a handler (N-2).
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    std::process::abort()
}
