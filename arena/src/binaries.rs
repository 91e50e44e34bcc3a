//! Where the executables of the stack are, and building them when arena runs from a checkout.
//!
//! Started through cargo, arena builds `store`, `api` and `lb` first, in its own profile and next to itself, so that
//! what it runs is what stands in the checkout. Otherwise it takes those beside its own executable, which is how the
//! container image and an installation have them.

use crate::config::Checkout;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The processes of the stack beside arena itself, by the names of their executables.
const NAMES: [&str; 3] = ["store", "api", "lb"];

/// The executables of a stack.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    arena: PathBuf,
}

impl Binaries {
    /// Takes those in `dir` if one is given, else builds those of the checkout if there is one, else takes those beside
    /// arena.
    ///
    /// # Errors
    /// When the build fails, or an executable is missing.
    pub async fn find(dir: Option<&Path>, checkout: Option<&Checkout>) -> anyhow::Result<Self> {
        let arena = std::env::current_exe().context("where arena itself is")?;
        let beside = arena.parent().context("arena lies in a folder")?;
        if let (None, Some(checkout)) = (dir, checkout) {
            build(checkout, &Target::of(beside)).await?;
        }
        let dir = dir.unwrap_or(beside).to_owned();
        for name in NAMES {
            let path = dir.join(name);
            ensure!(
                path.is_file(),
                "{} is missing; build it, or name another folder with --bin-dir",
                path.display()
            );
        }
        Ok(Self { dir, arena })
    }

    /// One of the processes.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Arena itself, which also plays the processors.
    #[must_use]
    pub fn arena(&self) -> &Path {
        &self.arena
    }
}

async fn build(checkout: &Checkout, target: &Target) -> anyhow::Result<()> {
    let mut command = Command::new(&checkout.cargo);
    command.current_dir(&checkout.workspace).arg("build").args(target.flags());
    command.args(NAMES.iter().flat_map(|name| ["--package", name]));
    let status =
        command.status().await.with_context(|| format!("cannot run {}", checkout.cargo.display()))?;
    ensure!(status.success(), "building {} failed: {status}", NAMES.join(", "));
    Ok(())
}

/// How cargo laid out the folder that arena lies in: `TARGET_DIR/[TRIPLE/]PROFILE`.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    dir: PathBuf,
    triple: Option<String>,
    profile: String,
}

impl Target {
    fn of(beside: &Path) -> Self {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let profile = name(beside);
        let above = beside.parent().unwrap_or(beside);
        // Cargo marks its target folder as a cache; a folder for a triple lies one deeper.
        if above.join("CACHEDIR.TAG").exists() {
            return Self { dir: above.to_owned(), triple: None, profile };
        }
        Self { dir: above.parent().unwrap_or(above).to_owned(), triple: Some(name(above)), profile }
    }

    fn flags(&self) -> Vec<String> {
        // The folder of the profile `dev` has another name, for reasons of history.
        let profile = if self.profile == "debug" { "dev" } else { &self.profile };
        let mut flags = vec!["--profile".into(), profile.into(), "--target-dir".into()];
        flags.push(self.dir.to_string_lossy().into_owned());
        flags.extend(self.triple.iter().flat_map(|triple| ["--target".into(), triple.clone()]));
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_profile_and_the_target_are_read_from_where_arena_lies() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("CACHEDIR.TAG"), "").unwrap();
        let flags = |below: &str| {
            let text = Target::of(&dir.path().join(below)).flags().join(" ");
            text.replace(&dir.path().to_string_lossy().into_owned(), "T")
        };
        assert_eq!(flags("release"), "--profile release --target-dir T");
        assert_eq!(flags("debug"), "--profile dev --target-dir T");
        let static_target = "--profile profiling --target-dir T --target x86_64-unknown-linux-gnu";
        assert_eq!(flags("x86_64-unknown-linux-gnu/profiling"), static_target);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_missing_executable_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["store", "api"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let error = Binaries::find(Some(dir.path()), None).await.unwrap_err().to_string();
        assert!(error.contains("/lb is missing") && error.contains("--bin-dir"), "{error}");
        fs::write(dir.path().join("lb"), "").unwrap();
        assert_eq!(Binaries::find(Some(dir.path()), None).await.unwrap().path("lb"), dir.path().join("lb"));
    }
}
