//! Draws a chart: panels below each other, each with its legend at the right.
//!
//! Everything is placed in pixels here, because plotters without a font library cannot measure text, and its own legends
//! and labels would lie on the lines.

use std::{cmp::Reverse, collections::BTreeMap, error::Error};

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::{Circle, DrawingArea, IntoDrawingArea, PathElement, Rectangle, SVGBackend, Text},
    style::{
        Color, FontTransform, IntoFont, IntoTextStyle, RGBColor, ShapeStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    axis::Axis,
    digits::is_share,
    style::{BAND, BAND_INK, FAINT, INK, Look, looks},
};
use crate::chart::{Chart, Line, Panel};

const WIDTH: i32 = 1000;
const MARGIN: i32 = 14;
const CHART_TITLE: i32 = 30;
const PANEL_TITLE: i32 = 24;
/// Above the plot, for each row of the names of bands.
const BAND_ROW: i32 = 15;
const PLOT: i32 = 190;
const BELOW_PLOT: i32 = 52;
const LEFT: i32 = 78;
const LEGEND_ROW: i32 = 18;
const SAMPLE: i32 = 26;
/// Lines with at most so many points have each of them marked.
const MARKED: usize = 15;
/// About the width of a letter, by the size of the text: nothing here can measure it.
const LETTER: f64 = 0.56;

type Drawn<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A chart as SVG.
pub fn svg(chart: &Chart) -> Drawn<String> {
    let looks = looks(chart);
    let names = chart.panels.iter().flat_map(|panel| panel.lines.iter().map(legend_name));
    let legend = names.map(|name| text_width(&name, 13)).max().unwrap_or_default() + SAMPLE + 24;
    let right = WIDTH - legend.clamp(130, WIDTH / 3);
    let frames = frames(chart, right);
    let height = frames.last().map_or(CHART_TITLE, Frame::end) + MARGIN;

    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let canvas = Canvas { area: &area, looks: &looks };
    canvas.text(&chart.title, (LEFT, MARGIN + 8), 18, INK, HPos::Left)?;
    for frame in &frames {
        canvas.panel(frame)?;
    }
    area.present()?;
    drop(area);
    Ok(svg)
}

/// Where a panel lies.
struct Frame<'a> {
    panel: &'a Panel,
    x: Axis,
    y: Axis,
    right: i32,
    /// Where its title begins.
    start: i32,
    /// The upper and the lower edge of the plot.
    top: i32,
    bottom: i32,
    bands: Vec<Band<'a>>,
}

/// A band with its name in one of the rows above the plot.
struct Band<'a> {
    from: i32,
    to: i32,
    name: Option<(&'a str, i32, usize)>,
}

fn frames(chart: &Chart, right: i32) -> Vec<Frame<'_>> {
    let mut start = MARGIN + CHART_TITLE;
    let mut frames: Vec<Frame<'_>> = Vec::new();
    for panel in &chart.panels {
        let frame = Frame::new(panel, right, start);
        start = frame.end();
        frames.push(frame);
    }
    frames
}

impl<'a> Frame<'a> {
    fn new(panel: &'a Panel, right: i32, start: i32) -> Self {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let xs: Vec<f64> = points().map(|(x, _)| *x).collect();
        let ys: Vec<f64> = points().map(|(_, y)| *y).collect();
        let x = Axis::exact(&xs, 10);
        let y = if panel.log_y {
            Axis::log(&ys, 6)
        } else if is_share(&panel.y) {
            Axis::share(&ys, 5)
        } else {
            Axis::linear(&ys, 5)
        };
        let mut frame = Self { panel, x, y, right, start, top: 0, bottom: 0, bands: Vec::new() };
        frame.bands = frame.bands();
        let rows = frame.bands.iter().filter_map(|band| band.name).map(|(_, _, row)| row as i32 + 1);
        frame.top = start + PANEL_TITLE + rows.max().unwrap_or_default() * BAND_ROW;
        frame.bottom = frame.top + PLOT.max(LEGEND_ROW * panel.lines.len() as i32 - 20);
        frame
    }

    fn end(&self) -> i32 {
        self.bottom + BELOW_PLOT
    }

    fn across(&self, x: f64) -> Option<i32> {
        self.x.place(x).map(|place| LEFT + (place * f64::from(self.right - LEFT)).round() as i32)
    }

    fn at(&self, (x, y): (f64, f64)) -> Option<(i32, i32)> {
        let up = self.y.place(y)?;
        Some((self.across(x)?, self.bottom - (up * f64::from(self.bottom - self.top)).round() as i32))
    }

