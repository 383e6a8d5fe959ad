//! Writing an image to a device, and reading it back.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};

use crate::error::Error;
use crate::progress;

/// Bytes written or read at once.
const CHUNK: usize = 1 << 20;

/// Alignment that `O_DIRECT` wants of memory: the greatest block size of disks.
const ALIGNMENT: usize = 4096;

/// Writes `image` to `device` from its start, makes it durable, and compares what
/// the device then has with the image, past the page cache.
///
/// # Errors
/// [`Error::Differs`]; [`Error::Refused`] if a block device is in use;
/// [`Error::Io`].
pub fn write_and_verify(image: &Path, device: &Path) -> Result<(), Error> {
    write(image, device)?;
    verify(image, device)
}

fn write(image: &Path, device: &Path) -> Result<(), Error> {
    let doing = || format!("writing {}", device.display());
    let (mut from, length) = open_image(image)?;
    let is_block_device = std::fs::metadata(device)
        .map_err(Error::io(doing()))?
        .file_type()
        .is_block_device();
    // On a block device, O_EXCL is Linux's own check that nobody uses it: it sees
    // more than lsblk can.
    let exclusive = if is_block_device {
        OFlags::EXCL
    } else {
        OFlags::empty()
    };
    let mut to = OpenOptions::new()
        .write(true)
        .custom_flags(flags(exclusive))
        .open(device)
        .map_err(|error| match error.kind() {
            ErrorKind::ResourceBusy => Error::Refused {
                device: device.display().to_string(),
                reason: "something uses it; unmount and close it first".to_owned(),
            },
            _ => Error::Io {
                doing: doing(),
                source: error,
            },
        })?;
    let bar = progress::bytes("writing", length);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = fill(&mut from, &mut buffer)
            .map_err(Error::io(format!("reading {}", image.display())))?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).map_err(Error::io(doing()))?;
        // Each chunk at once, or the bar would show how fast the page cache is.
        to.sync_data().map_err(Error::io(doing()))?;
        bar.inc(n as u64);
    }
    to.sync_all().map_err(Error::io(doing()))?;
    bar.finish_and_clear();
    Ok(())
}

/// Compares `device` with `image`.
///
/// # Errors
/// [`Error::Differs`], [`Error::Io`].
pub fn verify(image: &Path, device: &Path) -> Result<(), Error> {
    let (mut from, length) = open_image(image)?;
    let mut back = open_past_the_cache(device)?;
    let bar = progress::bytes("reading back", length);
    let mut wanted = vec![0; CHUNK];
    let mut memory = vec![0; CHUNK + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let read = &mut memory[start..start + CHUNK];
    let mut offset = 0;
    loop {
        let n = fill(&mut from, &mut wanted)
            .map_err(Error::io(format!("reading {}", image.display())))?;
        if n == 0 {
            break;
        }
        let got =
            fill(&mut back, read).map_err(Error::io(format!("reading {}", device.display())))?;
        let same = wanted[..n]
            .iter()
            .zip(&read[..got])
            .take_while(|(a, b)| a == b)
            .count();
        if same < n {
            return Err(Error::Differs {
                device: device.display().to_string(),
                offset: offset + same as u64,
            });
        }
        offset += n as u64;
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn open_image(image: &Path) -> Result<(File, u64), Error> {
    let doing = format!("reading {}", image.display());
    let open = || {
        let file = File::open(image)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open().map_err(Error::io(doing))
}

/// Opens `device` so that reading asks the device itself: with `O_DIRECT`, or,
/// where a file system has none, with its clean pages dropped.
fn open_past_the_cache(device: &Path) -> Result<File, Error> {
    let doing = || format!("reading {}", device.display());
    match OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::DIRECT))
        .open(device)
    {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {}
        opened => return opened.map_err(Error::io(doing())),
    }
    let file = File::open(device).map_err(Error::io(doing()))?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| Error::io(doing())(error.into()))?;
    Ok(file)
}

fn flags(flags: OFlags) -> i32 {
    // The bits of open(2), which has a signed argument.
    flags.bits().cast_signed()
}

/// Reads until `buffer` is full or `from` ends. (`O_DIRECT` reads whole blocks, so
/// that a short one can only be the last.)
fn fill(from: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match from.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CHUNK, verify, write_and_verify};
    use crate::error::Error;

    struct Files {
        _dir: tempfile::TempDir,
        image: PathBuf,
        device: PathBuf,
    }

    /// An image of some chunks and a bit, and a device with twice the room.
    fn files() -> Files {
        // Beside the program: /tmp may have no O_DIRECT, and would test less.
        let program = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..CHUNK * 2 + 512)
            .map(|n| n.to_le_bytes()[n % 3])
            .collect();
        let (image, device) = (dir.path().join("image"), dir.path().join("device"));
        std::fs::write(&image, &bytes).unwrap();
        std::fs::write(&device, vec![0xff; bytes.len() * 2]).unwrap();
        Files {
            _dir: dir,
            image,
            device,
        }
    }

    #[test]
    fn the_image_arrives_and_the_rest_stays() {
        let files = files();
        write_and_verify(&files.image, &files.device).unwrap();
        let image = std::fs::read(&files.image).unwrap();
        let device = std::fs::read(&files.device).unwrap();
        assert!(device[..image.len()] == image);
        assert!(device.len() == image.len() * 2);
        assert!(device[image.len()..].iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn a_device_that_forgets_is_found_out() {
        let files = files();
        write_and_verify(&files.image, &files.device).unwrap();
        for offset in [0, CHUNK, CHUNK * 2 + 511] {
            let mut bytes = std::fs::read(&files.image).unwrap();
            bytes[offset] ^= 1;
            std::fs::write(&files.device, &bytes).unwrap();
            let error = verify(&files.image, &files.device).unwrap_err();
            assert!(
                matches!(&error, Error::Differs { offset: at, .. } if *at == offset as u64),
                "{error}"
            );
        }
    }

    #[test]
    fn a_device_that_ends_early_is_found_out() {
        let files = files();
        let bytes = std::fs::read(&files.image).unwrap();
        std::fs::write(&files.device, &bytes[..CHUNK + 1024]).unwrap();
        let error = verify(&files.image, &files.device).unwrap_err();
        assert!(
            matches!(&error, Error::Differs { offset, .. } if *offset == CHUNK as u64 + 1024),
            "{error}"
        );
    }
}
