//! Draws a series: the rate above, processor time an event below.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Circle, DrawingArea, IntoDrawingArea as _, LineSeries, RGBColor, SVGBackend, WHITE,
    },
    series::PointSeries,
    style::{Color as _, IntoFont as _},
};

use super::growth::{Axis, Point, Series};

const SIZE: (u32, u32) = (760, 520);
const RATE: RGBColor = RGBColor(0x22, 0x66, 0xaa);
const SERVICE: RGBColor = RGBColor(0xcc, 0x55, 0x22);
const SERVER: RGBColor = RGBColor(0x33, 0x88, 0x55);

/// One line of a panel: its name, its colour, its value at a point.
type Line<'a> = (&'a str, RGBColor, &'a dyn Fn(&Point) -> f64);
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The series as SVG.
///
/// # Errors
/// If it cannot be drawn, for instance without points.
pub fn svg(series: &Series) -> Result<String> {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(SIZE.1 / 2);
        let rate = |point: &Point| point.median(|sample| sample.rate);
        let service = |point: &Point| point.median(|sample| sample.cost.service_cpu_us);
        let server = |point: &Point| point.median(|sample| sample.cost.server_cpu_us);
        panel(&upper, series, "events/s", &[("events/s", RATE, &rate)])?;
        let lines: [Line<'_>; 2] = [("PostgreSQL", SERVER, &server), ("service", SERVICE, &service)];
        panel(&lower, series, "CPU µs an event", &lines)?;
        area.present()?;
    }
    Ok(drawn)
}

fn panel(area: &Area<'_>, series: &Series, title: &str, lines: &[Line<'_>]) -> Result<()> {
    let scale = Scale::of(series.axis);
    let (first, last) = series
        .points
        .first()
        .zip(series.points.last())
        .ok_or_else(|| anyhow!("no points"))?;
    let values = || {
        series
            .points
            .iter()
            .flat_map(|point| lines.iter().map(move |line| line.2(point)))
    };
    let top = values().fold(0.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(scale.place(first.x)..scale.place(last.x), 0.0..top)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_labels(scale.labels())
        .x_label_formatter(&|at| counted(scale.value(*at)))
        .y_labels(6)
        .y_label_formatter(&|value| counted(*value))
        .x_desc(series.axis.label())
        .y_desc(title)
        .axis_desc_style(("sans-serif", 14).into_font())
        .label_style(("sans-serif", 12).into_font())
        .draw()?;
    for &(name, colour, value) in lines {
        let points = || series.points.iter().map(|point| (scale.place(point.x), value(point)));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |at| Circle::new((at.0 + 10, at.1), 4, colour.filled()));
        chart.draw_series(PointSeries::<_, _, Circle<_, _>, _>::new(points(), 3, colour.filled()))?;
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .label_font(("sans-serif", 12).into_font())
            .draw()?;
    }
    Ok(())
}

/// Where a value stands on the axis: sizes that double or grow tenfold stand at equal distances.
#[derive(Debug, Clone, Copy)]
enum Scale {
    Linear,
    Twofold,
    Tenfold,
}

impl Scale {
    fn of(axis: Axis) -> Self {
        match axis {
            Axis::EventBytes | Axis::Rows => Self::Linear,
            Axis::Connections => Self::Twofold,
            Axis::RequestEvents | Axis::Chunks => Self::Tenfold,
        }
    }

    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Twofold => value.log2(),
            Self::Tenfold => value.log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Twofold => place.exp2(),
            Self::Tenfold => 10_f64.powf(place),
        }
    }

    fn labels(self) -> usize {
        match self {
            Self::Linear => 11,
            Self::Twofold => 9,
            Self::Tenfold => 5,
        }
    }
}

fn counted(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{} k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

/// With one digit after the point, unless that is zero.
fn trimmed(value: f64) -> String {
    let shown = format!("{value:.1}");
    shown.strip_suffix(".0").map(str::to_owned).unwrap_or(shown)
}
