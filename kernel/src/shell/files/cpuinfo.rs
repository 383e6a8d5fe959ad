//! `/proc/cpuinfo`: a paragraph for each CPU that is online.

use mm::machine::Processors as _;
use shell::Files;

use crate::arch::x86_64::{cpu, percpu, tsc};
use crate::metal::Metal;

pub(super) fn add_to(files: &mut Files<'static>) {
    // `name<tab>: value`. `node` is not Linux's. All CPUs are taken to be like the first.
    files.read_only("/proc/cpuinfo", |_, out| {
        let (vendor, brand) = cpu::names();
        let features = cpu::features();
        let khz = tsc::hz() / 1000;
        for cpu in 0..Metal.cpus() {
            let area = percpu::area(cpu);
            writeln!(out, "processor\t: {cpu}")?;
            writeln!(out, "vendor_id\t: {}", vendor.as_str())?;
            writeln!(out, "model name\t: {}", brand.as_str())?;
            writeln!(out, "cpu MHz\t\t: {}.{:03}", khz / 1000, khz % 1000)?;
            writeln!(out, "physical id\t: {}", area.node())?;
            writeln!(out, "apicid\t\t: {}", area.apic_id())?;
            writeln!(out, "node\t\t: {}", area.node())?;
            write!(out, "flags\t\t:")?;
            for (name, on) in features.named() {
                if on {
                    write!(out, " {name}")?;
                }
            }
            writeln!(
                out,
                "\naddress sizes\t: {} bits physical, 48 bits virtual\n",
                features.phys_bits
            )?;
        }
        Ok(())
    });
}
