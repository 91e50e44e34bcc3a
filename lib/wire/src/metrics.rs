//! Metrics for Prometheus. Processes count in plain numbers where the work is done; a [`Snapshot`] gives them names when
//! they are asked for, as OpenMetrics. [`as_text`] makes the older text of that, for clients that do not ask for it.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// The last line of every text.
const END: &str = "# EOF\n";

/// What each process says of the lines that [`crate::stderr::dropped`] counts.
pub const LOG_LINES_DROPPED: &str = "Log lines that standard error did not take";

/// One number with its labels.
pub type Sample = (Vec<(&'static str, String)>, u64);

/// All numbers of a process at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    counters: Vec<Family>,
    gauges: Vec<Family>,
    signed: Vec<(&'static str, &'static str, i64)>,
}

#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

impl Snapshot {
    /// Adds numbers that only grow.
    pub fn counter(&mut self, name: &'static str, help: &'static str, samples: Vec<Sample>) {
        self.counters.push(Family { name, help, samples });
    }

    /// Adds numbers that go up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, samples: Vec<Sample>) {
        self.gauges.push(Family { name, help, samples });
    }

    /// Adds a number that may be below zero.
    pub fn signed_gauge(&mut self, name: &'static str, help: &'static str, value: i64) {
        self.signed.push((name, help, value));
    }

    /// The text, with `prefix` before every name.
    ///
    /// # Panics
    /// Never: a string takes any text.
    #[must_use]
    pub fn render(self, prefix: &str) -> String {
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(8 * 1024);
        text::encode(&mut text, &registry).expect("a string takes any text");
        text
    }
}

/// A number without labels.
#[must_use]
pub fn plain(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

/// One text of several, as one process serves them: the end is said once.
#[must_use]
pub fn join(texts: &[&str]) -> String {
    let mut joined: String = texts.iter().map(|text| text.strip_suffix(END).unwrap_or(text)).collect();
    joined.push_str(END);
    joined
}

/// The same numbers as Prometheus text 0.0.4: there a counter's family has the name of its series, which ends in
/// `_total`, and nothing marks the end.
#[must_use]
pub fn as_text(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 8 * counters.len() * 2);
    for line in openmetrics.lines() {
        let about =
            ["# HELP ", "# TYPE "].into_iter().find_map(|what| Some((what, line.strip_prefix(what)?)));
        match about.and_then(|(what, rest)| Some((what, rest.split_once(' ')?))) {
            Some((what, (name, rest))) => {
                let suffix = if counters.contains(&name) { "_total" } else { "" };
                text.extend([what, name, suffix, " ", rest, "\n"]);
            }
            None if line.starts_with('#') => (),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.counters {
            encode(&mut encoder, family, |value| ConstCounter::new(*value))?;
        }
        for family in &self.gauges {
            encode(&mut encoder, family, |value| ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)))?;
        }
        for &(name, help, value) in &self.signed {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn encode<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    metric: impl Fn(&u64) -> M,
) -> Result<(), fmt::Error> {
    let kind = metric(&0).metric_type();
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
    match &family.samples[..] {
        // Without this case the name would be followed by empty braces.
        [(labels, value)] if labels.is_empty() => metric(value).encode(encoder),
        samples => samples
            .iter()
            .try_for_each(|(labels, value)| metric(value).encode(encoder.encode_family(labels)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_as_prometheus_text() {
        let mut snapshot = Snapshot::default();
        snapshot.counter("requests", "Requests", vec![(vec![("status", "202".to_owned())], 3)]);
        snapshot.gauge("connections", "Connections", plain(7));
        snapshot.signed_gauge("adjusted_cents", "Adjusted", -3);
        let text = snapshot.render("api");
        assert!(text.contains("api_requests_total{status=\"202\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE api_connections gauge\napi_connections 7\n"), "{text}");
        assert!(text.contains("# TYPE api_adjusted_cents gauge\napi_adjusted_cents -3\n"), "{text}");
        let joined = join(&[&text, "store_x 1\n# EOF\n"]);
        assert_eq!(joined.matches("# EOF").count(), 1);
        assert!(joined.ends_with("store_x 1\n# EOF\n"), "{joined}");
    }

    #[test]
    fn the_older_text_has_the_same_series_under_families_of_their_names() {
        let mut snapshot = Snapshot::default();
        let of_status = |status: &str| vec![("status", status.to_owned())];
        snapshot.counter("requests", "Requests", vec![(of_status("202"), 3), (of_status("# EOF"), 4)]);
        snapshot.counter("lost", "Lost ones", plain(0));
        snapshot.gauge("connections", "Connections", plain(7));
        assert_eq!(
            as_text(&snapshot.render("api")),
            "# HELP api_requests_total Requests\n# TYPE api_requests_total counter\n\
            api_requests_total{status=\"202\"} 3\napi_requests_total{status=\"# EOF\"} 4\n\
            # HELP api_lost_total Lost ones\n# TYPE api_lost_total counter\napi_lost_total 0\n\
            # HELP api_connections Connections\n# TYPE api_connections gauge\napi_connections 7\n"
        );
    }
}
