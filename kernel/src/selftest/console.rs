//! The text layer, and what its devices may do.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use ktest::{check, check_eq, ktest};

use crate::console::{Bar, Colour, Ring};
use crate::drivers::keyboard::{answered, has_room};
use crate::drivers::serial::hears_itself;
use crate::report::visible;

fn text_of<const N: usize>(ring: &Ring<N>) -> Vec<u8> {
    let mut text = Vec::new();
    ring.chunks(|chunk| text.extend_from_slice(chunk));
    text
}

/// Eighths that each cell of a bar paints.
fn cells(part: u64, whole: u64) -> Vec<u32> {
    let bar = Bar {
        cells: 4,
        part,
        whole,
        colour: Colour::Green,
    };
    let text: String = format!("{bar}");
    text.chars().map(|c| u32::from(c) & 0xf).collect()
}

ktest! { suite = console;
    /// The ring keeps the end of the log, whatever the sizes of the pieces.
    fn ring_keeps_the_end() {
        for piece in 1..=12 {
            let mut ring = Ring::<8>::new();
            let mut all = Vec::new();
            for n in 0..20_u8 {
                let text: Vec<u8> = (0..piece).map(|k| n.wrapping_mul(16) + k).collect();
                ring.write(&text);
                all.extend_from_slice(&text);
                let end = &all[all.len().saturating_sub(8)..];
                check_eq!(text_of(&ring).as_slice(), end, "pieces of {piece}, after {n}");
            }
        }
    }

    /// A serial port is one that gives back what it is sent; any other is given up, after a
    /// while: one that sends and hears nothing, never sends, gives back something else, or never
    /// runs dry.
    fn a_port_that_does_not_loop_is_given_up() {
        let line = Cell::new(None);
        let echoes = hears_itself(
            &mut |byte| {
                line.set(Some(byte));
                true
            },
            &mut || line.take(),
        );
        check!(echoes, "a port that loops is taken for none");
        check!(!hears_itself(&mut |_| true, &mut || None), "hears nothing");
        check!(!hears_itself(&mut |_| false, &mut || None), "sends nothing");
        check!(!hears_itself(&mut |_| true, &mut || Some(0xff)), "hears something else");
    }

    /// A keyboard controller is given its time, and no more.
    fn a_controller_that_is_stuck_is_given_up() {
        const BUSY: u8 = 1 << 1;
        let left = Cell::new(40_u32);
        let slow = has_room(&mut || {
            left.set(left.get().saturating_sub(1));
            if left.get() == 0 { 0 } else { BUSY }
        });
        check!(slow, "a slow controller was given up");
        check_eq!(left.get(), 0);
        check!(!has_room(&mut || BUSY), "a stuck controller has room");
    }

    /// A keyboard is there if one of its answers comes, after whatever was typed; a controller that
    /// stays silent or says something else has none.
    fn a_keyboard_is_one_that_answers() {
        for answer in [0xee, 0xfa, 0xfe] {
            let mut line = [None, Some(0x1e), None, Some(answer)].into_iter();
            check!(answered(&mut || line.next().flatten()), "{answer:#x} is no answer");
        }
        check!(!answered(&mut || None), "silence is an answer");
        check!(!answered(&mut || Some(0x1e)), "a key is an answer");
    }

    /// The last page fits its screen, whatever there is to say, and starts and ends as it should;
    /// where there is room for all, all is there.
    fn last_page_fits() {
        for rows in [30, 45, 144] {
            for lines in 4..200_usize {
                for every in 1..5_usize {
                    let extra: Vec<bool> = (0..lines).map(|n| n % every != 0).collect();
                    let shown = visible(&extra, rows);
                    let count = shown.iter().filter(|shown| **shown).count();
                    let is_cut = count < lines;
                    check!(count + usize::from(is_cut) + 4 <= rows, "{count} of {lines} in {rows}");
                    check!(shown[0] && shown[lines - 2] && shown[lines - 1], "{lines} in {rows}");
                    check_eq!(is_cut, lines + 4 > rows, "{lines} in {rows}");
                }
            }
        }
    }

    /// Bars never lie: empty for nothing, full only for all, something for a little.
    fn bars() {
        check_eq!(cells(0, 100), [0, 0, 0, 0]);
        check_eq!(cells(1, 1_000_000), [1, 0, 0, 0]);
        check_eq!(cells(50, 100), [8, 8, 0, 0]);
        check_eq!(cells(99, 100), [8, 8, 8, 7]);
        check_eq!(cells(100, 100), [8, 8, 8, 8]);
        check_eq!(cells(200, 100), [8, 8, 8, 8]);
        check_eq!(cells(5, 0), [0, 0, 0, 0]);
        check!(cells(u64::MAX, u64::MAX).iter().all(|&c| c == 8));
    }
}
