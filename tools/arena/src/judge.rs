//! The judge: everything that it does between its first request and its last (docs/contract.md).
//!
//! Purges all three sides, then lets three things run at once from the same instant: users that ramp up, one auditor,
//! and the changes of the stages, each of them four requests one after the other as the original makes them. It is over
//! when the last user has slept its last second; then, at once, the sums are taken. What the judge asks for and does
//! not get counts as zeros at the end, as it does in an audit.
//!
//! Beside what the original keeps, it keeps when each change of a processor was made, which is what the clairvoyant has
//! to know. A change for the worse counts from its answer on and one for the better from its request on: what lies
//! between is not known, and the clairvoyant gets the benefit.

use crate::audit::{Audit, Auditor};
use crate::client::{Client, TIMEOUT};
use crate::endpoint::Endpoint;
use crate::sides::{AskError, Ours, TheirSum, Theirs};
use crate::tally::Tally;
use crate::user::{PaymentRequest, User};
use anyhow::Context;
use contest::clairvoyant::{Steps, Timeline};
use contest::plan::{Amounts, Plan, Stage};
use contest::score::Settled;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::{Bounds, PerProcessor, Processor, Timestamp};

/// How long `GET /payments-summary` may take to answer 200 before a fight, and how often it is asked. The original
/// tries fifteen times, five seconds apart.
const READY_TIMEOUT: Duration = Duration::from_secs(75);
const READY_PAUSE: Duration = Duration::from_millis(100);

/// The sides of a fight, and how to speak to the processors.
#[derive(Clone, Debug)]
pub struct Sides {
    /// The entry under test.
    pub ours: Endpoint,
    /// The processors.
    pub theirs: PerProcessor<Endpoint>,
    /// The processors' administrators' word.
    pub token: String,
}

/// A run that is about to begin or goes on.
#[derive(Clone, Debug)]
pub struct Judge {
    /// What is played.
    pub plan: Rc<Plan>,
    /// The sides that are asked.
    pub sides: Sides,
    /// When it begins.
    pub start: Instant,
    /// The same by the clock on the wall.
    pub start_wall: Timestamp,
    /// What users and auditor saw.
    pub tally: Rc<Tally>,
    /// The comparisons so far.
    pub audits: Rc<RefCell<Vec<Audit>>>,
    timelines: Rc<RefCell<PerProcessor<Timeline>>>,
}

/// What was counted right after the last user.
#[derive(Clone, Debug)]
pub struct End {
    /// What counts for the score.
    pub settled: PerProcessor<Settled>,
    /// What the processors say that they keep, in per cent.
    pub fee_percent: PerProcessor<f64>,
    /// When the last of the sums had arrived, in microseconds since the start.
    pub at_us: u64,
    /// How the processors behaved.
    pub timelines: PerProcessor<Timeline>,
    /// Sums that are missing, and why.
    pub failures: Vec<String>,
}

impl Sides {
    /// The entry, asked with the judge's timeout and without entering it anywhere.
    #[must_use]
    pub fn ours(&self, tally: Option<Rc<Tally>>) -> Ours {
        Ours::new(self.ours.clone(), TIMEOUT, tally)
    }

    /// A processor, asked the same way.
    #[must_use]
    pub fn theirs(&self, processor: Processor, tally: Option<Rc<Tally>>) -> Theirs {
        Theirs::new(self.theirs[processor].clone(), &self.token, TIMEOUT, tally)
    }

    /// Makes both processors quick and well.
    ///
    /// # Errors
    /// When one cannot be told so.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for processor in Processor::BOTH {
            let mut theirs = self.theirs(processor, None);
            let healed = async {
                theirs.set_delay(0).await?;
                theirs.set_failing(false).await
            };
            healed.await.with_context(|| format!("cannot configure the {processor} processor"))?;
        }
        Ok(())
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let mut ours = self.ours(None);
        let answers = async {
            while let Err(error) = ours.summary(Bounds::default()).await {
                tracing::debug!(%error, "GET /payments-summary");
                sleep(READY_PAUSE).await;
            }
        };
        timeout(READY_TIMEOUT, answers).await.context("GET /payments-summary did not answer 200")
    }
}

impl Judge {
    /// Waits until we answer, and prepares a run that begins at once.
    ///
    /// The processors are healed first. The original need not do so, because its processors are always fresh ones.
    ///
    /// # Errors
    /// When we do not answer or a processor cannot be purged.
    pub async fn prepare(plan: Plan, sides: Sides) -> anyhow::Result<Self> {
        sides.heal().await?;
        sides.wait_until_ready().await?;
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let tally = Rc::new(Tally::new(Instant::now(), payments_max(&plan), seed));
        for processor in Processor::BOTH {
            let purged = sides.theirs(processor, Some(Rc::clone(&tally))).purge().await;
            purged.with_context(|| format!("cannot purge the {processor} processor"))?;
        }
        if let Err(error) = sides.ours(Some(Rc::clone(&tally))).purge().await {
            tracing::warn!(%error, "POST /purge-payments; the judge tolerates that");
        }
        let well = || Timeline { delay_us: Steps::new(0), failing: Steps::new(false) };
        let timelines = Rc::new(RefCell::new(PerProcessor([well(), well()])));
        let (start, start_wall) = (tally.restart(), Timestamp::now());
        Ok(Self { plan: Rc::new(plan), sides, start, start_wall, tally, audits: Rc::default(), timelines })
    }

