//! The folder of one run: sockets, the store's log, what the children wrote.
//!
//! A folder that the user names is left as it is at the end, so that a second run finds the first one's log. Otherwise
//! it is a fresh one under the system's folder for temporary files, and is removed, unless what lies in it is the
//! evidence of something that went wrong.

use anyhow::Context;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folder of one run.
#[derive(Debug)]
pub enum RunDir {
    /// Named by the user.
    Given(PathBuf),
    /// Made for this run; removed when dropped.
    Fresh(TempDir),
}

impl RunDir {
    /// The given folder, or a fresh one.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new(given: Option<&Path>) -> anyhow::Result<Self> {
        match given {
            Some(path) => Ok(Self::Given(path.to_owned())),
            None => {
                let fresh = tempfile::Builder::new().prefix("espora-").tempdir();
                fresh.map(Self::Fresh).context("cannot make a folder for this run; name one with --run-dir")
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Fresh(fresh) => fresh.path(),
        }
    }

    /// Leaves the folder where it is, for a later look.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        match self {
            Self::Given(path) => path,
            Self::Fresh(fresh) => fresh.keep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_folder_is_removed_unless_it_is_kept() {
        let fresh = RunDir::new(None).unwrap();
        let path = fresh.path().to_owned();
        drop(fresh);
        assert!(!path.exists());
        let kept = RunDir::new(None).unwrap().keep();
        assert!(kept.exists());
        std::fs::remove_dir(&kept).unwrap();
    }

    #[test]
    fn a_given_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunDir::new(Some(dir.path())).unwrap());
        assert!(dir.path().exists());
    }
}
