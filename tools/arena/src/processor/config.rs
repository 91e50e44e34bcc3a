//! What one simulated processor is like.

use std::time::Duration;
use wire::Processor;

/// What one simulated processor is like.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// Which of the two it plays; only its name, for a look at the process.
    pub name: Processor,
    /// Fee for one payment in basis points (hundredths of a percent), 0 to 10,000.
    pub fee_bp: u32,
    /// The first value that `X-Rinha-Token` must have; `PUT /admin/configurations/token` changes it.
    pub token: String,
    /// What the database takes for one payment when undisturbed. The timer's grain is 1 ms; zero needs no timer.
    pub service_time: Duration,
    /// Payments a second that the database gets through at most; `None` is without a bound.
    pub capacity: Option<u32>,
    /// The window of `GET /payments/service-health`, one call each; at least 1 ms.
    pub health_window: Duration,
}

impl ProcessorConfig {
    /// What the competition's preview runs: 5 % or 15 %, token `123`, an undisturbed database.
    #[must_use]
    pub fn new(name: Processor) -> Self {
        let fee_bp = match name {
            Processor::Default => 500,
            Processor::Fallback => 1_500,
        };
        Self {
            name,
            fee_bp,
            token: "123".to_owned(),
            service_time: Duration::from_millis(1),
            capacity: None,
            health_window: Duration::from_secs(5),
        }
    }
}
