//! The audit of a memdesc map: what its tables, struct pages and descriptors say,
//! against each other and against the ledger. It reads memory by physical address,
//! walks the tables and decodes words itself, and shares no code with what it checks.

use core::fmt;

mod block;
mod raw;
mod slabs;

use super::descriptor::Kind;
use super::layout::StructPage;
use super::map::MemdescMap;
use mm::machine::Machine;

/// Something that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What does not hold.
    pub what: &'static str,
    /// Where: a frame of the map, an address, or 0 for a sum.
    pub at: u64,
    /// What should be there.
    pub expected: u64,
    /// What is.
    pub found: u64,
}

/// What an audit found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Frames of struct pages that the window's entries lead to.
    pub frames: u64,
    /// Entries that lead to a frame that another entry leads to as well.
    pub saved: u64,
    /// Blocks with such entries.
    pub folded: u64,
    /// Tables of the window.
    pub tables: u64,
    /// Blocks with a descriptor, by [`Kind`].
    pub descriptors: [u64; 4],
    /// Pages whose word says that they are free.
    pub free: u64,
    /// Pages that are broken or reserved and nobody's.
    pub withheld: u64,
    /// How many things do not hold.
    pub findings: u64,
    /// The first of them.
    pub first: Option<Finding>,
}

impl Audit {
    /// Whether everything holds.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.findings == 0
    }

    fn find(&mut self, what: &'static str, at: u64, expected: u64, found: u64) {
        self.findings += 1;
        self.first.get_or_insert(Finding {
            what,
            at,
            expected,
            found,
        });
    }

    fn equal(&mut self, what: &'static str, at: u64, expected: u64, found: u64) {
        if expected != found {
            self.find(what, at, expected, found);
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            None => write!(f, "memdesc audit: nothing found"),
            Some(first) => write!(
                f,
                "memdesc audit: {} findings; first: {}, at {:#x}: expected {:#x}, found {:#x}",
                self.findings, first.what, first.at, first.expected, first.found
            ),
        }
    }
}

impl<L: StructPage> MemdescMap<L> {
    /// Checks everything. Nobody takes or drops references meanwhile.
    pub fn audit<M: Machine>(&self, m: &M) -> Audit {
        let state = &*self.lock(m);
        let mut audit = Audit::default();
        let mut pfn = self.range().start.as_u64();
        while pfn < self.range().end.as_u64() {
            pfn = self.audit_block(m, &mut audit, pfn);
        }
        self.audit_tables(m, &mut audit);
        let t = &state.totals;
        audit.equal("frames of struct pages", 0, t.frames, audit.frames);
        audit.equal("frames saved", 0, t.saved, audit.saved);
        audit.equal("folded blocks", 0, t.folded, audit.folded);
        audit.equal("tables", 0, t.tables, audit.tables);
        let all = self.range().pages() * L::SIZE / 4096;
        audit.equal(
            "frames and saved frames",
            0,
            all,
            audit.frames + audit.saved,
        );
        for kind in Kind::ALL {
            let found = audit.descriptors[kind as usize];
            audit.equal(
                "descriptors in use",
                kind as u64,
                t.descriptors[kind as usize],
                found,
            );
        }
        slabs::audit_slabs(m, &mut audit, state);
        audit
    }
}
