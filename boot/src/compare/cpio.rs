//! Archives as Linux takes them for its first file system: cpio, format "newc"
//! (Linux's Documentation/driver-api/early-userspace/buffer-format.rst).

/// File type bits of a mode (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The entry behind the last one.
const TRAILER: &str = "TRAILER!!!";

/// An archive that grows. Its owner is root, and all its times are 0, so that the same
/// contents give the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. Its parents must be there before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file that everybody may run.
    pub fn program(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, FILE | 0o755, (0, 0), contents);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, numbers: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, numbers, &[]);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // A file beyond 4 GiB does not fit in memory in the first place.
        let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            self.entries, // inode
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            length,
            0, // device, major
            0, // device, minor
            major,
            minor,
            name_length,
            0, // checksum: this format has none
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Reads an archive back by the format's description: name, mode, contents.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let header = &bytes[..110];
            assert_eq!(&header[..6], b"070701");
            let field = |n: usize| {
                let digits = std::str::from_utf8(&header[6 + n * 8..14 + n * 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, length, name_length) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..109 + name_length]).unwrap();
            assert_eq!(bytes[109 + name_length], 0);
            let start = (110 + name_length).next_multiple_of(4);
            let contents = bytes[start..start + length].to_vec();
            bytes = &bytes[(start + length).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name.to_owned(), mode, contents));
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.character_device("dev/console", (5, 1));
        for length in 0..9 {
            archive.program(&"n".repeat(length + 1), &vec![7; length]);
        }
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let entries = read(&bytes);
        assert_eq!(entries.len(), 11);
        assert_eq!(entries[0], ("dev".to_owned(), 0o040_755, vec![]));
        assert_eq!(entries[1].1, 0o020_600);
        for (length, entry) in entries[2..].iter().enumerate() {
            assert_eq!(entry.0.len(), length + 1);
            assert_eq!(entry.2, vec![7; length]);
        }
        // Device numbers are fields 9 and 10 of the second entry.
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("0000000500000001"));
    }
}
