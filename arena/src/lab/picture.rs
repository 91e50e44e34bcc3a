//! Shares as pictures: curves of one kind of plan each, or of one value of a setting each.

use super::summary::Summary;
use super::verdict::{Ending, Verdict};
use plotters::prelude::*;
use std::path::Path;

/// In pixels; text stays readable in a page of documentation.
const SIZE: (u32, u32) = (760, 420);

/// Shares below are drawn at the edge: hardly any is.
const SHARE_MIN: f64 = 30.0;

type Point = (f64, f64);

/// A line and its name.
struct Curve {
    name: String,
    points: Vec<Point>,
}

/// The share of each plan over the part of the plans with the same ending that are no better.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_shares(verdicts: &[Verdict], path: &Path) -> anyhow::Result<()> {
    let curve = |name: String, mut shares: Vec<f64>| {
        shares.sort_by(f64::total_cmp);
        let len = number(shares.len());
        let at = |place: usize| number(place + 1) / len * 100.0;
        let points = shares.iter().enumerate().map(|(place, share)| (at(place), share.max(SHARE_MIN)));
        Curve { points: points.collect(), name }
    };
    let mut curves = vec![curve("all".into(), verdicts.iter().map(|verdict| verdict.share).collect())];
    for ending in [Ending::Cheap, Ending::Dear, Ending::Late, Ending::Nothing] {
        let with = verdicts.iter().filter(|verdict| verdict.ending == ending);
        curves.push(curve(format!("ends {ending}"), with.map(|verdict| verdict.share).collect()));
    }
    curves.retain(|curve| !curve.points.is_empty());
    let names = ("plans that are no better, %", "share of the clairvoyant's score, %");
    draw(&curves, 0.0..100.0, SHARE_MIN, names, SeriesLabelPosition::LowerRight, path)
}

/// What a setting is worth: median, mean, 5th percentile and worst share over its values.
///
/// # Errors
/// When the file cannot be written.
pub fn draw_sweep(name: &str, points: &[(f64, Vec<Verdict>)], path: &Path) -> anyhow::Result<()> {
    let of = |name: &str, share: fn(&Summary<'_>) -> f64| Curve {
        name: name.into(),
        points: points.iter().map(|(value, verdicts)| (*value, share(&Summary::new(verdicts)))).collect(),
    };
    let curves = [
        of("median", |summary| summary.percentile(50)),
        of("mean", |summary| summary.share_mean()),
        of("5th percentile", |summary| summary.percentile(5)),
        of("worst", |summary| summary.percentile(0)),
    ];
    let lowest = curves.iter().flat_map(|curve| &curve.points).map(|(_, share)| *share).fold(100.0, f64::min);
    let values = points.iter().map(|(value, _)| *value);
    let (first, last) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
    // The names of the curves stand beside them.
    let range = first..last + (last - first) / 4.0;
    let names = (name, "share of the clairvoyant's score, %");
    draw(&curves, range, (lowest - 2.0).max(0.0), names, SeriesLabelPosition::MiddleRight, path)
}

fn draw(
    curves: &[Curve],
    across: std::ops::Range<f64>,
    share_min: f64,
    (x_name, y_name): (&str, &str),
    position: SeriesLabelPosition,
    path: &Path,
) -> anyhow::Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: String| anyhow::anyhow!(error);
    area.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(across, share_min..100.5)
        .map_err(|error| failed(error.to_string()))?;
    chart
        .configure_mesh()
        .x_desc(x_name)
        .y_desc(y_name)
        .light_line_style(WHITE)
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    for (number, Curve { name, points }) in curves.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))
            .map_err(|error| failed(error.to_string()))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    area.present().map_err(|error| failed(error.to_string()))
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("fewer plans"))
}
