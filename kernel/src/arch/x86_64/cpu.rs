//! What this processor can do, and switching it on.
#![expect(unsafe_code, reason = "writes control registers and MSRs")]

use core::sync::atomic::{AtomicU64, Ordering};

use raw_cpuid::{CpuId, CpuIdReaderNative};
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::memory_types;
use crate::log;

/// Features that decide how the kernel sets itself up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// Runs under a hypervisor: `fw_cfg` and `isa-debug-exit` may be there.
    #[doc(alias = "X86_FEATURE_HYPERVISOR")]
    pub(crate) hypervisor: bool,
    /// Leaves of 1 GiB.
    #[doc(alias = "X86_FEATURE_GBPAGES")]
    pub(crate) gbpages: bool,
    /// Entries can forbid instruction fetches.
    #[doc(alias = "X86_FEATURE_NX")]
    pub(crate) nx: bool,
    /// Entries can outlive a load of CR3.
    #[doc(alias = "X86_FEATURE_PGE")]
    pub(crate) pge: bool,
    /// Supervisor code may not be fetched from user pages.
    pub(crate) smep: bool,
    /// Supervisor code may not touch user pages.
    pub(crate) smap: bool,
    /// Registers of 32 bytes. The compiler uses none (the target is soft-float), so
    /// they are free for filling memory and never need saving.
    #[doc(alias = "X86_FEATURE_AVX")]
    pub(crate) avx: bool,
    /// Memory types can be chosen by page.
    pub(crate) pat: bool,
    /// There are registers with the memory types of physical ranges.
    #[doc(alias = "X86_FEATURE_MTRR")]
    pub(crate) mtrr: bool,
    /// Machine checks can be switched on, and there are banks that say what they are about.
    #[doc(alias = "X86_FEATURE_MCA")]
    pub(crate) mca: bool,
    /// Erratum 383 (AMD 41322, Revision Guide for Family 10h Processors): two sizes of one
    /// address in the TLB are a machine check, so a page's size changes only while the entry
    /// is not present. All of family 10h is taken to have it.
    pub(crate) tlb_multi_match: bool,
    /// AMD's, or Hygon's, of family 15 or later: it has their MSRs.
    pub(crate) amd: bool,
    /// Registers of the local APIC are MSRs, and that is how they are used.
    #[doc(alias = "X86_FEATURE_X2APIC")]
    pub(crate) x2apic: bool,
    /// Width of a physical address in bits.
    #[doc(alias = "x86_phys_bits")]
    pub(crate) phys_bits: u8,
}

static FEATURES: Once<Features> = Once::new();

fn cpuid() -> CpuId<CpuIdReaderNative> {
    CpuId::with_cpuid_reader(CpuIdReaderNative)
}

impl Features {
    /// Those that Linux has a name for.
    #[doc(alias = "x86_cap_flags")]
    pub(crate) fn named(&self) -> [(&'static str, bool); 12] {
        [
            // There is one in every x86_64 processor.
            ("apic", true),
            ("x2apic", self.x2apic),
            ("mca", self.mca),
            ("mtrr", self.mtrr),
            ("nx", self.nx),
            ("pdpe1gb", self.gbpages),
            ("pge", self.pge),
            ("smep", self.smep),
            ("smap", self.smap),
            ("avx", self.avx),
            ("pat", self.pat),
            ("hypervisor", self.hypervisor),
        ]
    }
}

/// Vendor and model as the processor gives them.
pub(crate) fn names() -> (ktest::Text<16>, ktest::Text<56>) {
    let id = cpuid();
    let vendor = id.get_vendor_info();
    let brand = id.get_processor_brand_string();
    (
        ktest::Text::of(format_args!(
            "{}",
            vendor.as_ref().map_or("no vendor", |v| v.as_str())
        )),
        ktest::Text::of(format_args!(
            "{}",
            brand.as_ref().map_or("no name", |b| b.as_str().trim())
        )),
    )
}

/// The features of the boot CPU.
pub(crate) fn features() -> &'static Features {
    FEATURES.call_once(|| {
        let id = cpuid();
        let basic = id.get_feature_info();
        let extended = id.get_extended_feature_info();
        let amd = id.get_extended_processor_and_feature_identifiers();
        let sizes = id.get_processor_capacity_feature_info();
        Features {
            hypervisor: basic.as_ref().is_some_and(|f| f.has_hypervisor()),
            gbpages: amd.as_ref().is_some_and(|f| f.has_1gib_pages()),
            nx: amd.as_ref().is_some_and(|f| f.has_execute_disable()),
            pge: basic.as_ref().is_some_and(|f| f.has_pge()),
            smep: extended.as_ref().is_some_and(|f| f.has_smep()),
            smap: extended.as_ref().is_some_and(|f| f.has_smap()),
            avx: basic.as_ref().is_some_and(|f| f.has_avx() && f.has_xsave()),
            pat: basic.as_ref().is_some_and(|f| f.has_pat()),
            mtrr: basic.as_ref().is_some_and(|f| f.has_mtrr()),
            mca: basic.as_ref().is_some_and(|f| f.has_mce() && f.has_mca()),
            tlb_multi_match: basic.as_ref().is_some_and(|f| f.family_id() == 0x10)
                && id
                    .get_vendor_info()
                    .is_some_and(|v| v.as_str() == "AuthenticAMD"),
            amd: basic.as_ref().is_some_and(|f| f.family_id() >= 15)
                && id
                    .get_vendor_info()
                    .is_some_and(|v| matches!(v.as_str(), "AuthenticAMD" | "HygonGenuine")),
            x2apic: basic.as_ref().is_some_and(|f| f.has_x2apic()),
            phys_bits: sizes.map_or(36, |s| s.physical_address_bits()).min(52),
        }
    })
}

