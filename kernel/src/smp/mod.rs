//! Several CPUs: started one after the other (`start`), called by interrupt (`call`),
//! given work (`job`), and missed when they get stuck (`watchdog`).
//!
//! CPUs are numbered from 0, the boot CPU, in the order in which they came up. None
//! ever goes away.

pub(crate) mod call;
pub(crate) mod job;
pub(crate) mod start;
pub(crate) mod watchdog;

use core::sync::atomic::{AtomicUsize, Ordering};

use mm::machine::TlbCounts;

use crate::arch::x86_64::lapic::{self, CALL_VECTOR, ERROR_VECTOR, SPURIOUS_VECTOR, WAKE_VECTOR};
use crate::arch::x86_64::percpu::{self, count};
use crate::warn;

/// CPUs that are online. Released when one has come up, by the CPU that started it.
static ONLINE: AtomicUsize = AtomicUsize::new(1);

/// CPUs that are online, this one included.
#[doc(alias = "num_online_cpus")]
pub(crate) fn online() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// All online CPUs but this one.
fn others() -> impl Iterator<Item = usize> {
    let this = percpu::cpu();
    (0..online()).filter(move |&cpu| cpu != this)
}

/// What `cpu` has done to keep translations true.
pub(crate) fn tlb_counts(cpu: usize) -> TlbCounts {
    let area = percpu::area(cpu);
    TlbCounts {
        pages: area.flushed_pages.load(Ordering::Relaxed),
        all: area.flushed_all.load(Ordering::Relaxed),
        rounds: area.rounds.load(Ordering::Relaxed),
        sent: area.sent.load(Ordering::Relaxed),
        received: area.received.load(Ordering::Relaxed),
    }
}

/// An interrupt, not an exception. Interrupts are off.
pub(crate) fn on_interrupt(vector: u8) {
    match vector {
        CALL_VECTOR => {
            lapic::end_of_interrupt();
            call::serve();
        }
        WAKE_VECTOR => lapic::end_of_interrupt(),
        ERROR_VECTOR => {
            let errors = lapic::take_errors();
            lapic::end_of_interrupt();
            warn!("APIC error on CPU{}: {errors:#04x}", percpu::cpu());
        }
        // Never acknowledged, by its definition.
        SPURIOUS_VECTOR => count(&percpu::this().spurious),
        _ => {
            count(&percpu::this().spurious);
            if lapic::is_ready() && lapic::in_service(vector) {
                lapic::end_of_interrupt();
            }
        }
    }
}
