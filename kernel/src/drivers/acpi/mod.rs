//! ACPI's static tables: where they are, and those about CPUs and NUMA.
//!
//! The crate `acpi` gives the layout of the root pointer and of table headers, and
//! checks them. Two things of its release 6.1.1 are not used: it reads XSDT entries
//! as if they were aligned, and it takes an SRAT entry's header for 3 bytes (it has
//! 2), so that every field behind is off. Tables come from firmware, so each address
//! and length is checked against the memory map before a byte of it is read.
#![expect(unsafe_code, reason = "reads firmware tables through the direct map")]

mod entries;
mod madt;
mod slit;
mod srat;

use acpi::AcpiError;
use acpi::rsdp::Rsdp;
use acpi::sdt::{SdtHeader, Signature};

pub(crate) use entries::Damage;
use entries::entries;
pub(crate) use madt::{Madt, parse as parse_madt};
pub(crate) use slit::parse as parse_slit;
pub(crate) use srat::parse as parse_srat;

use crate::arch::x86_64::layout;
use crate::warn;

/// Longest table that is believed, in bytes.
const MAX_TABLE: usize = 1 << 20;
/// Most tables that the root table may list.
const MAX_TABLES: usize = 256;

/// Why a table cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The firmware names no root pointer.
    #[error("the firmware has no root pointer")]
    NoRsdp,
    /// No memory of the machine lies there.
    #[error("{what} of {bytes} bytes at {at:#x}: not in any region of the memory map")]
    OutsideMemory {
        /// What should have been there.
        what: &'static str,
        /// Physical address.
        at: u64,
        /// Length in bytes.
        bytes: usize,
    },
    /// The header or the checksum is wrong.
    #[error("{0} is damaged: {1:?}")]
    Invalid(&'static str, AcpiError),
    /// The table is not listed.
    #[error("the firmware has no {0}")]
    NotListed(&'static str),
}

/// Firmware memory that may be read, as a test by physical address and length.
pub(crate) type Readable<'a> = &'a dyn Fn(u64, usize) -> bool;

/// The tables of the machine.
pub(crate) struct Tables<'a> {
    readable: Readable<'a>,
    /// The XSDT, or the RSDT of old machines, without its header.
    entries: &'static [u8],
    entry_bytes: usize,
}

impl<'a> Tables<'a> {
    /// From the root pointer's physical address.
    ///
    /// # Errors
    /// If the pointer or the root table is damaged.
    pub(crate) fn new(rsdp: Option<u64>, readable: Readable<'a>) -> Result<Self, Error> {
        let at = rsdp.ok_or(Error::NoRsdp)?;
        let head = bytes(readable, "RSDP", at, size_of::<Rsdp>())?;
        // SAFETY: that many bytes are there, a packed structure has no alignment, and
        // any bytes make one (H-5).
        let rsdp = unsafe { &*head.as_ptr().cast::<Rsdp>() };
        if rsdp.signature() == *b"RSD PTR " && rsdp.revision() > 0 {
            // The sum is taken over as many bytes as the pointer says itself: over
            // none, it would always be right.
            let len = usize::try_from(rsdp.length()).unwrap_or(usize::MAX);
            if len < size_of::<Rsdp>() {
                return Err(Error::Invalid("RSDP", AcpiError::RsdpInvalidChecksum));
            }
            bytes(readable, "RSDP", at, len)?;
        }
        rsdp.validate().map_err(|why| Error::Invalid("RSDP", why))?;
        let rsdt = u64::from(rsdp.rsdt_address());
        let old = || Ok((table(readable, rsdt, "RSDT", Signature::RSDT)?, 4));
        let (table, entry_bytes) = match rsdp.revision() {
            0 => old()?,
            _ => match table(readable, rsdp.xsdt_address(), "XSDT", Signature::XSDT) {
                Ok(table) => (table, 8),
                // Both list the same tables (ACPI 6.5, 5.2.7): the old one is there to be used.
                Err(why) if rsdt != 0 => {
                    warn!("ACPI: {why}: the RSDT is used");
                    old()?
                }
                Err(why) => return Err(why),
            },
        };
        Ok(Self {
            readable,
            entries: &table[size_of::<SdtHeader>()..],
            entry_bytes,
        })
    }

