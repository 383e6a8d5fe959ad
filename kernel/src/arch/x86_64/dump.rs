//! The state of the processor in words, for a panic. Trusts nothing: tables and
//! stacks are read with instructions that may fault.
#![expect(unsafe_code, reason = "copies the registers that a panic finds")]

use core::arch::asm;
use core::fmt;

use access::try_load32;
use mm::addr::VirtAddr;
use mm::paging::{Level, Pte, PteFlags};
use x86_64::registers::control::{Cr0, Cr2, Cr3, Cr4, Efer};

use super::trap::TrapFrame;
use super::{layout, percpu, stack};
use crate::boot::image;
use crate::emerg;

/// The registers here and now, for a panic that is no exception. What the caller
/// keeps in registers across calls is there, the rest is what this function uses.
#[inline(never)]
pub(crate) fn registers_here() -> TrapFrame {
    let mut frame = TrapFrame::default();
    // SAFETY: stores to the fields of `frame` at their offsets, which `repr(C)`
    // fixes; nothing else is changed (H-7).
    unsafe {
        asm!(
            "mov [rdi + 0], r15",
            "mov [rdi + 8], r14",
            "mov [rdi + 16], r13",
            "mov [rdi + 24], r12",
            "mov [rdi + 32], r11",
            "mov [rdi + 40], r10",
            "mov [rdi + 48], r9",
            "mov [rdi + 56], r8",
            "mov [rdi + 64], rbp",
            "mov [rdi + 72], rdi",
            "mov [rdi + 80], rsi",
            "mov [rdi + 88], rdx",
            "mov [rdi + 96], rcx",
            "mov [rdi + 104], rbx",
            "mov [rdi + 112], rax",
            "lea rax, [rip]",
            "mov [rdi + 136], rax",
            "mov [rdi + 144], cs",
            "pushfq",
            "pop rax",
            "mov [rdi + 152], rax",
            "mov [rdi + 160], rsp",
            "mov [rdi + 168], ss",
            in("rdi") &raw mut frame,
            out("rax") _,
        );
    }
    frame
}

/// Prints all registers of `frame` and the control registers.
#[doc(alias = "show_regs")]
pub(crate) fn registers(frame: &TrapFrame) {
    let f = frame;
    emerg!(
        "RIP: {:#06x}:{} RFLAGS: {:#010x}",
        f.cs & 0xffff,
        Code(f.rip),
        f.rflags
    );
    emerg!("RSP: {:#06x}:{:#018x}", f.ss & 0xffff, f.rsp);
    emerg!(
        "RAX: {:016x} RBX: {:016x} RCX: {:016x}",
        f.rax,
        f.rbx,
        f.rcx
    );
    emerg!(
        "RDX: {:016x} RSI: {:016x} RDI: {:016x}",
        f.rdx,
        f.rsi,
        f.rdi
    );
    emerg!("RBP: {:016x} R08: {:016x} R09: {:016x}", f.rbp, f.r8, f.r9);
    emerg!(
        "R10: {:016x} R11: {:016x} R12: {:016x}",
        f.r10,
        f.r11,
        f.r12
    );
    emerg!(
        "R13: {:016x} R14: {:016x} R15: {:016x}",
        f.r13,
        f.r14,
        f.r15
    );
    emerg!(
        "CR0: {:016x} CR2: {:016x} CR3: {:016x}",
        Cr0::read_raw(),
        Cr2::read_raw(),
        Cr3::read_raw().0.start_address().as_u64()
    );
    emerg!(
        "CR4: {:016x} EFER: {:016x}",
        Cr4::read_raw(),
        Efer::read_raw()
    );
}

/// Prints the table entries on the path to `at`, as the processor walks them now.
#[doc(alias = "dump_pagetable")]
pub(crate) fn path_to(what: &str, at: u64) {
    let canonical = (at.cast_signed() << 16 >> 16) == at.cast_signed();
    if !canonical {
        emerg!("{what} {at:#018x}: not canonical, no entries");
        return;
    }
    let at = VirtAddr::new(at);
    let mut table = Cr3::read_raw().0.start_address().as_u64();
    let mut level = Level::Pgd;
    loop {
        let entry_at = table + level.index(at) * 8;
        let Some(raw) = read_phys(entry_at) else {
            emerg!(
                "{what} {:#018x}: {level:?} table at {table:#x} is not readable",
                at.as_u64()
            );
            return;
        };
        let pte = Pte::from_raw(raw);
        emerg!(
            "{what} {:#018x}: {level:?} {raw:#018x} {}",
            at.as_u64(),
            Rights(pte, level)
        );
        match level.down() {
            Some(down) if pte.is_present() && !pte.is_leaf(level) => {
                table = pte.pfn().phys().as_u64();
                level = down;
            }
            _ => return,
        }
    }
}

/// 8 bytes of physical memory, if the direct map has them.
fn read_phys(at: u64) -> Option<u64> {
    if at >= layout::DIRECT_MAP_BYTES {
        return None;
    }
    let at = VirtAddr::new(layout::DIRECT_MAP + at);
    let low = try_load32(at).ok()?;
    let high = try_load32(at.offset(4)).ok()?;
    Some(u64::from(high) << 32 | u64::from(low))
}

/// The bits of an entry in words.
struct Rights(Pte, Level);

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pte, level) = *self;
        if !pte.is_present() {
            return f.write_str("not present");
        }
        f.write_str(if pte.is_leaf(level) { "leaf" } else { "table" })?;
        let flags = pte.flags();
        let words = [
            (PteFlags::WRITABLE, " rw", " ro"),
            (PteFlags::NO_EXECUTE, " nx", " x"),
            (PteFlags::USER, " user", ""),
            (PteFlags::GLOBAL, " global", ""),
            (PteFlags::ACCESSED, " accessed", ""),
            (PteFlags::DIRTY, " dirty", ""),
        ];
        for (flag, set, clear) in words {
            f.write_str(if flags.contains(flag) { set } else { clear })?;
        }
        Ok(())
    }
}

/// Words of stack to look at.
const STACK_WORDS: u64 = 1024;
/// Addresses to print.
const MAX_CALLERS: usize = 16;

/// Prints what on the stack looks like a return address into the kernel's code:
/// the callers, and perhaps leftovers of earlier calls. Without frame pointers
/// nothing cheap knows better.
#[doc(alias = "show_trace_log_lvl")]
pub(crate) fn callers(rsp: u64) {
    emerg!("Call trace, by what lies on the stack:");
    let mut printed = 0;
    let code = image::code();
    let first = match stack::guards_of(percpu::cpu())
        .iter()
        .find(|(_, guard)| guard.contains(&rsp))
    {
        // Overflown: the stack begins above.
        Some((_, guard)) => guard.end,
        None => rsp & !7,
    };
    for word in (0..STACK_WORDS).map_while(|n| first.checked_add(n * 8)) {
        if word >> 47 != 0x1_ffff && word >> 47 != 0 {
            break;
        }
        let at = VirtAddr::new(word);
        let Ok(low) = try_load32(at) else { break };
        let Ok(high) = try_load32(at.offset(4)) else {
            break;
        };
        let value = u64::from(high) << 32 | u64::from(low);
        if code.contains(&value) {
            emerg!(" ? {}", Code(value));
            printed += 1;
            if printed == MAX_CALLERS {
                break;
            }
        }
    }
}

/// An address in the code, as itself and as the offset that symbolizers take.
pub(crate) struct Code(
    /// The address.
    pub(crate) u64,
);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)?;
        if image::code().contains(&self.0) {
            write!(f, " (kernel+{:#x})", self.0 - image::base())?;
        }
        Ok(())
    }
}
