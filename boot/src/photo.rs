//! The kernel's report, read off a photograph of its screen.

use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::cli::ReportOptions;
use crate::error::Error;

/// The widest picture that is looked at as it is only; a camera's is looked at smaller, too.
const WIDE: usize = 1600;

/// What codes begin with.
const MARK: &str = "TAILFOLD ";

/// `report`: shows the text in pictures, or in texts that a reader of codes has found.
///
/// # Errors
/// [`Error::Usage`] if it is none, or not all of it.
pub fn command(options: &ReportOptions) -> Result<(), Error> {
    let mut parts = Vec::new();
    for from in &options.from {
        if from.trim_start().starts_with(MARK) {
            parts.push(from.clone());
        } else {
            parts.extend(codes(Path::new(from))?);
        }
    }
    print!("{}", text(&parts)?);
    Ok(())
}

/// The report that `parts` hold together.
///
/// # Errors
/// [`Error::Usage`], with what is wrong with them.
pub fn text(parts: &[String]) -> Result<String, Error> {
    qr::unpack(parts).map_err(|why| Error::Usage(why.to_string()))
}

/// What the QR codes in a PNG or JPEG file hold, the kernel's only.
///
/// # Errors
/// [`Error::Usage`] if it is no such file, or there is no code of ours in it.
pub fn codes(file: &Path) -> Result<Vec<String>, Error> {
    let bad = |why: String| Error::Usage(format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|why| bad(why.to_string()))?;
    let mut picture = Grey::decode(&bytes).map_err(bad)?;
    loop {
        let found = picture.codes();
        if !found.is_empty() {
            return Ok(found);
        }
        if picture.width.max(picture.height()) <= WIDE {
            return Err(bad(
                "no code of a Tailfold report can be read in it: the whole code with its white \
                 border is needed, sharp and not at a slant"
                    .to_owned(),
            ));
        }
        picture = picture.halved();
    }
}

/// A picture in shades of grey, row by row.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Grey {
    width: usize,
    pixels: Vec<u8>,
}

