//! The audit of the caches of descriptors.

use super::super::descriptor::Kind;
use super::super::map::State;
use super::super::slab;
use super::Audit;
use super::raw::FRAME;
use mm::addr::PhysAddr;
use mm::machine::Machine;

/// The caches' frames: their lists, their counts, their free objects.
pub(super) fn audit_slabs<M: Machine>(m: &M, audit: &mut Audit, state: &State) {
    let mut frames = 0;
    for (kind, cache) in Kind::ALL.into_iter().zip(&state.caches) {
        let mut in_use = 0;
        for (list, has_room) in cache.lists().into_iter().zip([true, false]) {
            let mut next = list;
            while let Some(frame) = next {
                frames += 1;
                if frames > state.totals.descriptor_frames {
                    audit.find(
                        "frames of descriptors",
                        0,
                        state.totals.descriptor_frames,
                        frames,
                    );
                    return;
                }
                let (used, mut free) = slab::header(m, frame);
                let at = frame.phys().as_u64();
                in_use += used;
                let capacity = slab::capacity(kind);
                audit.equal(
                    "list of a slab",
                    at,
                    u64::from(has_room),
                    u64::from(used < capacity),
                );
                let mut length = 0;
                while free != 0 && length <= capacity {
                    length += 1;
                    let object = PhysAddr::new(free);
                    audit.equal("frame of a free object", at, at, free & FRAME);
                    let count = m.read_phys(object.offset(8)) & 0xffff_ffff;
                    audit.equal("count of a free object", free, 0, count);
                    audit.equal(
                        "mark of a free object",
                        free,
                        slab::FREED,
                        m.read_phys(object.offset(24)),
                    );
                    free = m.read_phys(object.offset(16));
                }
                audit.equal(
                    "free objects of a slab",
                    at,
                    capacity - used.min(capacity),
                    length,
                );
                next = slab::next(m, frame);
            }
        }
        let counted = state.totals.descriptors[kind as usize];
        audit.equal("objects in use", kind as u64, counted, in_use);
    }
    audit.equal(
        "frames of descriptors",
        0,
        state.totals.descriptor_frames,
        frames,
    );
}
