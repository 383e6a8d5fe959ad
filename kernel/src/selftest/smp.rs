//! The CPUs: all there, each with what is its own, and each within reach.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ktest::{Outcome, check, check_eq, ktest, skip};
use mm::addr::VirtAddr;
use mm::machine::{Memory as _, Processors as _, Testing as _};
use mm::paging;
use x86_64::instructions::tables::sgdt;
use x86_64::registers::control::{Cr0, Cr3, Cr4, Efer, EferFlags};
use x86_64::registers::model_specific::GsBase;

use crate::arch::x86_64::lapic::{self, Ipi, MAX_XAPIC_ID};
use crate::arch::x86_64::percpu::{self, MAX_CPUS};
use crate::arch::x86_64::{memory_types, stack};
use crate::metal::Metal;
use crate::smp::start::{self, Failed};
use crate::state;

/// One value from each CPU.
struct PerCpu([AtomicU64; MAX_CPUS]);

impl PerCpu {
    fn gather(value: impl Fn() -> u64 + Sync) -> Self {
        let all = Self([const { AtomicU64::new(0) }; MAX_CPUS]);
        Metal.run_on_each(&|cpu| all.0[cpu].store(value(), Ordering::Relaxed));
        all
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let online = self.0.iter().take(Metal.cpus());
        online.map(|value| value.load(Ordering::Relaxed))
    }

    /// Fails if two CPUs have the same.
    fn differ(&self, what: &str) -> Outcome {
        for (cpu, value) in self.iter().enumerate() {
            let same = self.iter().take(cpu).position(|other| other == value);
            check!(
                same.is_none(),
                "CPU {cpu} has {what} {value:#x}, and so has CPU {same:?}"
            );
        }
        Ok(())
    }

    /// Fails unless all CPUs have what CPU 0 has.
    fn agree(&self, what: &str) -> Outcome {
        for (cpu, value) in self.iter().enumerate() {
            let first = self.iter().next();
            check_eq!(Some(value), first, "{what} of CPU {cpu}");
        }
        Ok(())
    }
}

/// Skips unless there are several CPUs.
pub(super) fn several() -> Outcome {
    if Metal.cpus() == 1 {
        skip!("one CPU is online");
    }
    Ok(())
}

