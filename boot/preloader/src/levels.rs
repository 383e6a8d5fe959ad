//! Paging of 4 and of 5 levels, and the way between them.
//!
//! CR4.LA57 can be changed only outside of long mode (Intel SDM volume 3, 2.5), and with paging off
//! CR3 has 32 bits and code runs where it physically is. So the way leads through code in a page
//! below 4 GiB, with a top-level table beside it; all other tables stay in use as they are.
#![expect(unsafe_code, reason = "the code of other modes, and page tables")]

use core::arch::global_asm;
use core::mem;
use core::ptr::NonNull;

use uefi::Status;
use uefi::boot::{self, AllocateType, MemoryType, PAGE_SIZE};
use uefi::mem::memory_map::MemoryAttribute;
use uefi::proto::security::MemoryProtection;
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// Highest address that CR3 can hold without long mode.
const MAX_ADDRESS: u64 = u32::MAX as u64;

/// Where the page of the code has what the code keeps, in bytes from its start.
const KEPT: usize = 0x800;

// ECX is the new top-level table. RBX is the page's address throughout; behind the way through
// legacy mode, only the lower halves of RAX to RDI are what they were (Intel SDM volume 1,
// 3.4.1.1), so that a caller's registers, XMM8 to XMM15 too, wait in memory.
global_asm!(
    ".globl levels_start, levels_end",
    ".balign 8",
    "levels_start:",
    "pushq %rbx",
    "pushq %rbp",
    "pushq %rdi",
    "pushq %rsi",
    "pushq %r12",
    "pushq %r13",
    "pushq %r14",
    "pushq %r15",
    "pushfq",
    "cli",
    "leaq levels_start(%rip), %rbx",
    "fxsave64 {kept}(%rbx)",
    "movq %rsp, {kept} + 0x200(%rbx)",
    "movw %cs, {kept} + 0x208(%rbx)",
    "sgdt {kept} + 0x210(%rbx)",
    // With PCIDE paging cannot be left, with CET the far returns below have no shadow.
    "movq %cr4, %rax",
    "andq $~0x820000, %rax",
    "movq %rax, %cr4",
    "leaq levels_gdt(%rip), %rax",
    "movw $23, {kept} + 0x220(%rbx)",
    "movq %rax, {kept} + 0x222(%rbx)",
    "lgdt {kept} + 0x220(%rbx)",
    "leaq levels_64(%rip), %rax",
    "movl %eax, {kept} + 0x230(%rbx)",
    "movw $0x10, {kept} + 0x234(%rbx)",
    "leaq levels_32(%rip), %rax",
    "pushq $0x08",
    "pushq %rax",
    "lretq",
    ".code32",
    "levels_32:",
    "movl %cr0, %eax",
    "andl $0x7fffffff, %eax", // PG: out of long mode
    "movl %eax, %cr0",
    "movl %cr4, %eax",
    "xorl $0x1000, %eax", // LA57
    "movl %eax, %cr4",
    "movl %ecx, %cr3",
    "movl %cr0, %eax",
    "orl $0x80000000, %eax", // PG: into long mode, for EFER.LME is set
    "movl %eax, %cr0",
    "ljmpl *%cs:{kept} + 0x230(%ebx)",
    ".code64",
    "levels_64:",
    "movl %ebx, %ebx",
    "lgdt {kept} + 0x210(%rbx)",
    "movq {kept} + 0x200(%rbx), %rsp",
    "movzwl {kept} + 0x208(%rbx), %eax",
    "pushq %rax",
    "leaq 2f(%rip), %rax",
    "pushq %rax",
    "lretq",
    "2:",
    "fxrstor64 {kept}(%rbx)",
    "popfq",
    "popq %r15",
    "popq %r14",
    "popq %r13",
    "popq %r12",
    "popq %rsi",
    "popq %rdi",
    "popq %rbp",
    "popq %rbx",
    "retq",
    ".balign 8",
    "levels_gdt:",
    ".quad 0",
    ".quad 0x00cf9b000000ffff", // 32-bit code
    ".quad 0x00af9b000000ffff", // 64-bit code
    "levels_end:",
    kept = const KEPT,
    options(att_syntax),
);

unsafe extern "C" {
    static levels_start: [u8; 0];
    static levels_end: [u8; 0];
}

/// Tells whether the processor walks 5 levels of tables.
#[must_use]
pub fn are_five() -> bool {
    Cr4::read().contains(Cr4Flags::L5_PAGING)
}

/// Tells whether the processor can.
#[must_use]
pub fn can_be_five() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_feature_info()
        .is_some_and(|features| features.has_la57())
}