impl Grey {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        const JPEG: &[u8] = &[0xff, 0xd8];
        if bytes.starts_with(JPEG) {
            Self::decode_jpeg(bytes)
        } else {
            Self::decode_png(bytes)
        }
    }

    fn decode_jpeg(bytes: &[u8]) -> Result<Self, String> {
        let said = |why: &dyn Display| format!("it is no JPEG: {why}");
        let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::Luma);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        let pixels = decoder.decode().map_err(|why| said(&why))?;
        let info = decoder.info().ok_or_else(|| said(&"it has no size"))?;
        Ok(Self {
            width: usize::from(info.width),
            pixels,
        })
    }

    fn decode_png(bytes: &[u8]) -> Result<Self, String> {
        let said = |why: &dyn Display| format!("it is neither PNG nor JPEG: {why}");
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|why| said(&why))?;
        let size = reader.output_buffer_size();
        let mut buffer = vec![0; size.ok_or_else(|| said(&"it is too large"))?];
        let info = reader.next_frame(&mut buffer).map_err(|why| said(&why))?;
        let samples = info.color_type.samples();
        // Of red, green and blue green is what the eye calls bright; alpha says nothing here.
        let grey = usize::from(samples >= 3);
        Ok(Self {
            width: info.width as usize,
            pixels: buffer.chunks_exact(samples).map(|p| p[grey]).collect(),
        })
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width.max(1)
    }

    /// Half as wide and high, each pixel the mean of four.
    fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height() / 2);
        let at = |x: usize, y: usize| u16::from(self.pixels[y * self.width + x]);
        let mean = |(x, y): (usize, usize)| {
            let sum = at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1);
            u8::try_from(sum / 4).unwrap_or(u8::MAX)
        };
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (2 * x, 2 * y)));
        Self {
            width,
            pixels: places.map(mean).collect(),
        }
    }

    fn codes(&self) -> Vec<String> {
        let pixel = |x, y| self.pixels[y * self.width + x];
        let (width, height) = (self.width, self.height());
        let mut prepared = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
        let grids = prepared.detect_grids();
        let texts = grids.iter().filter_map(|grid| grid.decode().ok());
        texts
            .map(|(_, text)| text)
            .filter(|text| text.starts_with(MARK))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Grey, codes, text};

    /// A picture of `scale` pixels a square, on a dark screen.
    fn picture(part: &str, scale: usize) -> Grey {
        let code = qr::Code::new(part).unwrap();
        let side = (code.size() + 2 * qr::QUIET_ZONE) * scale;
        let (width, height) = (side + 200, side + 100);
        let shade = |x: usize, y: usize| {
            let square = |at: usize| ((at - 50) / scale).wrapping_sub(qr::QUIET_ZONE);
            let inside = |at: usize| (50..50 + side).contains(&at);
            let light = inside(x) && inside(y) && !code.is_dark(square(x), square(y));
            if light { 255 } else { 12 }
        };
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Grey {
            width,
            pixels: places.map(|(x, y)| shade(x, y)).collect(),
        }
    }

    /// Out of focus: each pixel the mean of those around it.
    fn blurred(picture: &Grey, by: usize) -> Grey {
        let height = picture.height();
        let mean = |x: usize, y: usize| {
            let xs = x.saturating_sub(by)..(x + by + 1).min(picture.width);
            let ys = y.saturating_sub(by)..(y + by + 1).min(height);
            let count = xs.len() * ys.len();
            let rows = ys.map(|y| &picture.pixels[y * picture.width..][xs.clone()]);
            let sum: usize = rows.flatten().map(|pixel| usize::from(*pixel)).sum();
            u8::try_from(sum / count).unwrap()
        };
        let places = (0..height).flat_map(|y| (0..picture.width).map(move |x| (x, y)));
        Grey {
            width: picture.width,
            pixels: places.map(|(x, y)| mean(x, y)).collect(),
        }
    }

    fn save(picture: &Grey, file: &std::path::Path) {
        let size = |n: usize| u16::try_from(n).unwrap();
        let (width, height) = (size(picture.width), size(picture.height()));
        if file.extension().unwrap() == "jpg" {
            let encoder = jpeg_encoder::Encoder::new_file(file, 80).unwrap();
            let grey = jpeg_encoder::ColorType::Luma;
            encoder
                .encode(&picture.pixels, width, height, grey)
                .unwrap();
        } else {
            let out = std::fs::File::create(file).unwrap();
            let mut encoder = png::Encoder::new(out, width.into(), height.into());
            encoder.set_color(png::ColorType::Grayscale);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&picture.pixels).unwrap();
        }
    }

    /// Large and small, as PNG and as JPEG, a little out of focus and with a camera's size.
    #[test]
    fn photographs_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let report: String = (0..60).map(|n| format!("line {n} of a report\n")).collect();
        let parts = qr::pack(&report);
        let [part] = &parts[..] else {
            panic!("{} parts", parts.len());
        };
        for (name, scale, blur) in [("a.png", 3, 0), ("b.jpg", 5, 1), ("c.jpg", 20, 5)] {
            let file = dir.path().join(name);
            save(&blurred(&picture(part, scale), blur), &file);
            assert_eq!(text(&codes(&file).unwrap()).unwrap(), report, "{name}");
        }
    }

    #[test]
    fn what_is_no_photograph_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str| codes(&dir.path().join(name)).unwrap_err().to_string();
        let grey = Grey {
            width: 300,
            pixels: vec![200; 60_000],
        };
        save(&grey, &dir.path().join("grey.png"));
        std::fs::write(dir.path().join("text.png"), "text").unwrap();
        std::fs::write(dir.path().join("cut.jpg"), [0xff, 0xd8, 0xff]).unwrap();
        assert!(said("grey.png").contains("no code of a Tailfold report"));
        assert!(said("text.png").contains("neither PNG nor JPEG"));
        assert!(said("cut.jpg").contains("it is no JPEG"));
        assert!(said("none.png").contains("No such file"));
    }
}
