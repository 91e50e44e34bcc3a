//! The checkout that a tool was started in through cargo, if it was.

use clap::Args;
use std::path::PathBuf;

/// What cargo tells a program that it runs.
#[derive(Clone, Debug, Args)]
pub struct CargoVariables {
    #[arg(long, env = "CARGO", hide = true)]
    cargo: Option<PathBuf>,
    #[arg(long, env = "CARGO_MANIFEST_DIR", hide = true)]
    cargo_manifest_dir: Option<PathBuf>,
}

/// A checkout of the workspace, and the cargo that runs arena in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The cargo to build with.
    pub cargo: PathBuf,
    /// The folder of the workspace.
    pub workspace: PathBuf,
}

impl CargoVariables {
    /// The checkout that arena was started in through cargo, if it was.
    #[must_use]
    pub fn checkout(&self) -> Option<Checkout> {
        let workspace = self.cargo_manifest_dir.as_ref()?.ancestors().nth(2)?.to_owned();
        let is_ours =
            ["store", "api", "lb"].iter().all(|name| workspace.join(name).join("Cargo.toml").is_file());
        is_ours.then_some(Checkout { cargo: self.cargo.clone()?, workspace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_one_only_with_its_members() {
        let mut variables = CargoVariables {
            cargo: Some("cargo".into()),
            cargo_manifest_dir: Some("/nowhere/tools/arena".into()),
        };
        assert_eq!(variables.checkout(), None);
        let manifest_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        variables.cargo_manifest_dir = Some(manifest_dir.clone());
        let workspace = manifest_dir.ancestors().nth(2).unwrap().to_owned();
        assert_eq!(variables.checkout(), Some(Checkout { cargo: "cargo".into(), workspace }));
    }
}
