//! The plans that a command line can name.

use crate::draw;
use crate::plan::{Plan, PlanError};
use std::path::PathBuf;

/// Which plan a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The competition's 60 s plan.
    Preview,
    /// The competition's 300 s plan.
    Final,
    /// A plan drawn from a seed.
    Random,
    /// A day drawn from a seed: steady load, and no books are compared.
    Day,
    /// A plan of one's own.
    File(PathBuf),
}

impl std::str::FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "preview" => Self::Preview,
            "final" => Self::Final,
            "random" => Self::Random,
            "day" => Self::Day,
            path => Self::File(path.into()),
        })
    }
}

impl Choice {
    /// The plan itself; `seed` is that of a random one.
    ///
    /// # Errors
    /// [`PlanError`] when it is a file that cannot be read, or that says what no plan may say.
    pub fn plan(&self, seed: u64) -> Result<Plan, PlanError> {
        match self {
            Self::Preview => Ok(Plan::preview()),
            Self::Final => Ok(Plan::final_()),
            Self::Random => Ok(draw::plan(seed)),
            Self::Day => Ok(draw::day(seed)),
            Self::File(path) => Plan::read(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plan_and_everything_else_a_file() {
        assert_eq!("preview".parse(), Ok(Choice::Preview));
        assert_eq!("final".parse(), Ok(Choice::Final));
        assert_eq!("random".parse(), Ok(Choice::Random));
        assert_eq!("plans/mine.json".parse(), Ok(Choice::File("plans/mine.json".into())));
        let missing = Choice::File("/nowhere/plan.json".into()).plan(0).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/plan.json"));
    }
}
