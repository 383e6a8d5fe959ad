//! The FAT partition of an image or a stick, with kernel and boot loader on it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use fatfs::{FileSystem, FsOptions};
use fscommon::StreamSlice;

use crate::error::Error;
use crate::usb::Device;

/// The file that tells that a partition is ours.
const KERNEL: &str = "kernel-x86_64";
/// Where firmware looks for the program to start (UEFI 2.10, 3.5.1.1).
const FIRST: &str = "efi/boot/bootx64.efi";
const SECTOR_BYTES: usize = 512;
const SECTOR: u64 = SECTOR_BYTES as u64;

/// A partition, as part of its disk.
type Partition = StreamSlice<File>;

pub(crate) fn refused(target: &Path, reason: &str) -> Error {
    Error::Refused {
        device: target.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// Opens `target`; to be written, it must be a file, or a disk that may be.
pub(crate) fn open(target: &Path, to_write: bool) -> Result<File, Error> {
    let opening = || Error::io(format!("opening {}", target.display()));
    let kind = std::fs::metadata(target).map_err(opening())?.file_type();
    if kind.is_block_device() && to_write {
        if let Some(reason) = Device::look(target)?.refusal(0) {
            return Err(refused(target, &reason));
        }
    } else if !kind.is_file() && !kind.is_block_device() {
        return Err(refused(target, "name an image or a whole disk"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(to_write);
    options.open(target).map_err(opening())
}

/// Where partitions lie, as first byte and length: those of an MBR, or of a GPT (UEFI 2.10, 5.2 and
/// 5.3).
fn partitions(file: &mut File) -> std::io::Result<Vec<(u64, u64)>> {
    let mut sector = [0; SECTOR_BYTES];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut sector)?;
    let mut found = Vec::new();
    if sector[510..] != [0x55, 0xaa] {
        return Ok(found);
    }
    let u32_at = |bytes: &[u8], at: usize| {
        u64::from(u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n])))
    };
    let u64_at =
        |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
    const PROTECTIVE: u8 = 0xee;
    for entry in sector[446..510].chunks_exact(16) {
        let (start, count) = (u32_at(entry, 8), u32_at(entry, 12));
        if entry[4] != 0 && entry[4] != PROTECTIVE && count > 0 {
            found.push((start * SECTOR, count * SECTOR));
        }
    }
    let mut header = [0; SECTOR_BYTES];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"EFI PART") {
        return Ok(found);
    }
    let (table, count, bytes) = (
        u64_at(&header, 72),
        u32_at(&header, 80).min(128),
        u32_at(&header, 84),
    );
    if !(128..=4096).contains(&bytes) {
        return Ok(found);
    }
    for n in 0..count {
        let mut entry = vec![0; usize::try_from(bytes).unwrap_or(128)];
        file.seek(SeekFrom::Start(
            table.saturating_mul(SECTOR).saturating_add(n * bytes),
        ))?;
        file.read_exact(&mut entry)?;
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        if entry[..16].iter().any(|&byte| byte != 0) && last >= first && last < 1 << 40 {
            found.push((first * SECTOR, (last - first + 1) * SECTOR));
        }
    }
    Ok(found)
}

/// The file system with our kernel in it.
pub(crate) fn mount(target: &Path, to_write: bool) -> Result<FileSystem<Partition>, Error> {
    let reading = || Error::io(format!("reading {}", target.display()));
    let mut file = open(target, to_write)?;
    let found = match partitions(&mut file) {
        // Too short for a disk.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Vec::new(),
        found => found.map_err(reading())?,
    };
    for (start, length) in found {
        let file = file.try_clone().map_err(reading())?;
        let Ok(partition) = StreamSlice::new(file, start, start + length) else {
            continue;
        };
        let Ok(system) = FileSystem::new(partition, FsOptions::new()) else {
            continue;
        };
        let is_ours = system
            .root_dir()
            .iter()
            .flatten()
            .any(|entry| entry.file_name() == KERNEL);
        if is_ours {
            return Ok(system);
        }
    }
    Err(refused(
        target,
        "no partition on it holds this kernel; `cargo run -- image` writes images, `cargo run -- usb` sticks",
    ))
}

/// Puts the EFI application `program` where the firmware of `image` looks first; what was there is
/// `next` beside it.
///
/// # Errors
/// [`Error::Refused`] for an image that is not ours or full; [`Error::Io`].
pub fn put_first(image: &Path, program: &Path, next: &str) -> Result<(), Error> {
    let bytes =
        std::fs::read(program).map_err(Error::io(format!("reading {}", program.display())))?;
    let writing = || Error::io(format!("writing {FIRST} on {}", image.display()));
    let system = mount(image, true)?;
    let root = system.root_dir();
    let next = Path::new(FIRST).with_file_name(next);
    root.rename(FIRST, &root, &next.display().to_string())
        .map_err(writing())?;
    let mut file = root.create_file(FIRST).map_err(writing())?;
    file.write_all(&bytes).map_err(writing())?;
    file.flush().map_err(writing())?;
    drop(file);
    drop(root);
    system.unmount().map_err(writing())
}
