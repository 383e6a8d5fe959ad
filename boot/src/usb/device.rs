//! Which devices may be written to. The decision is a pure function of what
//! `lsblk` says.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::error::Error;
use crate::size::Size;

/// Where a system keeps itself: a disk with one of these is not a stick.
const SYSTEM: [&str; 7] = ["/", "/boot", "/boot/efi", "/efi", "/usr", "/var", "/home"];

/// Columns of `lsblk` that [`Device`] reads.
const COLUMNS: &str = "PATH,TYPE,SIZE,MODEL,VENDOR,TRAN,RM,HOTPLUG,RO,MOUNTPOINTS";

/// A block device as `lsblk --json --bytes` describes it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Device {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    model: Option<String>,
    vendor: Option<String>,
    tran: Option<String>,
    rm: bool,
    hotplug: bool,
    ro: bool,
    // `[null]` where nothing is mounted.
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

impl Device {
    /// Asks `lsblk` for all devices and picks `path`, symbolic links followed.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no block device; [`Error::Io`].
    pub fn look(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::Refused {
            device: path.display().to_string(),
            reason,
        };
        let real = std::fs::canonicalize(path).map_err(|error| {
            refused(format!("{error}; `lsblk` lists the disks of this machine"))
        })?;
        let output = Command::new("lsblk")
            .args(["--json", "--bytes", "--tree", "--output", COLUMNS])
            .output()
            .map_err(Error::io("starting lsblk"))?;
        let listing = String::from_utf8_lossy(&output.stdout);
        Self::pick(&listing, &real.to_string_lossy()).map_err(refused)
    }

    /// Picks `path` out of the listing of `lsblk`.
    fn pick(listing: &str, path: &str) -> Result<Self, String> {
        let listing: Listing = serde_json::from_str(listing)
            .map_err(|error| format!("what lsblk says of it cannot be read: {error}"))?;
        for disk in &listing.blockdevices {
            if disk.path == path {
                return Ok(disk.clone());
            }
            if disk.tree().any(|part| part.path == path) {
                return Err(format!(
                    "this is a part of the disk {}; name a whole disk",
                    disk.path
                ));
            }
        }
        Err("this is no disk; `lsblk` lists those of this machine".to_owned())
    }

    /// The path of its device file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why `bytes` bytes must not be written to it, and what would be right.
    #[must_use]
    pub fn refusal(&self, bytes: u64) -> Option<String> {
        let mounted = self.mounted();
        if self.kind != "disk" {
            return Some(format!("this is a {}; name a whole disk", self.kind));
        }
        if let Some(place) = mounted
            .iter()
            .find(|place| SYSTEM.contains(&place.as_str()))
        {
            return Some(format!("this is the disk of this system: it holds {place}"));
        }
        if mounted.iter().any(|place| place == "[SWAP]") {
            return Some("this is a disk of this system: it holds swap".to_owned());
        }
        if !mounted.is_empty() {
            return Some(format!(
                "it is mounted at {}; unmount it first",
                mounted.join(", ")
            ));
        }
        if let Some(user) = self.tree().skip(1).find(|part| part.kind != "part") {
            return Some(format!(
                "it is in use by {} ({}); close that first",
                user.path, user.kind
            ));
        }
        if self.tran.as_deref() != Some("usb") && !self.rm && !self.hotplug {
            return Some(
                "it is neither on USB nor removable, so it is no stick: \
                 perhaps the disk of another system"
                    .to_owned(),
            );
        }
        if self.ro {
            return Some("it is write-protected".to_owned());
        }
        if self.size < bytes {
            return Some(format!(
                "it is too small: {} bytes, and the image has {bytes}",
                self.size
            ));
        }
        None
    }

    fn tree(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        Box::new(std::iter::once(self).chain(self.children.iter().flat_map(Self::tree)))
    }

    fn mounted(&self) -> Vec<String> {
        self.tree()
            .flat_map(|part| part.mountpoints.iter().flatten().cloned())
            .collect()
    }
}

