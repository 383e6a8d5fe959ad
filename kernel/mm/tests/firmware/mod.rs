//! The kernel's own reading of firmware's bytes, for tests on the host: the kernel itself is
//! built for bare metal only.

#[path = "../../../src/drivers/acpi/entries.rs"]
mod entries;
#[path = "../../../src/drivers/acpi/slit.rs"]
mod slit;
#[path = "../../../src/drivers/acpi/srat.rs"]
mod srat;

pub(crate) use entries::Damage;
use entries::entries;
pub(crate) use slit::parse as parse_slit;
pub(crate) use srat::parse as parse_srat;
