//! How the processes log: one line for each change of state, none for a request.
//!
//! `LOG_FORMAT` chooses the form (`text` or `json`) and `LOG_LEVEL` what is said; a filter such as `info,store=debug`
//! works too. Lines go to standard error, so that a command's own output stays clean, and by way of [`crate::stderr`], so
//! that no line can end or block the process. A panic and an error of `main` take the same way.

use crate::stderr;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::process::{ExitCode, Termination};
use std::thread;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The two flags that every binary has.
#[derive(Clone, Debug, clap::Args)]
pub struct LogFlags {
    /// Form of the log lines on standard error
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
    /// Log level: error, warn, info, debug, or a filter such as info,store=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
}

/// Starts logging for this process. Later calls do nothing.
///
/// # Errors
/// A sentence that names the variable, when `LOG_LEVEL` is no filter.
pub fn start(flags: &LogFlags) -> Result<(), String> {
    let filter = filter(&flags.log_level)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(|| stderr::Lines).log_internal_errors(false);
    let layer = match flags.log_format {
        LogFormat::Text => layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // A second start (in tests) keeps the first subscriber.
    if tracing_subscriber::registry().with(layer).with(filter).try_init().is_ok() {
        panic::set_hook(Box::new(tell_panic));
    }
    Ok(())
}

/// The end of `main`: says what went wrong, waits a little for lines that are not written yet, and gives the exit status.
pub fn end<T: Termination, E: fmt::Debug>(outcome: Result<T, E>) -> ExitCode {
    let code = match outcome {
        Ok(code) => code.report(),
        Err(error) => {
            stderr::say(&format!("Error: {error:?}"));
            ExitCode::FAILURE
        }
    };
    stderr::flush();
    code
}

/// What the standard library's own hook says, but without a write that can fail or block.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let name = thread::current().name().unwrap_or("<unnamed>").to_owned();
    let backtrace = Backtrace::capture();
    let mut text = format!("thread '{name}' {panic}");
    if backtrace.status() == BacktraceStatus::Captured {
        text = format!("{text}\n{backtrace}");
    }
    stderr::say(&text);
    // The process may end right after this.
    stderr::flush();
}

/// A list of levels and of `target=level`. A word that is neither would silence everything else, so it is refused.
fn filter(text: &str) -> Result<Targets, String> {
    // The empty word would be the level error.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let is_plain = |part: &str| part.contains('=') || is_level(part);
    let parsed = text.split(',').all(is_plain).then(|| text.parse::<Targets>().ok()).flatten();
    parsed.ok_or_else(|| {
        format!(
            "LOG_LEVEL: {text:?} is no filter; use error, warn, info, debug or one such as info,store=debug"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn a_filter_is_a_level_or_a_list_of_targets() {
        let levels = |text| {
            let filter = filter(text).ok()?;
            let level = |target| {
                let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
                levels.iter().filter(|level| filter.would_enable(target, level)).count()
            };
            Some([level("lb::server"), level("store::log")])
        };
        assert_eq!(levels("info"), Some([3, 3]));
        assert_eq!(levels("WARN"), Some([2, 2]));
        assert_eq!(levels("off"), Some([0, 0]));
        assert_eq!(levels("info,store=debug"), Some([3, 4]));
        assert_eq!(levels("store=trace"), Some([0, 5]));
        for text in ["", "trce", "info,", "info store", "store=nothing"] {
            assert_eq!(levels(text), None, "{text:?}");
        }
    }
}