    /// The NUMA table, header included.
    ///
    /// # Errors
    /// [`Error::NotListed`] if there is none, or what is wrong with it.
    #[doc(alias = "acpi_table_parse")]
    pub(crate) fn srat(&self) -> Result<&'static [u8], Error> {
        self.find("SRAT", Signature::SRAT)
    }

    /// The table of distances, header included.
    ///
    /// # Errors
    /// [`Error::NotListed`] if there is none, or what is wrong with it.
    pub(crate) fn slit(&self) -> Result<&'static [u8], Error> {
        self.find("SLIT", Signature::SLIT)
    }

    /// The table of CPUs, header included.
    ///
    /// # Errors
    /// [`Error::NotListed`] if there is none, or what is wrong with it.
    pub(crate) fn madt(&self) -> Result<&'static [u8], Error> {
        self.find("MADT", Signature::MADT)
    }

    /// Whether the MADT says of each disabled CPU that it may come one day: since ACPI 6.3, and
    /// the FADT has the version.
    #[doc(alias = "acpi_support_online_capable")]
    pub(crate) fn says_online_capable(&self) -> bool {
        let minor_at = 131;
        self.find("FADT", Signature::FADT)
            .is_ok_and(|fadt| (fadt[8], fadt.get(minor_at).map_or(0, |minor| minor & 15)) >= (6, 3))
    }

    fn find(&self, what: &'static str, signature: Signature) -> Result<&'static [u8], Error> {
        let addresses = self
            .entries
            .chunks_exact(self.entry_bytes)
            .take(MAX_TABLES)
            .map(|entry| {
                let mut address = [0; 8];
                address[..entry.len()].copy_from_slice(entry);
                u64::from_le_bytes(address)
            });
        let mut damaged = None;
        for at in addresses {
            // An entry that leads nowhere is some other table's problem.
            let Ok(head) = bytes(self.readable, what, at, size_of::<SdtHeader>()) else {
                continue;
            };
            if head.starts_with(signature.as_str().as_bytes()) {
                match table(self.readable, at, what, signature) {
                    Ok(table) => {
                        if let Some(why) = damaged {
                            warn!("ACPI: {why}: another one is used");
                        }
                        return Ok(table);
                    }
                    // The firmware may list one more. If it does not, this is what is wrong.
                    Err(why) => damaged = damaged.or(Some(why)),
                }
            }
        }
        Err(damaged.unwrap_or(Error::NotListed(what)))
    }
}

/// The whole table at `at`, header included and checked.
fn table(
    readable: Readable<'_>,
    at: u64,
    what: &'static str,
    signature: Signature,
) -> Result<&'static [u8], Error> {
    let head = bytes(readable, what, at, size_of::<SdtHeader>())?;
    // SAFETY: as for the root pointer (H-5).
    let header = unsafe { &*head.as_ptr().cast::<SdtHeader>() };
    let len = usize::try_from(header.length()).unwrap_or(usize::MAX);
    if len < size_of::<SdtHeader>() {
        // As above: a sum over fewer bytes says nothing.
        let why = AcpiError::SdtInvalidChecksum(signature);
        return Err(Error::Invalid(what, why));
    }
    let whole = bytes(readable, what, at, len)?;
    // SAFETY: as above, of the whole table this time (H-5).
    let header = unsafe { &*whole.as_ptr().cast::<SdtHeader>() };
    // SAFETY: as many bytes as the length says are there (H-5).
    unsafe { header.validate(signature) }.map_err(|why| Error::Invalid(what, why))?;
    Ok(whole)
}

/// `len` bytes of firmware memory.
fn bytes(
    readable: Readable<'_>,
    what: &'static str,
    at: u64,
    len: usize,
) -> Result<&'static [u8], Error> {
    if len > MAX_TABLE || !readable(at, len) {
        return Err(Error::OutsideMemory {
            what,
            at,
            bytes: len,
        });
    }
    let start = usize::try_from(layout::DIRECT_MAP + at).unwrap_or(usize::MAX);
    let start = core::ptr::with_exposed_provenance::<u8>(start);
    // SAFETY: the memory map says there is memory, and the direct map, of the loader
    // as of the kernel, covers it; firmware tables are not written (H-5).
    Ok(unsafe { core::slice::from_raw_parts(start, len) })
}
