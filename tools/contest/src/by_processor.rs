//! One value for each processor as JSON has it: an object with the two names.
//!
//! In the program such a pair is a [`PerProcessor`], which is indexed by the processor and knows nothing of JSON,
//! because what api and store tell each other is not JSON. Plans and reports are, and a person who reads them should
//! not have to know which of two numbers comes first. Both directions are plain conversions.

use serde::{Deserialize, Serialize};
use wire::PerProcessor;

/// `{"default":..,"fallback":..}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByProcessor<T> {
    /// The default processor's.
    pub default: T,
    /// The fallback processor's.
    pub fallback: T,
}

impl<T> From<PerProcessor<T>> for ByProcessor<T> {
    fn from(PerProcessor([default, fallback]): PerProcessor<T>) -> Self {
        Self { default, fallback }
    }
}

impl<T> From<ByProcessor<T>> for PerProcessor<T> {
    fn from(values: ByProcessor<T>) -> Self {
        Self([values.default, values.fallback])
    }
}
