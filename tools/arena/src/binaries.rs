//! Where the executables of the stack are, and building them when arena runs from a checkout.
//!
//! Started through cargo, a tool builds `store`, `api` and `lb` (and `arena`, if it is another) first, in its own profile
//! and next to itself, so that what it runs is what stands in the checkout. Otherwise it takes those beside its own executable, which is how the
//! container image and an installation have them.

use crate::checkout::Checkout;
use anyhow::{Context, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The programs that are started, by the names of their executables. arena plays the processors.
const NAMES: [&str; 4] = ["store", "api", "lb", "arena"];

/// What makes stacks readable for perf, in executables that run in an image without a C library.
const FRAMES_RUSTFLAGS: &str = "-C force-frame-pointers=yes -C target-feature=+crt-static";

/// Writes the shell's number to each file before `--`, and becomes the command after it.
const ENTER: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@""#;

/// The executables of a stack.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    arena: PathBuf,
    entrances: Vec<(String, Vec<PathBuf>)>,
}

impl Binaries {
    /// Takes those in `dir` if one is given, else builds those of the checkout if there is one, else takes those beside
    /// arena.
    ///
    /// # Errors
    /// When the build fails, or an executable is missing.
    pub async fn find(dir: Option<&Path>, checkout: Option<&Checkout>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("where this program itself is")?;
        let beside = own.parent().context("a program lies in a folder")?;
        let is_arena = own.file_stem().is_some_and(|name| name == "arena");
        // arena is not built anew while it runs, and may lie elsewhere than what it starts.
        let names = if is_arena { &NAMES[..3] } else { &NAMES[..] };
        if let (None, Some(checkout)) = (dir, checkout) {
            build(checkout, &Target::of(beside), None, names).await?;
        }
        let dir = dir.unwrap_or(beside).to_owned();
        for name in names {
            let path = dir.join(name);
            ensure!(
                path.is_file(),
                "{} is missing; build it, or name another folder with --bin-dir",
                path.display()
            );
        }
        let arena = if is_arena { own } else { dir.join("arena") };
        Ok(Self { dir, arena, entrances: Vec::new() })
    }

    /// Builds those of the checkout for perf: with frame pointers, all symbols, and static as in the images. In a
    /// target folder of their own, because other flags would make cargo build everything anew each time.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn with_frames(checkout: &Checkout) -> anyhow::Result<Self> {
        let target = Target {
            dir: checkout.workspace.join("target").join("frames"),
            triple: Some(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)),
            profile: "profiling".into(),
        };
        build(checkout, &target, Some(FRAMES_RUSTFLAGS), &NAMES).await?;
        Self::find(Some(&target.executables()), None).await
    }

    /// The profile that cargo built them in, if the name of their folder tells it.
    #[must_use]
    pub fn profile(&self) -> Option<&'static str> {
        let name = self.dir.file_name()?;
        ["debug", "quick", "release", "profiling"].into_iter().find(|profile| name == *profile)
    }

    /// The folder of the processes' executables.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same, but the processes so called first enter the control groups with these files (see `limits`).
    #[must_use]
    pub fn confined(self, entrances: Vec<(String, Vec<PathBuf>)>) -> Self {
        Self { entrances, ..self }
    }

    /// What to run so that the process called `name` is `program` with these arguments.
    #[must_use]
    pub fn entering(&self, name: &str, program: PathBuf, args: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        let Some((_, files)) = self.entrances.iter().find(|(process, _)| process == name) else {
            return (program, args);
        };
        let files = files.iter().map(|file| file.clone().into());
        let before = ["-c", ENTER, "sh"].map(OsString::from).into_iter().chain(files).chain(["--".into()]);
        ("/bin/sh".into(), before.chain([program.into()]).chain(args).collect())
    }

    /// One of the processes.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The program arena, which also plays the processors.
    #[must_use]
    pub fn arena(&self) -> &Path {
        &self.arena
    }
}

async fn build(
    checkout: &Checkout,
    target: &Target,
    rustflags: Option<&str>,
    names: &[&str],
) -> anyhow::Result<()> {
    let mut command = Command::new(&checkout.cargo);
    command.current_dir(&checkout.workspace).arg("build").args(target.flags());
    command.args(names.iter().flat_map(|name| ["--package", name]));
    command.envs(rustflags.map(|flags| ("RUSTFLAGS", flags)));
    let status =
        command.status().await.with_context(|| format!("cannot run {}", checkout.cargo.display()))?;
    ensure!(status.success(), "building {} failed: {status}", names.join(", "));
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

    /// Where cargo puts what it builds with these flags.
    fn executables(&self) -> PathBuf {
        self.dir.join(self.triple.as_deref().unwrap_or_default()).join(&self.profile)
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

    #[test]
    fn a_confined_process_enters_its_groups_before_it_is_itself() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = ["cpu", "memory"].iter().map(|name| dir.path().join(name)).collect();
        let free = Binaries { dir: PathBuf::new(), arena: PathBuf::new(), entrances: Vec::new() };
        let arg = |text: &str| OsString::from(text);
        assert_eq!(free.entering("lb", "lb".into(), vec![arg("-x")]), ("lb".into(), vec![arg("-x")]));
        let confined = free.confined(vec![("lb".into(), files.clone())]);
        let (program, args) =
            confined.entering("lb", "/bin/sh".into(), vec![arg("-c"), arg("echo $$ $0"), arg("a b")]);
        let output = std::process::Command::new(program).args(args).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let pid = said.trim().strip_suffix(" a b").unwrap();
        for file in files {
            assert_eq!(fs::read_to_string(file).unwrap().trim(), pid);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_missing_executable_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["store", "api", "arena"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let error = Binaries::find(Some(dir.path()), None).await.unwrap_err().to_string();
        assert!(error.contains("/lb is missing") && error.contains("--bin-dir"), "{error}");
        fs::write(dir.path().join("lb"), "").unwrap();
        assert_eq!(Binaries::find(Some(dir.path()), None).await.unwrap().path("lb"), dir.path().join("lb"));
    }
}
