//! Exceptions: saving all registers, and deciding what comes of them.
#![expect(unsafe_code, reason = "the stubs and the frame they leave")]

use core::arch::global_asm;

use x86_64::registers::control::Cr2;

use super::{machine_check, stack};
use crate::panic;
use crate::smp;

/// All general registers as they were, and what the processor pushed.
#[repr(C)]
#[derive(Clone, Debug, Default)]
#[doc(alias = "pt_regs")]
pub(crate) struct TrapFrame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    /// Which exception, 0 to 255.
    pub(crate) vector: u64,
    /// The error code, or 0 if the exception has none.
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// Vector of the non-maskable interrupt.
pub(crate) const NMI: u64 = 2;
/// Vector of the double fault.
pub(crate) const DOUBLE_FAULT: u64 = 8;
/// Vector of the general protection fault.
pub(crate) const GENERAL_PROTECTION: u64 = 13;
/// Vector of the page fault.
pub(crate) const PAGE_FAULT: u64 = 14;

/// Vector of the machine check.
pub(crate) const MACHINE_CHECK: u64 = 18;

/// The vectors from here on are interrupts.
const FIRST_INTERRUPT: u8 = 32;

/// Distance between two stubs in bytes.
const STUB_BYTES: u64 = 16;

// 256 stubs, each of which leaves the same frame: error code (0 where the processor
// pushes none), vector, then the general registers. When the processor delivers an
// exception it aligns the stack to 16; 5 words of its own, 2 of the stub's and 15
// registers are 176 bytes, so the stack is aligned at the call.
global_asm!(
    // 8, 10..14, 17, 21, 29, 30 have an error code (Intel SDM volume 3, table 7-1;
    // AMD APM volume 2, 8.2).
    ".set ERROR_CODES, (1 << 8) | (0x1f << 10) | (1 << 17) | (1 << 21) | (3 << 29)",
    ".balign 16",
    ".globl trap_stubs",
    "trap_stubs:",
    ".set VECTOR, 0",
    ".rept 256",
    ".balign 16",
    ".if (VECTOR >= 32) || (((ERROR_CODES >> VECTOR) & 1) == 0)",
    "push 0",
    ".endif",
    ".byte 0x68", // push imm32
    ".long VECTOR",
    "jmp trap_common",
    ".set VECTOR, VECTOR + 1",
    ".endr",
    "trap_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "call {handle}",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    handle = sym handle,
);

unsafe extern "C" {
    static trap_stubs: [u8; 0];
}

/// Address of the stub for `vector`.
pub(crate) fn stub(vector: u8) -> u64 {
    (&raw const trap_stubs).addr() as u64 + u64::from(vector) * STUB_BYTES
}

/// Called by the stubs; returning resumes what `frame` says.
extern "C" fn handle(frame: &mut TrapFrame) {
    if let Ok(vector @ FIRST_INTERRUPT..) = u8::try_from(frame.vector) {
        return smp::on_interrupt(vector);
    }
    if frame.vector == NMI {
        return smp::watchdog::on_nmi(frame);
    }
    if frame.vector == MACHINE_CHECK {
        return match machine_check::on_machine_check(frame) {
            Ok(()) => {}
            Err(why) => panic::on_machine_check(frame, why),
        };
    }
    // Read before anything else can fault.
    let cr2 = Cr2::read_raw();
    let at = match frame.vector {
        PAGE_FAULT => cr2,
        _ => 0,
    };
    let may_be_fixed = matches!(frame.vector, PAGE_FAULT | GENERAL_PROTECTION);
    match access::fixup(frame.rip).filter(|_| may_be_fixed) {
        Some(fixup) => {
            frame.r10 = frame.error;
            frame.r11 = at;
            frame.rip = fixup;
        }
        None => panic::on_exception(frame, cr2),
    }
}

/// The exception's name, by its Intel mnemonic.
pub(crate) fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE divide error",
        1 => "#DB debug",
        NMI => "NMI",
        3 => "#BP breakpoint",
        4 => "#OF overflow",
        5 => "#BR bound range exceeded",
        6 => "#UD invalid opcode",
        7 => "#NM device not available",
        DOUBLE_FAULT => "#DF double fault",
        9 => "coprocessor segment overrun",
        10 => "#TS invalid TSS",
        11 => "#NP segment not present",
        12 => "#SS stack fault",
        GENERAL_PROTECTION => "#GP general protection",
        PAGE_FAULT => "#PF page fault",
        16 => "#MF x87 floating point",
        17 => "#AC alignment check",
        MACHINE_CHECK => "#MC machine check",
        19 => "#XM SIMD floating point",
        20 => "#VE virtualization",
        21 => "#CP control protection",
        28 => "#HV hypervisor injection",
        29 => "#VC VMM communication",
        30 => "#SX security",
        15 | 22..=27 | 31 => "reserved exception",
        _ => "unexpected interrupt",
    }
}

/// What the error code of an exception says, in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorCode<'a>(
    /// The frame of the exception.
    pub(crate) &'a TrapFrame,
);

impl core::fmt::Display for ErrorCode<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let code = self.0.error;
        let bit = |n: u32| code >> n & 1 != 0;
        match self.0.vector {
            PAGE_FAULT => {
                let access = match (bit(4), bit(1)) {
                    (true, _) => "instruction fetch",
                    (false, true) => "write access",
                    (false, false) => "read access",
                };
                let mode = if bit(2) { "user" } else { "supervisor" };
                let why = match (bit(3), bit(0)) {
                    (true, _) => "reserved bit set in an entry",
                    (false, true) => "permissions violation",
                    (false, false) => "not-present page",
                };
                write!(f, "{mode} {access}, {why}")
            }
            10..=13 if code != 0 => {
                let table = match code >> 1 & 3 {
                    0 => "GDT",
                    2 => "LDT",
                    _ => "IDT",
                };
                let external = if bit(0) { ", external event" } else { "" };
                write!(f, "{table} entry {:#x}{external}", code >> 3 & 0x1fff)
            }
            _ => write!(f, "error code {code:#x}"),
        }
    }
}

/// If the fault is a stack that ran into its guard page: the stack's name.
pub(crate) fn stack_overflow(frame: &TrapFrame, cr2: u64) -> Option<&'static str> {
    matches!(frame.vector, PAGE_FAULT | DOUBLE_FAULT)
        .then(|| stack::overflowed(cr2))
        .flatten()
}