    /// Plays the plan to its end and takes the sums.
    ///
    /// # Errors
    /// When a processor cannot be put into its next state; the original aborts then too.
    pub async fn play(&self) -> anyhow::Result<End> {
        let end = self.start + self.plan.duration;
        let mut users = JoinSet::new();
        let request = PaymentRequest::new(&self.sides.ours.host, self.plan.amount);
        for begin in self.plan.user_starts() {
            let client = Client::new(self.sides.ours.clone(), TIMEOUT);
            let user = User { client, request: request.clone(), tally: Rc::clone(&self.tally) };
            users.spawn_local(user.run(self.start + begin, end));
        }
        let users = async {
            while users.join_next().await.is_some() {}
            Ok(())
        };
        let auditor = async {
            self.auditor().run(end).await;
            Ok(())
        };
        tokio::try_join!(users, Box::pin(auditor), Box::pin(self.change_stages()))?;
        Ok(self.count().await)
    }

    fn auditor(&self) -> Auditor {
        let side = |processor| self.sides.theirs(processor, Some(Rc::clone(&self.tally)));
        Auditor {
            rule: self.plan.audit,
            ours: self.sides.ours(Some(Rc::clone(&self.tally))),
            theirs: PerProcessor::from_fn(side),
            tally: Rc::clone(&self.tally),
            audits: Rc::clone(&self.audits),
        }
    }

    async fn change_stages(&self) -> anyhow::Result<()> {
        let mut theirs = PerProcessor::from_fn(|at| self.sides.theirs(at, Some(Rc::clone(&self.tally))));
        for stage in &self.plan.stages {
            sleep_until(self.start + stage.from).await;
            self.change_stage(stage, &mut theirs)
                .await
                .context("cannot put a processor into its next state")?;
        }
        Ok(())
    }

    /// Both delays, then both flags, one after the other.
    async fn change_stage(&self, stage: &Stage, theirs: &mut PerProcessor<Theirs>) -> Result<(), AskError> {
        for processor in Processor::BOTH {
            let delay_ms = stage.condition[processor].delay_ms;
            let (sent, answered) = theirs[processor].set_delay(delay_ms).await?;
            let delays = &mut self.timelines.borrow_mut()[processor].delay_us;
            let is_worse = delay_ms * 1_000 > delays.last();
            delays
                .change(self.tally.since_start_us(if is_worse { answered } else { sent }), delay_ms * 1_000);
        }
        for processor in Processor::BOTH {
            let is_failing = stage.condition[processor].failing;
            let (sent, answered) = theirs[processor].set_failing(is_failing).await?;
            let at = self.tally.since_start_us(if is_failing { answered } else { sent });
            self.timelines.borrow_mut()[processor].failing.change(at, is_failing);
        }
        Ok(())
    }

    async fn count(&self) -> End {
        let now = Timestamp::now().as_ms();
        let from = Timestamp::from_ms(now.saturating_sub(self.plan.end.window_ms));
        let bounds = Bounds { from: Some(from), to: Some(Timestamp::from_ms(now)) };
        let mut failures = Vec::new();
        let mut theirs = PerProcessor::<TheirSum>::default();
        for processor in Processor::BOTH {
            let sum = self.sides.theirs(processor, Some(Rc::clone(&self.tally))).summary(bounds).await;
            theirs[processor] = sum.unwrap_or_else(|error| {
                failures.push(format!("{processor}: {error}"));
                TheirSum::default()
            });
        }
        let settled = match self.plan.end.amounts {
            Amounts::Processors => PerProcessor(theirs.0.map(|sum| sum.settled)),
            Amounts::Ours => {
                let summary = self.sides.ours(Some(Rc::clone(&self.tally))).summary(bounds).await;
                summary.unwrap_or_else(|error| {
                    failures.push(format!("ours: {error}"));
                    PerProcessor::default()
                })
            }
        };
        End {
            settled,
            fee_percent: PerProcessor(theirs.0.map(|sum| sum.fee_percent)),
            at_us: self.tally.since_start_us(Instant::now()),
            timelines: self.timelines.borrow().clone(),
            failures,
        }
    }
}

/// More payments than a plan can post: on average half its users are there, and each posts less than once a second.
fn payments_max(plan: &Plan) -> usize {
    let seconds = usize::try_from(plan.duration.as_secs() + 2).unwrap_or(usize::MAX);
    let users = usize::try_from(plan.users).unwrap_or(usize::MAX);
    (users / 2 + 1).saturating_mul(seconds).min(PAYMENTS_RESERVED_MAX)
}

/// Space for payments taken beforehand: 320 MB, used only as they come. Longer plans grow beyond it as they go.
const PAYMENTS_RESERVED_MAX: usize = 10_000_000;
