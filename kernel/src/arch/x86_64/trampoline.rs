//! The way of another CPU from real mode to the kernel.
//!
//! It starts in real mode at a page below 1 MiB ([`install`]), and needs a top-level
//! page table below 4 GiB that maps that page at its own address, readable and
//! executable, besides what the kernel maps. Both are used for these few
//! instructions only: the kernel's own tables never have such a mapping (INV-7).
#![expect(unsafe_code, reason = "the code of other modes, and its symbols")]

use core::arch::global_asm;

use mm::addr::Pfn;
use mm::machine::Machine;
use x86_64::registers::control::Cr0;

// EBX is the page's address throughout. CR0 and CR4 are set whole, but for CR0.CD and CR0.NW,
// which INIT leaves as they were (Intel SDM volume 3, table 10-1): caches are switched on later,
// in their order (`memory_types::enable`).
global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    // Rust code of any object refers to these, whatever codegen unit this text is in.
    ".globl trampoline_start, trampoline_far32, trampoline_32, trampoline_far64, trampoline_64",
    ".globl trampoline_gdt, trampoline_gdtr, trampoline_gdt_at, trampoline_low_root, trampoline_cr0",
    ".globl trampoline_root, trampoline_stack, trampoline_cpu, trampoline_entry",
    ".globl trampoline_landing, trampoline_end, trampoline_land",
    ".balign 8",
    "trampoline_start:",
    ".code16",
    "cli",
    "cld",
    "movw %cs, %ax",
    "movw %ax, %ds",
    "xorl %ebx, %ebx",
    "movw %ax, %bx",
    "shll $4, %ebx",
    "lgdtl trampoline_gdtr - trampoline_start",
    "movl %cr0, %eax",
    "andl $0x60000000, %eax", // CD, NW
    "orl $0x11, %eax",        // PE, ET
    "movl %eax, %cr0",
    ".byte 0x66, 0xea", // far jump to 32-bit code
    "trampoline_far32: .long 0",
    ".word 0x08",
    ".code32",
    "trampoline_32:",
    "movw $0x10, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw %ax, %ss",
    "movl $0x20, %eax", // PAE
    "movl %eax, %cr4",
    "movl trampoline_low_root - trampoline_start(%ebx), %eax",
    "movl %eax, %cr3",
    "movl $0xc0000080, %ecx", // EFER: LME, NXE
    "rdmsr",
    "orl $0x900, %eax",
    "wrmsr",
    "movl %cr0, %eax",
    "andl $0x60000000, %eax",
    "orl trampoline_cr0 - trampoline_start(%ebx), %eax",
    "movl %eax, %cr0",
    ".byte 0xea", // far jump to 64-bit code
    "trampoline_far64: .long 0",
    ".word 0x18",
    ".code64",
    "trampoline_64:",
    "movl %ebx, %ebx",
    "movq trampoline_stack - trampoline_start(%rbx), %rsp",
    "movq trampoline_root - trampoline_start(%rbx), %rax",
    "movq trampoline_cpu - trampoline_start(%rbx), %rdi",
    "movq trampoline_entry - trampoline_start(%rbx), %rsi",
    "jmpq *trampoline_landing - trampoline_start(%rbx)",
    ".balign 8",
    "trampoline_gdt:",
    ".quad 0",
    // Accessed already: a processor that loads a segment sets the bit where it is clear
    // (Intel SDM volume 3, 3.4.5.1), and from the first load in paged mode on this page
    // is read-only, so that setting it would be a fault with no handler (W-1).
    ".quad 0x00cf9b000000ffff", // 32-bit code
    ".quad 0x00cf93000000ffff", // data
    ".quad 0x00af9b000000ffff", // 64-bit code
    "trampoline_gdtr: .word 31",
    "trampoline_gdt_at: .long 0",
    ".balign 8",
    "trampoline_low_root: .quad 0",
    "trampoline_cr0: .quad 0",
    "trampoline_root: .quad 0",
    "trampoline_stack: .quad 0",
    "trampoline_cpu: .quad 0",
    "trampoline_entry: .quad 0",
    "trampoline_landing: .quad 0",
    "trampoline_end:",
    ".popsection",
    // In the kernel's image, which both tables map: RAX is the kernel's root.
    "trampoline_land:",
    "movq %rax, %cr3",
    "xorl %ebp, %ebp",
    "callq *%rsi",
    "ud2",
    options(att_syntax),
);

