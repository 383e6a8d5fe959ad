//! The numbers as a picture: a grid of panels, a row for each scenario, a column for each
//! size of struct page; in a panel a line for each encoding, dashed where HVO is on, and
//! dotted where HVO is off and the memmap is mapped by 4 KiB pages nevertheless.

use std::fmt::Write as _;

use crate::caches::Host;
use crate::chase::Chain;
use crate::mapping::Mapping;
use crate::measure::{Measured, Point};
use crate::notes;
use crate::report::memory;
use crate::scenario::Scenario;

const SIZES: [u64; 4] = [64, 56, 32, 8];
/// Colours that people tell apart who do not see red or green (Okabe and Ito's).
const COLOURS: [(&str, &str); 5] = [
    ("pointer", "#000000"),
    ("fake-head", "#e69f00"),
    ("mask", "#0072b2"),
    ("order", "#009e73"),
    ("memdesc", "#d55e00"),
];

const PANEL: (f64, f64) = (340.0, 215.0);
const GAP: (f64, f64) = (14.0, 52.0);
const LEFT: f64 = 64.0;
const TOP: f64 = 128.0;
/// Height of a line of remarks.
const REMARK: f64 = 15.0;
const BOTTOM: f64 = 8.0;

/// Axes of the panels in a row, logarithmic.
struct Axes {
    frames: (f64, f64),
    ns: (f64, f64),
}

impl Axes {
    fn of<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> Self {
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let (low, high) = bounds(&mut points.clone().map(|p| p.ns.median));
        Self {
            frames: bounds(&mut points.map(|p| p.frames as f64)),
            ns: (low * 0.8, high * 1.2),
        }
    }

    fn place((low, high): (f64, f64), value: f64) -> f64 {
        (value / low).ln() / (high / low).ln()
    }

    fn x(&self, frames: f64) -> f64 {
        Self::place(self.frames, frames) * PANEL.0
    }

    fn y(&self, ns: f64) -> f64 {
        (1.0 - Self::place(self.ns, ns)) * PANEL.1
    }

    /// 1, 2 and 5 times powers of ten that are in sight.
    fn ticks(&self) -> Vec<f64> {
        let steps = (-2..5).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
        steps
            .filter(|ns| (self.ns.0..=self.ns.1).contains(ns))
            .collect()
    }
}

/// The picture of all points with chains of that kind.
#[must_use]
pub fn plot(measured: &Measured, scenarios: &[Scenario], chain: Chain, host: &Host) -> String {
    let points = &measured.points;
    let mut remarks = notes::mapped(measured);
    for scenario in scenarios {
        remarks.push(format!(
            "{}: {}",
            scenario.name,
            notes::differ(points, scenario, chain)
        ));
    }
    let top = TOP + REMARK * remarks.len() as f64;
    let of_chain = |p: &&Point| p.chain == chain;
    let width = LEFT + SIZES.len() as f64 * (PANEL.0 + GAP.0);
    let height = top + scenarios.len() as f64 * (PANEL.1 + GAP.1) + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    heading(&mut svg, chain, host, &remarks);
    for (row, scenario) in (0_u8..).zip(scenarios) {
        let here = |p: &&Point| of_chain(p) && p.scenario == scenario.name;
        let axes = Axes::of(points.iter().filter(here).filter(|p| p.size > 0));
        for (column, size) in (0_u8..).zip(SIZES) {
            let x = LEFT + f64::from(column) * (PANEL.0 + GAP.0);
            let y = top + f64::from(row) * (PANEL.1 + GAP.1);
            let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            let mut panel = Panel {
                svg: &mut svg,
                axes: &axes,
                points: points.iter().filter(here).collect(),
                size,
            };
            panel.frame(column == 0, host);
            panel.lines();
            if column == 0 {
                let (name, about) = (scenario.name, scenario.about);
                let _ = writeln!(
                    svg,
                    "<text x=\"0\" y=\"-7\" font-size=\"13\"><tspan font-weight=\"bold\">{name}</tspan>: {about}</text>"
                );
            }
            svg.push_str("</g>\n");
        }
    }
    let (x, y) = (width / 2.0, height - 14.0);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" font-size=\"13\">memory whose pages are looked up</text>\n</svg>"
    );
    svg
}

