//! The load under which processes are looked at: the judge with a plan, or a fixed number of payments a second.
//!
//! A fixed rate is what figures are compared at: [`CONNECTIONS`] clients, each with a connection that it keeps and a
//! pace of its own. A client whose answer is late posts its next payment at once, so the rate is kept as long as the
//! system can keep it; how much was accepted is told in any case.

use arena::client::{Client, Failure, TIMEOUT};
use arena::judge::{Judge, Sides};
use arena::tally::{Latency, Tally};
use arena::user::PaymentRequest;
use contest::plan::Plan;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use wire::Cents;

/// Clients of a fixed rate (docs/results.md).
pub const CONNECTIONS: u32 = 64;

/// What each payment of a fixed rate is about.
const AMOUNT: Cents = Cents(1_990);

/// What a client does after a failure: one that cannot connect fails in no time.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// What is asked of the system.
#[derive(Clone, Debug)]
pub enum ProfileLoad {
    /// So many payments a second.
    Rate(u32),
    /// What the judge does.
    Plan(Box<Plan>),
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Payments that got a 2xx.
    pub accepted: u64,
    /// Payments that got anything else.
    pub failed: u64,
    /// How long it went on.
    pub took: Duration,
    /// Latency of accepted payments.
    pub latency: Latency,
}

impl ProfileLoad {
    /// Loads the system: at a fixed rate for `duration`, with a plan for as long as that is.
    ///
    /// # Errors
    /// When the judge cannot play.
    pub async fn put(&self, sides: &Sides, duration: Duration) -> anyhow::Result<Work> {
        let began = Instant::now();
        let tally = match self {
            Self::Rate(rate) => post_at(*rate, sides, duration).await,
            Self::Plan(plan) => {
                let judge = Judge::prepare((**plan).clone(), sides.clone()).await?;
                Box::pin(judge.play()).await?;
                judge.tally
            }
        };
        let accepted = tally.accepted_count();
        let failed = tally.posted_count() - accepted;
        Ok(Work { accepted, failed, took: began.elapsed(), latency: tally.post_latency() })
    }

    /// How it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Rate(rate) => format!("{rate} payments a second over {CONNECTIONS} connections"),
            Self::Plan(plan) => format!("the plan {}", plan.name),
        }
    }
}

async fn post_at(rate: u32, sides: &Sides, duration: Duration) -> Rc<Tally> {
    let start = Instant::now();
    let payments = duration.as_secs().saturating_mul(u64::from(rate));
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let tally = Rc::new(Tally::new(start, usize::try_from(payments).unwrap_or(0), seed));
    let gap = Duration::from_secs(1) / rate.max(1);
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let client = Client::new(sides.ours.clone(), TIMEOUT);
        let request = PaymentRequest::new(client.host(), AMOUNT);
        let first = start + gap * number;
        clients.spawn_local(post(
            client,
            request,
            Rc::clone(&tally),
            first,
            gap * CONNECTIONS,
            start + duration,
        ));
    }
    while clients.join_next().await.is_some() {}
    tally
}

async fn post(
    mut client: Client,
    mut request: PaymentRequest,
    tally: Rc<Tally>,
    first: Instant,
    gap: Duration,
    end: Instant,
) {
    let mut due = first;
    while due < end {
        sleep_until(due).await;
        due += gap;
        let (ticket, id) = tally.post();
        let outcome = client.exchange(request.with_id(id)).await.map(|answer| (answer.status, answer.took));
        match outcome {
            Ok((status, took)) => tally.answered(ticket, status, took),
            Err(failure) => {
                tally.failed(&failure);
                if !matches!(failure, Failure::TimedOut) {
                    sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }
}