/// The code in memory below 4 GiB, and behind it the page of a top-level table.
#[derive(Debug)]
pub struct Way {
    /// Address of both pages.
    at: usize,
}

impl Way {
    /// Puts the code where it can run.
    ///
    /// # Errors
    /// The firmware's, if it has no two pages below 4 GiB.
    pub fn prepare() -> uefi::Result<Self> {
        let (from, end) = (&raw const levels_start, &raw const levels_end);
        let length = end.addr() - from.addr();
        if length > KEPT {
            return Err(Status::BUFFER_TOO_SMALL.into());
        }
        // A type that firmware maps as executable.
        let memory = MemoryType::LOADER_CODE;
        let page = boot::allocate_pages(AllocateType::MaxAddress(MAX_ADDRESS), memory, 2)?;
        // SAFETY: both symbols bound the code above (H-6), which refers to itself only by distances;
        // the page is ours, and longer (H-9).
        unsafe { page.as_ptr().copy_from_nonoverlapping(from.cast(), length) };
        let way = Self {
            at: page.addr().get(),
        };
        // Newer firmware has a protocol to ask for it; where there is none, the type is all.
        let pages = way.at as u64..(way.at + PAGE_SIZE) as u64;
        let _ = boot::get_handle_for_protocol::<MemoryProtection>()
            .and_then(boot::open_protocol_exclusive::<MemoryProtection>)
            .and_then(|protection| {
                protection.clear_memory_attributes(pages, MemoryAttribute::EXECUTE_PROTECT)
            });
        Ok(way)
    }

    /// Gives the memory back.
    pub fn free(self) {
        if let Some(page) = NonNull::new(core::ptr::with_exposed_provenance_mut(self.at)) {
            // SAFETY: `prepare` allocated the pages, and nothing else knows them (H-9).
            let _ = unsafe { boot::free_pages(page, 2) };
        }
    }

    /// Switches from 5 levels to 4: what lies above 256 TiB is not mapped any more.
    ///
    /// # Safety
    /// [`are_five`], every address that is in use is its own physical one below 256 TiB, and no code
    /// runs any more that has looked how many levels there are.
    pub unsafe fn to_four(&self) {
        let five: *const u64 = core::ptr::with_exposed_provenance(root());
        // SAFETY: the processor walks this table, and it is mapped at its own address (H-9).
        let four = unsafe { five.read() } & TABLE;
        let table: *const u8 = core::ptr::with_exposed_provenance(usize_of(four));
        // SAFETY: as above, for the table of the lowest 256 TiB; the page behind the code is ours
        // (H-9).
        unsafe { self.table().copy_from_nonoverlapping(table, PAGE_SIZE) };
        // SAFETY: the caller's promise, and the new table has what the caller uses (H-9).
        unsafe { self.go() };
    }

    /// Switches from 4 levels to 5, for tests.
    ///
    /// # Safety
    /// Not [`are_five`], [`can_be_five`], and every address in use is its own physical one.
    pub unsafe fn to_five(&self) {
        const PRESENT_AND_WRITABLE: u64 = 3;
        let table = self.table();
        // SAFETY: the page is ours (H-9).
        unsafe { table.write_bytes(0, PAGE_SIZE) };
        let entry = root() as u64 | PRESENT_AND_WRITABLE;
        // SAFETY: as above, and pages are aligned (H-9).
        unsafe { table.cast::<u64>().write(entry) };
        // SAFETY: the caller's promise, and the new table has one entry for all there was (H-9).
        unsafe { self.go() };
    }

    fn table(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.at + PAGE_SIZE)
    }

    /// # Safety
    /// The page behind the code is a top-level table of the other kind that maps all that is used.
    unsafe fn go(&self) {
        let code: *const () = core::ptr::with_exposed_provenance(self.at);
        // SAFETY: `prepare` put code of this signature there (H-9).
        let code: extern "efiapi" fn(u32) = unsafe { mem::transmute(code) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both pages are below 4 GiB"
        )]
        code((self.at + PAGE_SIZE) as u32);
    }
}

/// The bits of an entry that are a table's address (Intel SDM volume 3, 4.5).
const TABLE: u64 = 0x000f_ffff_ffff_f000;

/// The address of the top-level table.
fn root() -> usize {
    usize_of(Cr3::read().0.start_address().as_u64())
}

/// A physical address as a pointer's.
#[expect(clippy::cast_possible_truncation, reason = "x86_64 only")]
fn usize_of(address: u64) -> usize {
    address as usize
}