    /// The bands within the plot. A name is shown once, in the first row where it does not touch another.
    fn bands(&self) -> Vec<Band<'a>> {
        let mut bands: Vec<Band<'a>> = Vec::new();
        let mut rows: Vec<i32> = Vec::new();
        let mut named: Vec<&str> = Vec::new();
        for (from, to, name) in &self.panel.bands {
            // A fault that never ends does not end within the plot either.
            let edge = |x: f64| self.across(x).unwrap_or(if x > 0.0 { self.right } else { LEFT });
            let (from, to) = (edge(*from).clamp(LEFT, self.right), edge(*to).clamp(LEFT, self.right));
            if from == to && (to == LEFT || to == self.right) {
                continue;
            }
            let mut shown = None;
            if !named.contains(&name.as_str()) {
                named.push(name);
                let width = text_width(name, 12);
                let middle = i32::midpoint(from, to)
                    .clamp(LEFT + width / 2, (self.right - width / 2).max(LEFT + width / 2));
                let row = rows.iter().position(|end| middle - width / 2 > end + 8).unwrap_or(rows.len());
                rows.resize(rows.len().max(row + 1), 0);
                rows[row] = middle + width / 2;
                shown = Some((name.as_str(), middle, row));
            }
            // An instant is as wide as can be seen.
            bands.push(Band { from, to: to.max(from + 2), name: shown });
        }
        bands
    }
}

/// What a line is called; a line that cannot be shown in full says so.
fn legend_name(line: &Line) -> String {
    if line.points.iter().any(|(x, y)| x.is_finite() && y.is_finite()) {
        line.name.clone()
    } else {
        format!("{} (no value)", line.name)
    }
}

fn text_width(text: &str, size: u32) -> i32 {
    (text.chars().count() as f64 * f64::from(size) * LETTER).ceil() as i32
}

struct Canvas<'a, 'svg> {
    area: &'a DrawingArea<SVGBackend<'svg>, Shift>,
    looks: &'a BTreeMap<&'a str, Look>,
}

impl Canvas<'_, '_> {
    fn panel(&self, frame: &Frame<'_>) -> Drawn<()> {
        let (panel, right) = (frame.panel, frame.right);
        self.text(&panel.title, (LEFT, frame.start + PANEL_TITLE / 2 - 4), 15, INK, HPos::Left)?;
        for band in &frame.bands {
            let corners = [(band.from, frame.top), (band.to, frame.bottom)];
            self.area.draw(&Rectangle::new(corners, BAND.filled()))?;
            if let Some((name, middle, row)) = band.name {
                let at = (middle, frame.top - 8 - BAND_ROW * row as i32);
                self.text(name, at, 12, BAND_INK, HPos::Center)?;
            }
        }
        self.axes(frame)?;
        let mut lines: Vec<&Line> = panel.lines.iter().collect();
        // The thick below the thin, and bounds on top of all, so that lines that coincide show all the same.
        lines.sort_by_key(|line| (line.reference, Reverse(self.looks[line.name.as_str()].width)));
        for line in lines {
            self.line(frame, line)?;
        }
        for (row, line) in panel.lines.iter().enumerate() {
            let look = self.looks[line.name.as_str()];
            let y = frame.top + 8 + LEGEND_ROW * row as i32;
            self.stroke(vec![(right + 14, y), (right + 14 + SAMPLE, y)], look)?;
            self.text(&legend_name(line), (right + SAMPLE + 20, y), 13, INK, HPos::Left)?;
        }
        Ok(())
    }

    fn axes(&self, frame: &Frame<'_>) -> Drawn<()> {
        let (top, bottom, right) = (frame.top, frame.bottom, frame.right);
        for tick in &frame.y.ticks {
            let Some((_, y)) = frame.y.place(tick.value).and_then(|_| frame.at((0.0, tick.value))) else {
                continue;
            };
            self.path(vec![(LEFT, y), (right, y)], FAINT)?;
            self.text(&tick.label, (LEFT - 7, y), 12, INK, HPos::Right)?;
        }
        for tick in &frame.x.ticks {
            let Some(x) = frame.across(tick.value) else { continue };
            self.path(vec![(x, top), (x, bottom)], FAINT)?;
            self.path(vec![(x, bottom), (x, bottom + 4)], INK)?;
            self.text(&tick.label, (x, bottom + 13), 12, INK, HPos::Center)?;
        }
        self.path(vec![(LEFT, top), (LEFT, bottom), (right, bottom)], INK)?;
        self.text(&frame.panel.x, (i32::midpoint(LEFT, right), bottom + 30), 13, INK, HPos::Center)?;
        let style = ("sans-serif", 13).into_font().transform(FontTransform::Rotate270).color(&INK);
        let style = style.pos(Pos::new(HPos::Center, VPos::Center));
        self.area.draw(&Text::new(frame.panel.y.clone(), (MARGIN, i32::midpoint(top, bottom)), style))?;
        Ok(())
    }