ktest! { suite = smp;
    /// As many CPUs as the firmware lists and the command line allows, each on the
    /// node that the firmware says.
    fn all_are_online() {
        let listed = state::madt().cpus.iter().filter(|cpu| cpu.enabled).count().max(1);
        let allowed = state::options().max_cpus.map_or(listed, |max| {
            usize::try_from(max).unwrap_or(listed).max(1)
        });
        check_eq!(Metal.cpus(), listed.min(allowed).min(MAX_CPUS));
        for cpu in 0..Metal.cpus() {
            let apic_id = percpu::area(cpu).apic_id();
            check_eq!(Metal.node_of_cpu(cpu), state::node_of_cpu(apic_id, cpu), "CPU {cpu}");
        }
        PerCpu::gather(|| u64::from(lapic::id())).differ("APIC id")?;
        let ids = PerCpu::gather(|| u64::from(lapic::id()));
        for (cpu, id) in ids.iter().enumerate() {
            check_eq!(id, u64::from(percpu::area(cpu).apic_id()), "CPU {cpu}");
        }
        let numbers = PerCpu::gather(|| Metal.this_cpu() as u64);
        for (cpu, number) in numbers.iter().enumerate() {
            check_eq!(number, cpu as u64);
        }
    }

    /// WP, NX, SMEP, SMAP, global pages, vector registers: as on the boot CPU.
    fn protections_are_on_everywhere() {
        several()?;
        PerCpu::gather(Cr0::read_raw).agree("CR0")?;
        PerCpu::gather(Cr4::read_raw).agree("CR4")?;
        PerCpu::gather(|| Cr3::read_raw().0.start_address().as_u64()).agree("CR3")?;
        // The accessed and long-mode-active bits are the processor's.
        let efer = || (Efer::read() & EferFlags::NO_EXECUTE_ENABLE).bits();
        PerCpu::gather(efer).agree("EFER.NXE")?;
        PerCpu::gather(memory_types::pat).agree("the PAT")?;
        PerCpu::gather(memory_types::fingerprint).agree("the MTRRs")?;
    }

    /// Each CPU has segments, per-CPU area and stacks of its own, and below each stack
    /// a page that nothing maps.
    fn each_has_its_own() {
        several()?;
        PerCpu::gather(|| sgdt().base.as_u64()).differ("the GDT at")?;
        PerCpu::gather(|| GsBase::read().as_u64()).differ("GS base")?;
        let here = || {
            let local = 0_u8;
            (&raw const local).addr() as u64
        };
        for (cpu, at) in PerCpu::gather(here).iter().enumerate().skip(1) {
            let [(_, guard), ..] = stack::guards_of(cpu);
            let top = stack::tops_of(cpu).normal;
            check!((guard.end..top).contains(&at), "CPU {cpu} runs on a stack at {at:#x}");
            for (name, guard) in stack::guards_of(cpu) {
                let leaf = |at| paging::leaf(&Metal, Metal.root(), VirtAddr::new(at));
                check!(leaf(guard.start).is_none(), "CPU {cpu}, {name}: guard page mapped");
                check!(leaf(guard.end).is_some(), "CPU {cpu}, {name}: not mapped");
                check_eq!(stack::overflowed(guard.start), Some(name));
            }
        }
    }

    /// A call reaches every CPU exactly once, and is over when it returns.
    fn calls_reach_every_cpu() {
        let calls = [const { AtomicU64::new(0) }; MAX_CPUS];
        for round in 1..=50 {
            Metal.on_each_cpu(&|| {
                calls[Metal.this_cpu()].fetch_add(1, Ordering::Relaxed);
            });
            for (cpu, calls) in calls.iter().enumerate().take(Metal.cpus()) {
                check_eq!(calls.load(Ordering::Relaxed), round, "CPU {cpu}");
            }
        }
        let beyond = calls.iter().skip(Metal.cpus());
        check_eq!(beyond.map(|calls| calls.load(Ordering::Relaxed)).sum::<u64>(), 0);
    }

    /// All CPUs call all CPUs at the same time.
    fn all_call_at_once() {
        several()?;
        let cpus = Metal.cpus() as u64;
        // Interrupts grow with the square of the CPUs: as many as 8 of them have, and at least two.
        let each = (200 * 8 * 8 / (cpus * cpus)).clamp(2, 200);
        let calls = AtomicU64::new(0);
        let before = counts();
        Metal.run_on_each(&|_| {
            for _ in 0..each {
                Metal.on_each_cpu(&|| {
                    calls.fetch_add(1, Ordering::Relaxed);
                });
                Metal.touch_watchdog();
            }
        });
        check_eq!(calls.load(Ordering::Relaxed), cpus * cpus * each);
        let [rounds, sent, received] = counts();
        check_eq!(rounds - before[0], cpus * each, "rounds");
        check_eq!(received - before[2], cpus * (cpus - 1) * each, "calls received");
        // One interrupt may bring several calls, never none.
        let sent = sent - before[1];
        check!(sent > 0 && sent <= cpus * (cpus - 1) * each, "{sent} interrupts sent");
    }

    /// A non-maskable interrupt is counted and otherwise forgotten, whatever it hits.
    fn nmi_is_survived() {
        several()?;
        let nmis = || percpu::this().nmis.load(Ordering::Relaxed);
        let before: alloc::vec::Vec<_> = PerCpu::gather(nmis).iter().collect();
        for (other, &first) in before.iter().enumerate().skip(1) {
            let area = percpu::area(other);
            let busy = AtomicUsize::new(0);
            let want = first + 3;
            Metal.run_on_each(&|cpu| {
                if cpu == other {
                    // Hit in the middle of work, not only asleep.
                    busy.store(1, Ordering::Relaxed);
                    Metal.wait_until("NMIs", &mut || nmis() >= want);
                }
                if cpu != 0 {
                    return;
                }
                Metal.wait_until("the other", &mut || busy.load(Ordering::Relaxed) == 1);
                for seen in first..want {
                    lapic::send(area.apic_id(), Ipi::Nmi);
                    // Two that come at once may be one.
                    Metal.wait_until("an NMI to be taken", &mut || {
                        area.nmis.load(Ordering::Relaxed) > seen
                    });
                }
            });
        }
        for (cpu, now) in PerCpu::gather(nmis).iter().enumerate().skip(1) {
            check_eq!(now, before[cpu] + 3, "NMIs of CPU {cpu}");
        }
    }

    /// Interrupts that nobody expects are counted and acknowledged: the next one of
    /// lower priority still gets through.
    fn spurious_vectors_are_survived() {
        several()?;
        const NOBODYS: u8 = 0xf3;
        for cpu in 0..Metal.cpus() {
            let area = percpu::area(cpu);
            for _ in 0..2 {
                let before = area.spurious.load(Ordering::Relaxed);
                lapic::send(area.apic_id(), Ipi::Fixed(NOBODYS));
                Metal.wait_until("a spurious interrupt", &mut || {
                    area.spurious.load(Ordering::Relaxed) == before + 1
                });
            }
        }
        let called = AtomicUsize::new(0);
        Metal.on_each_cpu(&|| {
            called.fetch_add(1, Ordering::Relaxed);
        });
        check_eq!(called.load(Ordering::Relaxed), Metal.cpus());
    }

    /// A CPU that does not answer is given up, named, and nobody else is disturbed.
    fn absent_cpu_is_left_out() {
        let online = Metal.cpus();
        if online == MAX_CPUS {
            skip!("there is no number left for another CPU");
        }
        // What is not listed is not there, enabled or not; what is listed may be.
        let is_listed = |id: &u32| state::madt().cpus.iter().any(|cpu| cpu.apic_id == *id);
        let boot = percpu::area(0).apic_id();
        let nobody = (0..=MAX_XAPIC_ID).rev().find(|id| !is_listed(id) && *id != boot);
        let Some(nobody) = nobody else { skip!("firmware lists a CPU for every APIC id") };
        for _ in 0..2 {
            check_eq!(start::absent(nobody, 20_000), Err(Failed::NoAnswer(20_000)));
        }
        check_eq!(Metal.cpus(), online);
        PerCpu::gather(|| Metal.this_cpu() as u64).differ("number")?;
    }
}

/// Rounds, interrupts sent and calls received, of all CPUs.
fn counts() -> [u64; 3] {
    let all = (0..Metal.cpus())
        .map(|cpu| Metal.tlb_counts(cpu))
        .sum::<mm::machine::TlbCounts>();
    [all.rounds, all.sent, all.received]
}
