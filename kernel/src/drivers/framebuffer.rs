//! Pixels.
#![expect(unsafe_code, reason = "makes pointers into the framebuffer")]

use core::ptr::NonNull;

use bootloader_api::info::{FrameBuffer, FrameBufferInfo, PixelFormat};
use volatile::VolatilePtr;

/// A rectangle in pixels from the top left corner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rect {
    /// Left edge.
    pub(crate) x: usize,
    /// Top edge.
    pub(crate) y: usize,
    /// Width.
    pub(crate) width: usize,
    /// Height.
    pub(crate) height: usize,
}

/// A framebuffer that can be written.
#[derive(Debug)]
pub(crate) struct Surface {
    base: NonNull<u8>,
    info: FrameBufferInfo,
    /// Left shift and width in bits of red, green and blue in a pixel's value.
    channels: [(u32, u32); 3],
}

// SAFETY: `base` is the only pointer to the framebuffer, and device memory belongs
// to no CPU (H-5).
unsafe impl Send for Surface {}

impl Surface {
    /// The framebuffer as the loader handed it over. `None` if what it says of it
    /// does not fit together.
    pub(crate) fn new(mut framebuffer: FrameBuffer) -> Option<Self> {
        let info = framebuffer.info();
        let bytes = info.bytes_per_pixel;
        let needed = info
            .stride
            .checked_mul(info.height)
            .and_then(|pixels| pixels.checked_mul(bytes))?;
        let fits = needed <= info.byte_len && info.width <= info.stride;
        if !fits || !(1..=4).contains(&bytes) {
            return None;
        }
        let channels = channels(info.pixel_format, bytes)?;
        let base = NonNull::from(framebuffer.buffer_mut()).cast();
        Some(Self {
            base,
            info,
            channels,
        })
    }

    /// Virtual address and length in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.base.addr().get() as u64, self.info.byte_len as u64)
    }

    /// Width and height in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.info.width, self.info.height)
    }

    /// The value of a pixel of this colour: red, green, blue, 0 to 255 each.
    pub(crate) fn encode(&self, rgb: [u8; 3]) -> u32 {
        if self.info.pixel_format == PixelFormat::U8 {
            // The usual weights of the eye's three receptors (ITU-R BT.601).
            let [r, g, b] = rgb.map(u32::from);
            return (r * 299 + g * 587 + b * 114) / 1000;
        }
        self.channels
            .iter()
            .zip(rgb)
            .map(|(&(shift, width), c)| u32::from(c) >> (8 - width) << shift)
            .fold(0, |value, channel| value | channel)
    }

    /// Paints a rectangle; what lies outside the screen is left out.
    pub(crate) fn fill(&mut self, rect: Rect, value: u32) {
        let end = (rect.y + rect.height).min(self.info.height);
        for y in rect.y..end {
            self.line(rect.x, y, core::iter::repeat_n(value, rect.width));
        }
    }

    /// Paints `values` from `x` to the right; what lies outside the screen is left
    /// out.
    pub(crate) fn line(&mut self, x: usize, y: usize, values: impl Iterator<Item = u32>) {
        let (width, height) = self.size();
        if y >= height || x >= width {
            return;
        }
        let first = (y * self.info.stride + x) * self.info.bytes_per_pixel;
        let offsets = (first..).step_by(self.info.bytes_per_pixel);
        for (offset, value) in offsets.zip(values.take(width - x)) {
            self.write(offset, value);
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        debug_assert!(offset + self.info.bytes_per_pixel <= self.info.byte_len);
        // SAFETY: the offset is within the framebuffer: x and y were checked against
        // its size, and its size against its length when it was made (H-5).
        let at = unsafe { self.base.byte_add(offset) };
        if self.info.bytes_per_pixel == 4 {
            // SAFETY: 4 bytes in the framebuffer, which nothing else points to; a
            // multiple of 4 from its start, which is a page's (H-5).
            unsafe { VolatilePtr::new(at.cast::<u32>()) }.write(value);
            return;
        }
        let bytes = value.to_le_bytes();
        for (n, byte) in bytes[..self.info.bytes_per_pixel].iter().enumerate() {
            // SAFETY: a byte of the pixel, as above (H-5).
            let at = unsafe { at.byte_add(n) };
            // SAFETY: as above (H-5).
            unsafe { VolatilePtr::new(at) }.write(*byte);
        }
    }
}

/// Where the colours lie in a pixel of `bytes` bytes.
fn channels(format: PixelFormat, bytes: usize) -> Option<[(u32, u32); 3]> {
    let positions = match format {
        PixelFormat::Rgb => [0, 8, 16],
        PixelFormat::Bgr => [16, 8, 0],
        PixelFormat::U8 => return Some([(0, 8); 3]),
        PixelFormat::Unknown {
            red_position,
            green_position,
            blue_position,
        } => [red_position, green_position, blue_position].map(u32::from),
        _ => return None,
    };
    let bits = u32::try_from(bytes * 8).ok()?;
    // A channel reaches up to the next one; only its position is known.
    let width = |from: u32| {
        let next = positions.into_iter().filter(|&p| p > from).min();
        next.unwrap_or(bits).saturating_sub(from).min(8)
    };
    positions
        .iter()
        .all(|&p| p < bits)
        .then(|| positions.map(|p| (p, width(p))))
}
