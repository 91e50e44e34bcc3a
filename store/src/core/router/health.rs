//! Health calls: when one is due, and what its answer is worth.

use super::Router;
use super::belief::Why;
use crate::core::calls::Calls;
use wire::Processor;
use wire::frame::Health;

/// Between two health calls to one processor: from the answer to the one before, which was sent earlier, or from a lease that
/// brought none (docs/contract.md: a processor answers one in 5 s, whichever client asks).
const HEALTH_INTERVAL_MS: u64 = 5_200;

/// A health call without an answer for so long is given up: the processor holds it for at most two windows.
const HEALTH_TIMEOUT_MS: u64 = 16_000;

impl Router {
    /// The processor whose health call is due, and marks it as made.
    pub fn take_health_call(&mut self, now_us: u64) -> Option<Processor> {
        for processor in Processor::BOTH {
            let belief = &mut self.beliefs[processor];
            let given_up = belief
                .health_out_since_us
                .is_some_and(|since| now_us.saturating_sub(since) > HEALTH_TIMEOUT_MS * 1000);
            if given_up {
                belief.health_out_since_us = None;
            }
            if belief.health_out_since_us.is_none() && now_us >= belief.health_next_us {
                belief.health_out_since_us = Some(now_us);
                belief.health_next_us = now_us + HEALTH_INTERVAL_MS * 1000;
                return Some(processor);
            }
        }
        None
    }

    /// The api that was asking is gone: nothing will come home.
    pub fn lose_health_call(&mut self, processor: Processor) {
        self.beliefs[processor].health_out_since_us = None;
    }

    /// A health call came home. What it says counts where no live answer is younger than the question.
    pub fn on_health(&mut self, processor: Processor, health: Health, calls: &Calls, now_us: u64) {
        let belief = &mut self.beliefs[processor];
        let Some(asked_us) = belief.health_out_since_us.take() else {
            return;
        };
        if health != Health::HandedBack {
            // It was sent at the latest when its answer came.
            belief.health_next_us = belief.health_next_us.max(now_us + HEALTH_INTERVAL_MS * 1000);
        }
        let Health::Answered { failing, min_response_ms } = health else {
            return;
        };
        belief.health_heard_us = now_us;
        if belief.last_answer_us > asked_us {
            return;
        }
        belief.heard = Why::Health { failing, delay_ms: min_response_ms.into() };
        belief.delay_us = u64::from(min_response_ms) * 1000;
        belief.deviation_us = 0;
        if failing || belief.refuses_all() {
            // Of what it refuses its health says nothing.
            belief.circuit_open = true;
        } else {
            // Its own word is no proof, but the first bad answer is soon there; and what is out by now is no longer late.
            belief.last_dispatch_us = None;
            belief.circuit_open = false;
            belief.watermark =
                calls.youngest(processor).map_or(belief.watermark, |at| at.max(belief.watermark));
            belief.last_answer_us = now_us;
        }
    }
}
