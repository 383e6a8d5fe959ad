//! The kernel's own image in memory, by its program headers.
#![expect(
    unsafe_code,
    reason = "reads the ELF header that the image starts with"
)]

use core::ops::Range;

use mm::paging::PteFlags;

use crate::arch::x86_64::stack;

/// `Elf64_Ehdr` (System V ABI, chapter 4).
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    size: u16,
    program_header_size: u16,
    program_header_count: u16,
}

unsafe extern "C" {
    // The linker's name for the first byte of the file, which is loaded too.
    #[link_name = "__ehdr_start"]
    static HEADER: Header;
}

/// `Elf64_Phdr` (System V ABI, chapter 5).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    mem_size: u64,
    align: u64,
}

const PT_LOAD: u32 = 1;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

const PAGE: u64 = 4096;

fn start() -> *const u8 {
    (&raw const HEADER).cast()
}

fn program_headers() -> &'static [ProgramHeader] {
    // SAFETY: the first segment is loaded from the start of the file, header
    // included, and is read-only (H-6).
    let header = unsafe { &HEADER };
    assert_eq!(
        usize::from(header.program_header_size),
        size_of::<ProgramHeader>(),
        "the image does not start with its ELF header"
    );
    let offset = usize::try_from(header.program_headers).unwrap_or(usize::MAX);
    let count = usize::from(header.program_header_count);
    // SAFETY: the linker puts the program headers behind the ELF header, in the same
    // segment (H-6).
    let headers = unsafe { start().byte_add(offset) };
    // SAFETY: `count` headers of that size lie there, aligned, and nobody writes them (H-6).
    unsafe { core::slice::from_raw_parts(headers.cast(), count) }
}

impl ProgramHeader {
    /// The pages it covers, as virtual addresses.
    fn pages(&self) -> Range<u64> {
        let base = start().addr() as u64;
        let from = base + self.vaddr;
        let to = from + self.mem_size;
        from / PAGE * PAGE..to.next_multiple_of(PAGE)
    }
}

/// The pages of the image with the rights each is to have: code executes, data does
/// not, and what only the loader had to write (its relocations) is read-only.
/// Guard pages of stacks are left out.
pub(crate) fn pages() -> impl Iterator<Item = (u64, PteFlags)> {
    let headers = program_headers();
    let relro = move |at: u64| {
        headers
            .iter()
            .any(|h| h.kind == PT_GNU_RELRO && h.pages().contains(&at))
    };
    headers
        .iter()
        .filter(|h| h.kind == PT_LOAD)
        .flat_map(|h| {
            let Range { start, end } = h.pages();
            (start / PAGE..end / PAGE).map(|n| (n * PAGE, h.flags))
        })
        .filter(|(at, _)| stack::overflowed(*at).is_none())
        .map(move |(at, flags)| {
            let rights = match (flags & PF_X != 0, flags & PF_W != 0 && !relro(at)) {
                (true, _) => PteFlags::KERNEL_ROX,
                (false, true) => PteFlags::KERNEL,
                (false, false) => PteFlags::KERNEL_RO,
            };
            (at, rights)
        })
}

/// The addresses of the code.
pub(crate) fn code() -> Range<u64> {
    let executable = |h: &&ProgramHeader| h.kind == PT_LOAD && h.flags & PF_X != 0;
    let code = program_headers().iter().find(executable);
    code.map_or(0..0, ProgramHeader::pages)
}

/// The address that the image was linked to as 0.
pub(crate) fn base() -> u64 {
    start().addr() as u64
}