    /// A line in the pieces between the values that have no place.
    fn line(&self, frame: &Frame<'_>, line: &Line) -> Drawn<()> {
        let look = self.looks[line.name.as_str()];
        let places: Vec<Option<(i32, i32)>> = line.points.iter().map(|point| frame.at(*point)).collect();
        for piece in places.split(Option::is_none) {
            let piece: Vec<(i32, i32)> = piece.iter().copied().flatten().collect();
            // One point alone is no line: without a mark it could not be seen.
            let marked = !line.reference && (piece.len() == 1 || line.points.len() <= MARKED);
            for place in piece.iter().filter(|_| marked) {
                self.area.draw(&Circle::new(*place, look.width as i32 / 2 + 2, look.colour.filled()))?;
            }
            if piece.len() > 1 {
                self.stroke(piece, look)?;
            }
        }
        Ok(())
    }

    fn stroke(&self, path: Vec<(i32, i32)>, look: Look) -> Drawn<()> {
        let style = ShapeStyle { color: look.colour.to_rgba(), filled: false, stroke_width: look.width };
        match look.dashes {
            None => self.area.draw(&PathElement::new(path, style))?,
            Some((drawn, left)) => self.area.draw(&DashedPathElement::new(path, drawn, left, style))?,
        }
        Ok(())
    }

    fn path(&self, path: Vec<(i32, i32)>, colour: RGBColor) -> Drawn<()> {
        Ok(self.area.draw(&PathElement::new(path, colour.stroke_width(1)))?)
    }

    fn text(&self, text: &str, at: (i32, i32), size: u32, colour: RGBColor, side: HPos) -> Drawn<()> {
        let style =
            ("sans-serif", size).into_text_style(self.area).color(&colour).pos(Pos::new(side, VPos::Center));
        Ok(self.area.draw(&Text::new(text.to_owned(), at, style))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.to_owned(), points: points.to_vec(), reference: false }
    }

    fn drawn(panel: Panel) -> String {
        svg(&Chart { title: "fake".to_owned(), panels: vec![panel] }).unwrap()
    }

    #[test]
    fn a_line_is_broken_where_it_has_no_value() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 1.0)];
        let whole = drawn(Panel { lines: vec![line("mainstay", &points[..2])], ..Panel::default() });
        let broken = drawn(Panel { lines: vec![line("mainstay", &points)], ..Panel::default() });
        let thick = |svg: &str| svg.matches("stroke-width=\"5\"").count();
        assert_eq!(thick(&broken), thick(&whole) + 1);
    }

    #[test]
    fn a_line_without_any_value_says_so_in_the_legend() {
        let panel = Panel { lines: vec![line("tower", &[(0.0, f64::INFINITY)])], ..Panel::default() };
        assert!(drawn(panel).contains("tower (no value)"));
    }

    #[test]
    fn names_of_bands_that_would_touch_stand_in_rows_of_their_own() {
        let band = |from, name: &str| (from, from + 1.0, name.to_owned());
        let panel = Panel {
            lines: vec![line("tower", &[(0.0, 1.0), (60.0, 1.0)])],
            bands: vec![
                band(20.0, "one server fails"),
                band(21.0, "another fails"),
                band(22.0, "another fails"),
            ],
            ..Panel::default()
        };
        let frame = Frame::new(&panel, 800, 0);
        let rows: Vec<_> = frame.bands.iter().map(|band| band.name.map(|(_, _, row)| row)).collect();
        assert_eq!(rows, [Some(0), Some(1), None]);
    }

    #[test]
    fn a_band_that_never_ends_reaches_the_edge_of_the_plot() {
        let panel = Panel {
            lines: vec![line("tower", &[(0.0, 1.0), (60.0, 1.0)])],
            bands: vec![(30.0, f64::INFINITY, "down".to_owned()), (70.0, 80.0, "later".to_owned())],
            ..Panel::default()
        };
        let bands = Frame::new(&panel, 800, 0).bands;
        assert_eq!(bands.iter().map(|band| band.to).collect::<Vec<_>>(), [800]);
    }
}
