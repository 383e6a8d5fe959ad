//! What a lookup costs on this processor: from a page to its folio, and one load there.
//!
//! All encodings, with every size of struct page that they support, HVO off and on, look
//! up the same pages in the same order, in turns within one run. How many pages is counted
//! in memory described, not in memmap: that a smaller struct page or a shared tail needs
//! fewer cache lines for the same pages is what is to be seen.

mod build;
mod caches;
mod chase;
mod counters;
mod mapping;
mod measure;
mod notes;
mod plot;
mod population;
mod reach;
mod report;
mod scenario;
mod variant;
mod variants;

pub use caches::Host;
pub use chase::{Chain, Pattern};
pub use mapping::Mapping;
pub use measure::{Measured, Point, Settings, Spread, measure};
pub use notes::spread;
pub use plot::plot;
pub use population::Population;
pub use report::{csv, tables};
pub use scenario::Scenario;
pub use variants::{Bench, memory_that_fits};
