//! Table bytes, read as the manual describes them.
//!
//! The second oracle: shares no code and no constant with `mm`, nor with the
//! machine's own walker. Reads RAM as it is, without caches.

use mm::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use mm::machine::Memory as _;

use crate::machine::EmulatedMachine;

/// Bits 0 to 8 of an entry, by the manual's letters.
pub mod bit {
    /// Present.
    pub const P: u64 = 0x1;
    /// Writable.
    pub const RW: u64 = 0x2;
    /// User.
    pub const US: u64 = 0x4;
    /// Accessed.
    pub const A: u64 = 0x20;
    /// Dirty.
    pub const D: u64 = 0x40;
    /// A leaf at levels 2 and 3.
    pub const PS: u64 = 0x80;
    /// Global.
    pub const G: u64 = 0x100;
    /// No execute.
    pub const XD: u64 = 0x8000_0000_0000_0000;
}

/// A leaf, with what all levels above it have to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First address it maps.
    pub va: u64,
    /// Where to.
    pub pa: u64,
    /// Bytes: 0x1000, 0x20_0000 or 0x4000_0000.
    pub size: u64,
    /// The entry's bits 0 to 11 and 52 to 63.
    pub bits: u64,
    /// Writable, counting all levels.
    pub writable: bool,
    /// Executable, counting all levels.
    pub executable: bool,
    /// Open to user mode, counting all levels.
    pub user: bool,
}

/// Visits the leaves that map any of `range`, lowest first, and the frames of
/// the tables on the way, each as often as it is pointed to.
///
/// # Panics
/// If a table is not RAM: the tables are broken.
pub fn visit(
    m: &EmulatedMachine,
    root: Pfn,
    range: VirtRange,
    mut leaf: impl FnMut(Leaf),
    mut table: impl FnMut(u64, u8),
) {
    let last = range.end.as_u64().wrapping_sub(1);
    let above = Above {
        writable: true,
        executable: true,
        user: true,
    };
    descend(
        m,
        root.as_u64() << 12,
        4,
        0,
        above,
        (range.start.as_u64(), last),
        &mut leaf,
        &mut table,
    );
}

/// The leaves that map any of `range`, lowest first.
#[must_use]
pub fn leaves(m: &EmulatedMachine, root: Pfn, range: VirtRange) -> Vec<Leaf> {
    let mut all = Vec::new();
    visit(m, root, range, |leaf| all.push(leaf), |_, _| ());
    all
}

/// The leaf that maps `at`, if any.
#[must_use]
pub fn translate(m: &EmulatedMachine, root: Pfn, at: VirtAddr) -> Option<Leaf> {
    leaves(m, root, at.range(1)).pop()
}

#[derive(Clone, Copy)]
struct Above {
    writable: bool,
    executable: bool,
    user: bool,
}

#[expect(
    clippy::too_many_arguments,
    reason = "the state of a recursive descent"
)]
fn descend(
    m: &EmulatedMachine,
    table: u64,
    level: u8,
    base: u64,
    above: Above,
    wanted: (u64, u64),
    leaf: &mut dyn FnMut(Leaf),
    visit_table: &mut dyn FnMut(u64, u8),
) {
    visit_table(table >> 12, level);
    let span: u64 = match level {
        4 => 0x80_0000_0000,
        3 => 0x4000_0000,
        2 => 0x20_0000,
        _ => 0x1000,
    };
    for slot in 0..512u64 {
        let mut va = base + slot * span;
        if level == 4 && slot >= 256 {
            va |= 0xffff_0000_0000_0000;
        }
        if va + (span - 1) < wanted.0 || va > wanted.1 {
            continue;
        }
        let at = PhysAddr::new(table + slot * 8);
        let entry = m
            .peek(at)
            .unwrap_or_else(|| panic!("the level-{level} table for {va:#x} is not RAM: {at:?}"));
        if entry & bit::P == 0 {
            continue;
        }
        let here = Above {
            writable: above.writable && entry & bit::RW != 0,
            executable: above.executable && entry & bit::XD == 0,
            user: above.user && entry & bit::US != 0,
        };
        let target = entry & 0x000f_ffff_ffff_f000;
        if level == 1 || entry & bit::PS != 0 {
            leaf(Leaf {
                va,
                pa: target & !(span - 1),
                size: span,
                bits: entry & 0xfff0_0000_0000_0fff,
                writable: here.writable,
                executable: here.executable,
                user: here.user,
            });
        } else {
            descend(m, target, level - 1, va, here, wanted, leaf, visit_table);
        }
    }
}

/// Writes an entry by hand, for tests of the oracles and of the machine itself:
/// the entry of `level` for `at` becomes `entry`, and tables on the way come from
/// `new_table`, which returns zeroed frames.
///
/// # Panics
/// If a leaf is in the way.
pub fn poke(
    m: &EmulatedMachine,
    root: Pfn,
    at: u64,
    level: u8,
    entry: u64,
    mut new_table: impl FnMut() -> Pfn,
) {
    let mut table = root.as_u64() << 12;
    for here in (level + 1..=4).rev() {
        let slot = PhysAddr::new(table + (at >> (12 + 9 * (here - 1)) & 511) * 8);
        let mut found = m.read_phys(slot);
        if found & bit::P == 0 {
            found = new_table().as_u64() << 12 | bit::P | bit::RW;
            m.write_phys(slot, found);
        }
        assert!(found & bit::PS == 0, "a leaf maps {at:#x} at level {here}");
        table = found & 0x000f_ffff_ffff_f000;
    }
    m.write_phys(
        PhysAddr::new(table + (at >> (12 + 9 * (level - 1)) & 511) * 8),
        entry,
    );
}
