//! Cases that go wrong on purpose, to show that going wrong is noticed. Each runs
//! only when it is named: `selftest=selfcheck:panics`.
#![expect(unsafe_code, reason = "breaks things")]

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering};

use ktest::{check_eq, fail, ktest, skip};
use mm::machine::{Processors as _, Testing as _};

use super::smp::several;
use crate::arch::x86_64::lapic::{self, Ipi};
use crate::arch::x86_64::{irq, percpu};
use crate::metal::Metal;

ktest! { suite = selfcheck, manual = true;
    /// A check that does not hold.
    fn fails() {
        check_eq!(1 + 1, 3);
    }

    /// A skip, which is no failure.
    fn skips() {
        skip!("to show a skip");
    }

    /// A panic.
    fn panics() {
        panic!("on purpose");
    }

    /// A store that no exception table knows of.
    fn page_fault() {
        let nowhere = core::ptr::without_provenance_mut::<u64>(0x1000);
        // SAFETY: none. The store faults, which ends the kernel.
        unsafe { nowhere.write_volatile(1) };
        fail!("address 0x1000 can be written");
    }

    /// A store into the kernel's own code.
    fn write_to_code() {
        let code = recurse as fn(u64) -> u64 as *mut u8;
        // SAFETY: none. The store faults, which ends the kernel.
        unsafe { code.write_volatile(0xcc) };
        fail!("code can be written");
    }

    /// An exception whose handler has no stack.
    fn double_fault() {
        // SAFETY: none. The stack pointer points to nothing, so pushing faults, and so
        // does delivering that fault.
        unsafe {
            core::arch::asm!("mov rsp, 0x1000", "push 0", options(noreturn));
        }
    }

    /// A recursion without an end.
    fn stack_overflow() {
        black_box(recurse(0));
    }

    /// A CPU that does not take calls, which the one that waits for it notices.
    fn stuck() {
        several()?;
        let deaf = AtomicBool::new(false);
        Metal.run_on_each(&|cpu| {
            if cpu == 1 {
                let _ = irq::save();
                deaf.store(true, Ordering::Release);
                loop {
                    core::hint::spin_loop();
                }
            }
            if cpu == 0 {
                let deaf = || deaf.load(Ordering::Acquire);
                Metal.wait_until("CPU 1 to go deaf", &mut || deaf());
                Metal.on_each_cpu(&|| ());
            }
        });
    }

    /// A CPU that takes nothing, not even an NMI: it waits for a start-up interrupt.
    fn parked() {
        several()?;
        lapic::send(percpu::area(1).apic_id(), Ipi::Init);
        Metal.on_each_cpu(&|| ());
    }

    /// A CPU that does not get on with its part of a job.
    fn stuck_in_a_job() {
        several()?;
        Metal.run_on_each(&|cpu| {
            if cpu == 1 {
                loop {
                    core::hint::spin_loop();
                }
            }
        });
    }

    /// Panics of all CPUs but the first, at once.
    fn panics_elsewhere() {
        several()?;
        Metal.run_on_each(&|cpu| assert!(cpu == 0, "on purpose, on CPU {cpu}"));
    }

    /// A loop without an end: only a time limit outside ends it.
    fn hang() {
        loop {
            core::hint::spin_loop();
        }
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    let local = black_box([depth; 32]);
    recurse(depth + 1) + local[3]
}
