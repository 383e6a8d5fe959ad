//! x86_64: tables the processor reads, exceptions, clocks, ports.

pub(crate) mod cpu;
pub(crate) mod dump;
pub(crate) mod exit;
pub(crate) mod gdt;
pub(crate) mod idt;
pub(crate) mod irq;
pub(crate) mod lapic;
pub(crate) mod layout;
pub(crate) mod machine_check;
pub(crate) mod memory_types;
pub(crate) mod percpu;
pub(crate) mod stack;
pub(crate) mod trampoline;
pub(crate) mod trap;
pub(crate) mod tsc;