const PAGE: usize = 4096;

macro_rules! symbols {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" { $( static $name: [u8; 0]; )* }
    };
}

symbols!(
    trampoline_start,
    trampoline_far32,
    trampoline_32,
    trampoline_far64,
    trampoline_64,
    trampoline_gdt,
    trampoline_gdtr,
    trampoline_gdt_at,
    trampoline_low_root,
    trampoline_cr0,
    trampoline_root,
    trampoline_stack,
    trampoline_cpu,
    trampoline_entry,
    trampoline_landing,
    trampoline_end,
    trampoline_land,
);

/// Bytes from the start of the trampoline to a symbol.
macro_rules! offset {
    ($name:ident) => {
        (&raw const $name).addr() - (&raw const trampoline_start).addr()
    };
}

/// What a CPU is to find when it gets to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The kernel's top-level table.
    pub(crate) root: Pfn,
    /// The top-level table for the way, below 4 GiB.
    pub(crate) low_root: Pfn,
    /// Its stack's top.
    pub(crate) stack: u64,
    /// Its number, the argument of `entry`.
    pub(crate) cpu: usize,
    /// Where it goes on.
    pub(crate) entry: extern "C" fn(usize) -> !,
}

/// The trampoline as it lies in the image.
fn template() -> &'static [u8] {
    let code = (&raw const trampoline_start).cast::<u8>();
    // SAFETY: the bytes between the two symbols are in the image and never written (H-6).
    unsafe { core::slice::from_raw_parts(code, offset!(trampoline_end)) }
}

/// The descriptors that a CPU loads on its way, for the self-tests.
pub(crate) fn descriptors() -> impl Iterator<Item = u64> {
    let table = &template()[offset!(trampoline_gdt)..offset!(trampoline_gdtr)];
    table
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(core::array::from_fn(|n| bytes[n])))
}

/// Writes the trampoline to `page`, below 1 MiB, for one CPU.
pub(crate) fn install(m: &impl Machine, page: Pfn, start: &Start) {
    let mut bytes = [0_u8; PAGE];
    let code = template();
    assert!(
        code.len() <= bytes.len(),
        "the trampoline is longer than a page"
    );
    bytes[..code.len()].copy_from_slice(code);

    let base = page.phys().as_u64();
    let mut long = |at: usize, value: u64| {
        let value = u32::try_from(value).expect("below 4 GiB");
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    long(
        offset!(trampoline_far32),
        base + offset!(trampoline_32) as u64,
    );
    long(
        offset!(trampoline_far64),
        base + offset!(trampoline_64) as u64,
    );
    long(
        offset!(trampoline_gdt_at),
        base + offset!(trampoline_gdt) as u64,
    );
    long(offset!(trampoline_low_root), start.low_root.phys().as_u64());
    // As here, where caches are on: WP with it (INV-4).
    long(offset!(trampoline_cr0), Cr0::read_raw());
    let mut quad = |at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    };
    quad(offset!(trampoline_root), start.root.phys().as_u64());
    quad(offset!(trampoline_stack), start.stack);
    quad(offset!(trampoline_cpu), start.cpu as u64);
    quad(offset!(trampoline_entry), start.entry as usize as u64);
    quad(
        offset!(trampoline_landing),
        (&raw const trampoline_land).addr() as u64,
    );
    for (at, word) in (0_u64..).step_by(8).zip(bytes.chunks_exact(8)) {
        let word = u64::from_le_bytes(core::array::from_fn(|n| word[n]));
        m.write_phys(page.phys().offset(at), word);
    }
}
