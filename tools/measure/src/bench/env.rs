//! What every measurement works with.

use super::comparison::Comparison;
use anyhow::{Context, ensure};
use arena::binaries::Binaries;
use arena::terminal::Terminal;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// What every measurement works with.
#[derive(Clone, Debug)]
pub struct BenchEnv {
    /// The executables.
    pub binaries: Binaries,
    /// Where everything is written.
    pub dir: PathBuf,
    /// How often.
    pub turns: u32,
    /// Variables for every child.
    pub envs: Vec<(String, String)>,
    /// Where is told how far it is.
    pub terminal: Terminal,
}

impl BenchEnv {
    /// A folder of this name with nothing in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn fresh_folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Those of the wanted modes that lb has; of the others the comparison gets a note.
    ///
    /// # Errors
    /// When lb cannot be asked, or has none of them.
    pub fn lb_modes(&self, wanted: &[String], comparison: &mut Comparison) -> anyhow::Result<Vec<String>> {
        let output =
            Command::new(self.binaries.path("lb")).arg("--help").output().context("cannot ask lb --help")?;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = help.split(|at: char| at.is_whitespace() || ",:[]".contains(at)).collect();
        let (has, has_not): (Vec<_>, Vec<_>) =
            wanted.iter().cloned().partition(|mode| words.contains(&mode.as_str()));
        comparison.notes.extend(has_not.iter().map(|mode| format!("lb has no mode {mode}: left out")));
        ensure!(!has.is_empty(), "lb has none of the modes {}; lb --help tells them", wanted.join(", "));
        Ok(has)
    }

    /// This program, which also is the fixed server and the fixed balancer.
    ///
    /// # Errors
    /// What the system says.
    pub fn ourselves() -> io::Result<PathBuf> {
        std::env::current_exe()
    }

    /// Tells how far it is.
    pub fn say(&self, text: &str) {
        self.terminal.say(text);
    }
}
