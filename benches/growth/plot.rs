//! Draws costs as lines over a logarithmic axis: one panel for each workload, one colour for each contender.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

const PANEL: (u32, u32) = (420, 400);
const TITLE: u32 = 44;
const FONT: &str = "sans-serif";

/// Black, and the orange and the blue of Okabe and Ito, which also differ in lightness.
const COLOURS: [RGBColor; 3] = [BLACK, RGBColor(230, 159, 0), RGBColor(0, 114, 178)];

pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x_axis: &'static str,
    /// The ratio of one label of the x axis to the one before it.
    pub(crate) x_base: u32,
    pub(crate) panels: Vec<Panel>,
}

/// All contenders with one workload.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// The costs of one contender: x, and nanoseconds per item.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(usize, f64)>,
}

impl Plot {
    /// Writes the plot as an SVG file.
    pub(crate) fn draw(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let size = (PANEL.0 * self.panels.len() as u32, TITLE + PANEL.1);
        let root = SVGBackend::new(path, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (title, panels) = root.split_vertically(TITLE);
        title.margin(14, 0, 0, 0).titled(&self.title, (FONT, 24))?;
        for (panel, area) in self.panels.iter().zip(panels.split_evenly((1, self.panels.len()))) {
            self.draw_panel(panel, &area)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_panel(
        &self,
        panel: &Panel,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> Result<(), Box<dyn Error>> {
        let points = || self.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
        let (least, most) = (points().map(|point| point.0).min(), points().map(|point| point.0).max());
        let (least, most) = (least.unwrap_or(1) as f64, most.unwrap_or(1) as f64);
        let dearest = points().map(|point| point.1).fold(0.0, f64::max);
        let base = f64::from(self.x_base);
        let labels = (most / least).log(base).floor() as usize + 1;
        // A margin on every side, so that no point is cut, and room for the legend above.
        let x = (least / 1.3..most * 1.3).log_scale().base(base);

        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(32)
            .caption(panel.title, (FONT, 19))
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(x, 0.0..dearest * 1.4)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .label_style((FONT, 16))
            .axis_desc_style((FONT, 17))
            .x_desc(self.x_axis)
            .y_desc("ns per item")
            .x_labels(labels)
            .x_label_formatter(&|x| with_commas(x.round() as usize))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for (line, colour) in panel.lines.iter().zip(COLOURS) {
            let points = line.points.iter().map(|&(x, nanos)| (x as f64, nanos));
            let style = colour.filled().stroke_width(2);
            chart.draw_series(LineSeries::new(points, style).point_size(4))?.label(line.name).legend(
                move |(x, y)| {
                    EmptyElement::at((x, y))
                        + PathElement::new([(0, 0), (24, 0)], style)
                        + Circle::new((12, 0), 4, style)
                },
            );
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 17))
            .draw()?;
        Ok(())
    }
}

/// Formats a number with separators: 16,384.
pub(crate) fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
