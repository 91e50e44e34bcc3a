//! How the processes log: one line for each change of state, none for a request.
//!
//! `LOG_FORMAT` chooses the form (`text` or `json`) and `LOG_LEVEL` what is said; a filter of `tracing-subscriber`
//! such as `info,store=debug` works too. Lines go to standard error, so that a command's own output stays clean.

use std::io::IsTerminal;

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
    /// What is logged: error, warn, info, debug, or a filter such as info,store=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
}

/// Starts logging for this process. Later calls do nothing.
///
/// # Errors
/// A sentence that names the variable, when `LOG_LEVEL` is no filter.
pub fn start(flags: &LogFlags) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&flags.log_level).map_err(|error| {
        format!("LOG_LEVEL: {error}; use error, warn, info, debug or a filter such as info,store=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (in tests) keeps the first subscriber.
    let _ = match flags.log_format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
