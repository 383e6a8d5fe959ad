//! Broken frames: offlining by physical address, and the files of Linux's `hwpoison-inject`
//! (`Documentation/mm/hwpoison.rst`), by frame number.

use mm::addr::{PAGE_SHIFT, Pfn};
use mm::hwpoison::{Handled, PoisonError, PoisonPolicy};
use shell::{Errno, Files, kstrtoul, sysctl_ulong};

use crate::metal::Metal;
use crate::state::MM;

/// What Linux answers. Soft offlining there says that a huge page is busy whatever the
/// reason why it cannot be dissolved.
fn errno(error: PoisonError) -> Errno {
    match error {
        PoisonError::NoRam(_) => Errno::ENXIO,
        PoisonError::AlreadyPoisoned(_) => Errno::EHWPOISON,
        PoisonError::NotPoisoned(_) | PoisonError::Busy(_) | PoisonError::NoMemory(_) => {
            Errno::EBUSY
        }
        PoisonError::Disabled => Errno::EOPNOTSUPP,
    }
}

/// The frame of the physical address that is `text`. As in Linux every bad number is
/// invalid, one of more than 64 bits too.
fn frame_at(text: &str) -> Result<Pfn, Errno> {
    let address = kstrtoul(text, 0).map_err(|_| Errno::EINVAL)?;
    Pfn::try_new(address >> PAGE_SHIFT).ok_or(Errno::ENXIO)
}

/// The frame whose number is `text`.
fn frame(text: &str) -> Result<Pfn, Errno> {
    Pfn::try_new(kstrtoul(text, 0)?).ok_or(Errno::ENXIO)
}

fn hard_offline(pfn: Pfn) -> Result<(), Errno> {
    match MM.memory_failure(&Metal, pfn).map_err(errno)? {
        // Marked; but its owner goes on using it.
        Handled::Ignored => Err(Errno::EBUSY),
        _ => Ok(()),
    }
}

pub(super) fn add_to(files: &mut Files<'static>) {
    // A physical address. The frame there is taken out of use as if it had broken.
    files.write_only("/sys/devices/system/memory/hard_offline_page", |_, text| {
        hard_offline(frame_at(text)?)
    });
    // The same for a frame that works still, if nobody uses it.
    files.write_only("/sys/devices/system/memory/soft_offline_page", |_, text| {
        MM.soft_offline_page(&Metal, frame_at(text)?)
            .map_err(errno)?;
        Ok(())
    });
    // 0 or 1. With 0 a write to `soft_offline_page` fails.
    files.read_write(
        "/proc/sys/vm/enable_soft_offline",
        |_, out| {
            let on = MM.hwpoison.soft_offline_enabled();
            Ok(writeln!(out, "{}", u8::from(on))?)
        },
        |_, text| {
            match sysctl_ulong(text)? {
                0 => MM.hwpoison.enable_soft_offline(false),
                1 => MM.hwpoison.enable_soft_offline(true),
                _ => return Err(Errno::EINVAL),
            }
            Ok(())
        },
    );
    // The number of a frame that is to count as broken.
    files.write_only("/sys/kernel/debug/hwpoison/corrupt-pfn", |_, text| {
        hard_offline(frame(text)?)
    });
    // The number of a broken frame that is to be used again.
    files.write_only("/sys/kernel/debug/hwpoison/unpoison-pfn", |_, text| {
        MM.unpoison_memory(&Metal, frame(text)?).map_err(errno)
    });
    // Not in Linux: where it is noted which frame of a huge page is broken; the choice in
    // brackets.
    files.read_write(
        "/sys/kernel/debug/hwpoison/policy",
        |_, out| {
            Ok(match MM.hwpoison.policy() {
                PoisonPolicy::List => writeln!(out, "[list] copy-on-write"),
                PoisonPolicy::CopyOnWrite => writeln!(out, "list [copy-on-write]"),
            }?)
        },
        |_, text| {
            match text.trim() {
                "list" => MM.hwpoison.set_policy(PoisonPolicy::List),
                "copy-on-write" => MM.hwpoison.set_policy(PoisonPolicy::CopyOnWrite),
                _ => return Err(Errno::EINVAL),
            }
            Ok(())
        },
    );
}