fn heading(svg: &mut String, chain: Chain, host: &Host, remarks: &[String]) {
    let waits = match chain {
        Chain::Dependent => "each lookup waits for the one before",
        Chain::Independent => "lookups overlap",
    };
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"26\" font-size=\"17\" font-weight=\"bold\">From a page to its folio's flags: ns for one lookup, {waits}</text>\n<text x=\"{LEFT}\" y=\"45\" fill=\"#555555\">{}; median; both axes logarithmic. L1, L2, L3: where the memmap, not folded, is as large as that cache</text>",
        escaped(&host.model)
    );
    let mut y = 45.0;
    for remark in remarks {
        y += REMARK;
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{y}\" fill=\"#555555\">{}</text>",
            escaped(remark)
        );
    }
    let (line, text) = (y + 21.0, y + 25.0);
    let legend = COLOURS
        .iter()
        .map(|(name, colour)| (*name, *colour, ""))
        .chain([
            ("HVO off", "#555555", ""),
            ("HVO on", "#555555", DASHES),
            ("HVO off, by 4 KiB pages", "#555555", DOTS),
            ("pointer/64, HVO off, for comparison", "#bbbbbb", "2 2"),
        ]);
    let mut x = LEFT;
    for (name, colour, dashes) in legend {
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {line}h30\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dashes}\"/><text x=\"{}\" y=\"{text}\" font-size=\"13\">{name}</text>",
            x + 36.0
        );
        x += 36.0 + 24.0 + 7.2 * name.len() as f64;
    }
    for (column, size) in (0_u8..).zip(SIZES) {
        let x = LEFT + f64::from(column) * (PANEL.0 + GAP.0) + PANEL.0 / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-size=\"15\" font-weight=\"bold\">struct page of {size} bytes</text>",
            y + 53.0
        );
    }
}

const DASHES: &str = "6 4";
const DOTS: &str = "1.5 2.5";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

struct Panel<'a> {
    svg: &'a mut String,
    axes: &'a Axes,
    points: Vec<&'a Point>,
    size: u64,
}

impl Panel<'_> {
    fn frame(&mut self, labels: bool, host: &Host) {
        let (width, height) = PANEL;
        let _ = writeln!(
            self.svg,
            "<rect width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#888888\"/>"
        );
        for ns in self.axes.ticks() {
            let y = self.axes.y(ns);
            let _ = writeln!(
                self.svg,
                "<path d=\"M0 {y:.1}h{width}\" stroke=\"#eeeeee\"/>"
            );
            if labels {
                let _ = writeln!(
                    self.svg,
                    "<text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{ns} ns</text>",
                    y + 4.0
                );
            }
        }
        let (low, high) = self.axes.frames;
        for frames in (8..64).step_by(4).map(|shift| 1_u64 << shift) {
            let (x, text) = (self.axes.x(frames as f64), memory(frames));
            if frames as f64 > high {
                break;
            }
            let _ = writeln!(
                self.svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                height + 14.0
            );
        }
        for (level, bytes) in &host.caches {
            let frames = (*bytes / self.size) as f64;
            if frames < low || frames > high {
                continue;
            }
            let x = self.axes.x(frames);
            let _ = writeln!(
                self.svg,
                "<path d=\"M{x:.1} 0v{height}\" stroke=\"#cc79a7\" stroke-dasharray=\"1 3\"/><text x=\"{:.1}\" y=\"12\" text-anchor=\"end\" fill=\"#a0527d\">L{level}</text>",
                x - 3.0
            );
        }
    }

    fn lines(&mut self) {
        if self.size != 64 {
            for unfolded in [Mapping::Large, Mapping::Small] {
                self.line("pointer", 64, unfolded, "#bbbbbb", "2 2");
            }
        }
        for (encoding, colour) in COLOURS {
            self.line(encoding, self.size, Mapping::Large, colour, "");
            self.line(encoding, self.size, Mapping::Small, colour, DOTS);
            self.line(encoding, self.size, Mapping::Folded, colour, DASHES);
        }
    }

    fn line(&mut self, encoding: &str, size: u64, mapping: Mapping, colour: &str, dashes: &str) {
        let own = |p: &&&Point| p.encoding == encoding && p.size == size && p.mapping == mapping;
        let mut path = String::new();
        for p in self.points.iter().filter(own) {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let (x, y) = (self.axes.x(p.frames as f64), self.axes.y(p.ns.median));
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        if !path.is_empty() {
            let _ = writeln!(
                self.svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.7\" stroke-dasharray=\"{dashes}\"/>"
            );
        }
    }
}