/// Frequency of the time stamp counter in Hz as the processor states it, if so.
pub(crate) fn stated_tsc_hz() -> Option<u64> {
    let id = cpuid();
    let from_crystal = id
        .get_tsc_info()
        .and_then(|tsc| tsc.tsc_frequency())
        .filter(|&hz| hz > 0);
    let from_hypervisor = || {
        let khz = id.get_hypervisor_info()?.tsc_frequency()?;
        Some(u64::from(khz) * 1000).filter(|&hz| hz > 0)
    };
    from_crystal.or_else(from_hypervisor)
}

/// Switches on what protects memory from this kernel's own mistakes: WP, NX,
/// SMEP, SMAP; and global pages.
///
/// # Panics
/// If the processor cannot forbid execution: every mapping here relies on it.
pub(crate) fn enable_protections() {
    let f = features();
    assert!(f.nx, "the processor has no NX bit");
    let mut cr4 = Cr4::read();
    cr4.set(Cr4Flags::PAGE_GLOBAL, f.pge);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, f.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, f.smap);
    // SAFETY: EFER keeps its other bits; NX exists (INV-7 needs it), and no mapping in
    // use has bit 63 set where code is fetched.
    unsafe { Efer::write(Efer::read() | EferFlags::NO_EXECUTE_ENABLE) };
    // SAFETY: CR0 keeps its other bits; nothing writes through read-only entries, and
    // from here on nothing can (A-4, INV-4).
    unsafe { Cr0::write(Cr0::read() | Cr0Flags::WRITE_PROTECT) };
    // SAFETY: only bits whose feature exists are set, and nothing maps user pages (H-2).
    unsafe { Cr4::write(cr4) };
    memory_types::enable();
}

// CR4 of the boot CPU. Relaxed: stored before another CPU is started.
static BOOT_CR4: AtomicU64 = AtomicU64::new(0);

/// Makes the other CPUs' CR4 what this one's is: firmware may have set more than
/// [`enable_protections`] does.
#[doc(alias = "mmu_cr4_features")]
pub(crate) fn be_the_model() {
    BOOT_CR4.store(Cr4::read_raw(), Ordering::Relaxed);
}

/// Everything that the boot CPU has switched on, on another CPU.
pub(crate) fn follow_the_model() {
    enable_protections();
    enable_vectors();
    let cr4 = Cr4Flags::from_bits_retain(BOOT_CR4.load(Ordering::Relaxed));
    // SAFETY: what the boot CPU runs with, WP, NX, SMEP and SMAP included (INV-4).
    unsafe { Cr4::write(cr4) };
}

/// Switches on the vector registers, if there are any, for
/// [`crate::metal::Metal`]'s bulk stores.
pub(crate) fn enable_vectors() {
    if !features().avx {
        return;
    }
    let mut cr0 = Cr0::read();
    cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
    cr0.insert(Cr0Flags::MONITOR_COPROCESSOR);
    // SAFETY: only how vector instructions are treated changes (H-2).
    unsafe { Cr0::write(cr0) };
    let sse = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | Cr4Flags::OSXSAVE;
    // SAFETY: the features exist, as AVX and XSAVE do (H-2).
    unsafe { Cr4::write(Cr4::read() | sse) };
    // SAFETY: OSXSAVE is on; AVX needs SSE and x87 beside it (H-2).
    unsafe { XCr0::write(XCr0Flags::X87 | XCr0Flags::SSE | XCr0Flags::AVX) };
}

/// Drops all translations of this CPU, global ones included. Interrupts are off.
#[doc(alias = "__native_tlb_flush_global")]
pub(crate) fn flush_tlb() {
    let cr4 = Cr4::read();
    if cr4.contains(Cr4Flags::PAGE_GLOBAL) {
        // SAFETY: CR4 keeps its other bits. Changing PGE drops all translations
        // (A-2; Intel SDM volume 3, 4.10.4.1).
        unsafe { Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL) };
        // SAFETY: the value that was there (H-2).
        unsafe { Cr4::write(cr4) };
    } else {
        // Without global pages a load of CR3 does it.
        x86_64::instructions::tlb::flush_all();
    }
}

/// Names the processor and what is on.
pub(crate) fn report() {
    let id = cpuid();
    let (vendor, brand) = names();
    log!("CPU: {} ({})", brand.as_str(), vendor.as_str());
    let f = features();
    if let Some(hypervisor) = id.get_hypervisor_info() {
        log!("Hypervisor detected: {:?}", hypervisor.identify());
    } else if f.hypervisor {
        log!("Hypervisor detected: does not say which");
    }
    let mark = |on: bool| if on { '+' } else { '-' };
    log!(
        "x86/mm: {}nx {}pge {}smep {}smap {}pat {}avx {}pdpe1gb, wp on, {} physical address bits",
        mark(f.nx),
        mark(f.pge),
        mark(f.smep),
        mark(f.smap),
        mark(f.pat),
        mark(f.avx),
        mark(f.gbpages),
        f.phys_bits
    );
    if f.tlb_multi_match {
        log!("vmemmap: mapped by 4 KiB pages, since this processor has AMD's erratum 383");
    }
}
