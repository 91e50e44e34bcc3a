//! Pictures of a comparison, as SVG by hand: bars for contestants, lines for steps. Colours are readable on light and
//! dark pages, and every figure stands beside what shows it.

use crate::bench::comparison::{Comparison, Spread};
use std::fmt::Write;

const WIDTH: usize = 720;
const LABEL_WIDTH: usize = 190;
const FIGURE_WIDTH: usize = 110;
const BAR_HEIGHT: usize = 18;
const ROW_HEIGHT: usize = 26;
const TITLE_HEIGHT: usize = 34;

/// One metric of everybody, as bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    title: String,
    rows: Vec<(String, Spread)>,
}

/// The medians of one metric of a comparison, with their ranges.
#[must_use]
pub fn bars(comparison: &Comparison, metric: &str) -> Bars {
    let unit = comparison.metrics.iter().find(|other| other.name == metric).map_or("", |metric| metric.unit);
    let row = |name: &String| Some((name.clone(), comparison.spread(name, metric)?));
    let names = comparison.contestants.iter().map(|contestant| &contestant.name);
    Bars { title: format!("{metric} {unit}").trim_end().to_owned(), rows: names.filter_map(row).collect() }
}

/// The picture: one chart below the other.
#[must_use]
pub fn draw(charts: &[Bars]) -> String {
    let height: usize = charts.iter().map(|chart| TITLE_HEIGHT + chart.rows.len() * ROW_HEIGHT).sum();
    let mut svg = String::new();
    let mut put = |line: String| writeln!(svg, "{line}").expect("a string grows");
    put(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{0}" viewBox="0 0 {WIDTH} {0}" font-family="sans-serif" font-size="13" fill="gray">"#,
        height + 10
    ));
    let mut top = 0;
    for chart in charts {
        put(format!(r#"<text x="8" y="{}" font-weight="bold">{}</text>"#, top + 22, escaped(&chart.title)));
        top += TITLE_HEIGHT;
        let longest = chart.rows.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let scale = (WIDTH - LABEL_WIDTH - FIGURE_WIDTH) as f64 / longest;
        for (name, spread) in &chart.rows {
            let x = |figure: f64| figure.max(0.0) * scale;
            let (baseline, middle) = (top + 14, top + BAR_HEIGHT / 2);
            put(format!(r#"<text x="8" y="{baseline}">{}</text>"#, escaped(name)));
            put(format!(
                r##"<rect x="{LABEL_WIDTH}" y="{top}" width="{:.1}" height="{BAR_HEIGHT}" fill="#4c8bbf"/>"##,
                x(spread.median)
            ));
            #[expect(clippy::cast_precision_loss, reason = "a constant")]
            let left = LABEL_WIDTH as f64;
            put(format!(
                r#"<line x1="{:.1}" y1="{middle}" x2="{:.1}" y2="{middle}" stroke="gray" stroke-width="2"/>"#,
                left + x(spread.min),
                left + x(spread.max)
            ));
            put(format!(
                r#"<text x="{:.1}" y="{baseline}">{:.1}</text>"#,
                left + x(spread.max) + 6.0,
                spread.median
            ));
            top += ROW_HEIGHT;
        }
    }
    put("</svg>".into());
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::comparison::Metric;

    #[test]
    fn the_longest_bar_is_as_wide_as_there_is_room_and_names_are_escaped() {
        const METRICS: &[Metric] = &[Metric::compared("cost", "us", 1)];
        let mut comparison = Comparison::new("a test".into(), METRICS);
        comparison.enter("a<b", &[Some(10.0)]);
        comparison.enter("half", &[Some(5.0)]);
        let svg = draw(&[bars(&comparison, "cost")]);
        let room = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
        assert!(svg.contains(&format!(r#"width="{room}.0""#)), "{svg}");
        assert!(svg.contains(&format!(r#"width="{}.0""#, room / 2)) && svg.contains("a&lt;b"), "{svg}");
        assert!(svg.contains("cost us") && svg.ends_with("</svg>\n"));
    }
}
