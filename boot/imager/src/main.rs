//! Joins the boot loader, the kernel and the default command line into disk images.
//!
//! A program of its own because the boot loader's build script compiles its
//! stages with `cargo install`, which takes minutes the first time: `boot` starts
//! this one only when an image is wanted, and can tell meanwhile how far it is.

use std::path::PathBuf;

use anyhow::Context;
use bootloader::{BootConfig, DiskImageBuilder};
use bootloader_boot_config::LevelFilter;
use clap::Parser;

/// Write Tailfold disk images.
#[derive(Debug, Parser)]
struct Arguments {
    /// The kernel, an ELF file.
    #[arg(long)]
    kernel: PathBuf,
    /// The text that becomes the file `ramdisk`: the default command line.
    #[arg(long)]
    ramdisk: PathBuf,
    /// Where to write the image for BIOS (MBR, FAT).
    #[arg(long)]
    bios: Option<PathBuf>,
    /// Where to write the image for UEFI (GPT, FAT).
    #[arg(long)]
    uefi: Option<PathBuf>,
    /// Least width of the framebuffer, in pixels.
    #[arg(long, requires = "height")]
    width: Option<u64>,
    /// Least height of the framebuffer, in pixels.
    #[arg(long, requires = "width")]
    height: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for (what, path) in [
        ("kernel", &arguments.kernel),
        ("ramdisk", &arguments.ramdisk),
    ] {
        anyhow::ensure!(
            path.is_file(),
            "{what}: there is no file {}",
            path.display()
        );
    }
    // Errors of the boot loader belong on both consoles; everything less would
    // stand between the firmware's words and the kernel's.
    let mut config = BootConfig::default();
    config.log_level = LevelFilter::Error;
    config.frame_buffer.minimum_framebuffer_width = arguments.width;
    config.frame_buffer.minimum_framebuffer_height = arguments.height;

    let mut builder = DiskImageBuilder::new(arguments.kernel);
    builder.set_ramdisk(arguments.ramdisk);
    builder.set_boot_config(&config);
    if let Some(path) = &arguments.bios {
        builder
            .create_bios_image(path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &arguments.uefi {
        builder
            .create_uefi_image(path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
