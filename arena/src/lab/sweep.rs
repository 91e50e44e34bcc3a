//! One setting of the router over several values: what each is worth over the same plans.

use super::summary::Summary;
use super::{LabArgs, picture};
use crate::terminal;
use anyhow::Context;
use store::core::router::RouterConfig;

/// What can be varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    HoldShare,
    RiskShare,
    PatienceMs,
    LatePatienceMs,
    SilenceMs,
    DispatchPerS,
    OpenMax,
}

const SETTINGS: [(&str, Setting); 7] = [
    ("hold-share", Setting::HoldShare),
    ("risk-share", Setting::RiskShare),
    ("patience-ms", Setting::PatienceMs),
    ("late-patience-ms", Setting::LatePatienceMs),
    ("silence-ms", Setting::SilenceMs),
    ("dispatch-per-s", Setting::DispatchPerS),
    ("open-max", Setting::OpenMax),
];

/// A setting and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    name: &'static str,
    setting: Setting,
    values: Vec<u32>,
}

/// Values are whole numbers; a share is given in hundredths.
const HUNDREDTHS: f64 = 100.0;

impl std::str::FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let names = SETTINGS.map(|(name, _)| name).join(", ");
            format!("give SETTING=VALUE,VALUE with whole numbers, shares in hundredths; settings are {names}")
        };
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let (name, setting) = *SETTINGS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        let values: Result<Vec<u32>, _> = values.split(',').map(str::parse).collect();
        Ok(Self { name, setting, values: values.map_err(|_| wrong())? })
    }
}

impl Sweep {
    /// Judges the plans with each value, prints a line for each, and draws them if a picture is wanted.
    ///
    /// # Errors
    /// When the plan cannot be read or the picture not be written.
    pub fn run(&self, args: &LabArgs) -> anyhow::Result<()> {
        terminal::print(format_args!("{}\n", Summary::head(self.name)));
        let mut points = Vec::new();
        for value in &self.values {
            let verdicts = args.judge_all(|router| self.setting.put(router, *value))?;
            terminal::print(format_args!("{}\n", Summary::new(&verdicts).row(&value.to_string())));
            points.push((f64::from(*value), verdicts));
        }
        args.picture.as_ref().map_or(Ok(()), |path| {
            picture::draw_sweep(self.name, &points, path)
                .with_context(|| format!("cannot draw {}", path.display()))
        })
    }
}

impl Setting {
    fn put(self, router: &mut RouterConfig, value: u32) {
        match self {
            Self::HoldShare => router.hold_share = f64::from(value) / HUNDREDTHS,
            Self::RiskShare => router.risk_share = f64::from(value) / HUNDREDTHS,
            Self::PatienceMs => router.patience_ms = value.into(),
            Self::LatePatienceMs => router.late_patience_ms = value.into(),
            Self::SilenceMs => router.silence_ms = value.into(),
            Self::DispatchPerS => router.dispatch_per_s = value,
            Self::OpenMax => router.open_max = usize::try_from(value).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_names_a_setting_and_whole_numbers() {
        let sweep: Sweep = "patience-ms=0,500".parse().unwrap();
        assert_eq!((sweep.setting, sweep.values), (Setting::PatienceMs, vec![0, 500]));
        for wrong in ["patience-ms", "patience=1", "patience-ms=", "patience-ms=1.5"] {
            assert!(wrong.parse::<Sweep>().unwrap_err().contains("late-patience-ms"), "{wrong}");
        }
    }
}
