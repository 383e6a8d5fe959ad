//! The kernel's report, read off a photograph of its screen.

use std::path::Path;

use image::imageops::{self, FilterType};

use crate::cli::ReportOptions;
use crate::error::Error;

/// The widest picture that is looked at as it is; a camera's is looked at smaller, too.
const WIDE: u32 = 1600;

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
    let picture = image::ImageReader::open(file)
        .and_then(image::ImageReader::with_guessed_format)
        .map_err(|error| bad(error.to_string()))?
        .decode()
        .map_err(|error| bad(error.to_string()))?
        .into_luma8();
    let mut tried = picture.dimensions();
    loop {
        let smaller = match tried {
            size if size == picture.dimensions() => picture.clone(),
            (width, height) => imageops::resize(&picture, width, height, FilterType::Triangle),
        };
        let found = codes_in(&smaller);
        if !found.is_empty() {
            return Ok(found);
        }
        if tried.0.max(tried.1) <= WIDE {
            return Err(bad(
                "no code of a Tailfold report can be read in it: the whole code with its white \
                 border is needed, sharp and not at a slant"
                    .to_owned(),
            ));
        }
        tried = (tried.0 / 2, tried.1 / 2);
    }
}

fn codes_in(picture: &image::GrayImage) -> Vec<String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let bytes = picture.as_raw();
    let mut prepared =
        rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| bytes[y * width + x]);
    let grids = prepared.detect_grids();
    let texts = grids.iter().filter_map(|grid| grid.decode().ok());
    texts
        .map(|(_, text)| text)
        .filter(|text| text.starts_with(MARK))
        .collect()
}

#[cfg(test)]
mod tests {
    use image::imageops::{self, FilterType};
    use image::{GrayImage, Luma};

    use super::{codes, text};

    /// A picture of `scale` pixels a square, on a dark screen.
    fn picture(part: &str, scale: u32) -> GrayImage {
        let code = qr::Code::new(part).unwrap();
        let side = u32::try_from(code.size() + 2 * qr::QUIET_ZONE).unwrap() * scale;
        GrayImage::from_fn(side + 200, side + 100, |x, y| {
            let square = |at: u32| (at.wrapping_sub(50) / scale) as usize;
            let inside = (50..50 + side).contains(&x) && (50..50 + side).contains(&y);
            let (x, y) = (square(x), square(y));
            let dark = code.is_dark(
                x.wrapping_sub(qr::QUIET_ZONE),
                y.wrapping_sub(qr::QUIET_ZONE),
            );
            Luma([if inside && !dark { 255 } else { 12 }])
        })
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
        for (name, scale, blur) in [("a.png", 3, 0.0), ("b.jpg", 5, 1.2), ("c.jpg", 20, 5.0)] {
            let mut photo = picture(part, scale);
            if blur > 0.0 {
                photo = imageops::blur(&photo, blur);
                let (width, height) = photo.dimensions();
                photo = imageops::resize(&photo, width * 9 / 10, height, FilterType::Triangle);
            }
            let file = dir.path().join(name);
            photo.save(&file).unwrap();
            assert_eq!(text(&codes(&file).unwrap()).unwrap(), report, "{name}");
        }
    }

    #[test]
    fn what_is_no_photograph_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let said = |name: &str| codes(&dir.path().join(name)).unwrap_err().to_string();
        GrayImage::from_pixel(300, 200, Luma([200]))
            .save(dir.path().join("grey.png"))
            .unwrap();
        std::fs::write(dir.path().join("text.png"), "text").unwrap();
        assert!(said("grey.png").contains("no code of a Tailfold report"));
        assert!(said("text.png").contains("text.png: "));
        assert!(said("none.png").contains("No such file"));
    }
}