impl fmt::Display for Device {
    /// For the person who is asked: model, size, how it is connected, what is on it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |text: &Option<String>| text.as_deref().unwrap_or("").trim().to_owned();
        let name = format!("{} {}", words(&self.vendor), words(&self.model));
        let name = match name.trim() {
            "" => "model unknown",
            name => name,
        };
        // Sticks are sold in decimal units.
        let tenths = self.size / 100_000_000;
        writeln!(
            f,
            "{}: {name}, {}.{} GB ({} bytes), {}",
            self.path,
            tenths / 10,
            tenths % 10,
            self.size,
            self.tran.as_deref().unwrap_or("connection unknown"),
        )?;
        for part in self.tree().skip(1) {
            writeln!(
                f,
                "  {}: {}, {}",
                part.path,
                part.kind,
                Size::new(part.size)
            )?;
        }
        match self.mounted().as_slice() {
            [] => write!(f, "  not mounted"),
            places => write!(f, "  mounted at {}", places.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Device;

    /// A laptop with a stick, in the form of `lsblk` 2.38.
    const LISTING: &str = r#"{ "blockdevices": [
        {"path":"/dev/nvme0n1","type":"disk","size":512110190592,"model":"SAMSUNG MZVLB512","vendor":null,
         "tran":"nvme","rm":false,"hotplug":false,"ro":false,"mountpoints":[null],"children":[
            {"path":"/dev/nvme0n1p1","type":"part","size":536870912,"model":null,"vendor":null,"tran":"nvme",
             "rm":false,"hotplug":false,"ro":false,"mountpoints":["/boot/efi"]},
            {"path":"/dev/nvme0n1p2","type":"part","size":511000000000,"model":null,"vendor":null,"tran":"nvme",
             "rm":false,"hotplug":false,"ro":false,"mountpoints":[null],"children":[
                {"path":"/dev/mapper/root","type":"crypt","size":510000000000,"model":null,"vendor":null,"tran":null,
                 "rm":false,"hotplug":false,"ro":false,"mountpoints":["/"]}]}]},
        {"path":"/dev/sda","type":"disk","size":2000398934016,"model":"ST2000DM008","vendor":"ATA     ",
         "tran":"sata","rm":false,"hotplug":false,"ro":false,"mountpoints":[null]},
        {"path":"/dev/sdb","type":"disk","size":31042043904,"model":"Ultra Fit","vendor":" SanDisk ",
         "tran":"usb","rm":true,"hotplug":true,"ro":false,"mountpoints":[null],"children":[
            {"path":"/dev/sdb1","type":"part","size":31040995328,"model":null,"vendor":null,"tran":null,
             "rm":true,"hotplug":true,"ro":false,"mountpoints":[null]}]},
        {"path":"/dev/sr0","type":"rom","size":1073741312,"model":"DVD","vendor":null,
         "tran":"sata","rm":true,"hotplug":true,"ro":false,"mountpoints":[null]}
    ]}"#;

    const IMAGE: u64 = 4 << 20;

    fn pick(path: &str) -> Device {
        Device::pick(LISTING, path).unwrap()
    }

    fn stick(change: impl FnOnce(&mut Device)) -> Option<String> {
        let mut device = pick("/dev/sdb");
        change(&mut device);
        device.refusal(IMAGE)
    }

    fn refused(reason: Option<String>, words: &str) {
        let reason = reason.unwrap_or_default();
        assert!(reason.contains(words), "`{words}` is not in `{reason}`");
    }

    #[test]
    fn a_stick_is_accepted() {
        assert_eq!(stick(|_| {}), None);
    }

    #[test]
    fn a_usb_disk_that_does_not_call_itself_removable_is_accepted() {
        assert_eq!(stick(|d| (d.rm, d.hotplug) = (false, false)), None);
    }

    #[test]
    fn the_systems_disk_is_refused() {
        refused(
            pick("/dev/nvme0n1").refusal(IMAGE),
            "the disk of this system",
        );
        // Also if it is a stick.
        refused(
            stick(|d| d.children[0].mountpoints = vec![Some("/".to_owned())]),
            "holds /",
        );
        refused(
            stick(|d| d.children[0].mountpoints = vec![Some("[SWAP]".to_owned())]),
            "swap",
        );
    }

    #[test]
    fn what_is_mounted_or_in_use_is_refused() {
        refused(
            stick(|d| d.children[0].mountpoints = vec![None, Some("/media/x".to_owned())]),
            "mounted at /media/x",
        );
        refused(
            stick(|d| d.mountpoints = vec![Some("/mnt".to_owned())]),
            "mounted at /mnt",
        );
        refused(
            stick(|d| {
                let mut volume = d.children[0].clone();
                volume.kind = "lvm".to_owned();
                d.children[0].children.push(volume);
            }),
            "in use",
        );
    }

    #[test]
    fn the_disk_of_another_system_is_refused() {
        refused(
            pick("/dev/sda").refusal(IMAGE),
            "neither on USB nor removable",
        );
    }

    #[test]
    fn what_is_no_whole_disk_is_refused() {
        refused(
            Device::pick(LISTING, "/dev/sdb1").err(),
            "part of the disk /dev/sdb",
        );
        refused(
            Device::pick(LISTING, "/dev/mapper/root").err(),
            "/dev/nvme0n1",
        );
        refused(Device::pick(LISTING, "/dev/null").err(), "no disk");
        refused(pick("/dev/sr0").refusal(IMAGE), "this is a rom");
    }

    #[test]
    fn what_cannot_hold_it_is_refused() {
        refused(stick(|d| d.ro = true), "write-protected");
        refused(stick(|d| d.size = IMAGE - 1), "too small");
        assert_eq!(stick(|d| d.size = IMAGE), None);
    }

    #[test]
    fn an_unreadable_listing_refuses_all() {
        refused(Device::pick("", "/dev/sdb").err(), "cannot be read");
        refused(Device::pick("{}", "/dev/sdb").err(), "cannot be read");
    }

    #[test]
    fn the_person_sees_which_one_it_is() {
        let text = pick("/dev/sdb").to_string();
        for part in [
            "/dev/sdb: SanDisk Ultra Fit, 31.0 GB",
            "usb",
            "/dev/sdb1",
            "not mounted",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(
            pick("/dev/nvme0n1")
                .to_string()
                .contains("mounted at /boot/efi, /")
        );
    }
}
