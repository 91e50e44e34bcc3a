//! The apis in their world: they connect, ask, carry calls to the processors, and are killed.

use super::{Connection, System, What, Who};
use crate::simulation::processor::Answered;
use api::desk::{Desk, Taken};
use api::evidence::{self, Answer};
use wire::Processor as Name;
use wire::frame::{FromApi, FromStore, Health, Lease, Outcome, decode};

impl System<'_> {
    pub(super) fn start_api(&mut self, api: usize) {
        let instance = self.chance.bits();
        let calls_max = self.chance.pick(&[3, 500]);
        let node = &mut self.apis[api];
        if node.desk.is_some() {
            return;
        }
        node.life += 1;
        node.desk = Some(Desk::new(instance, calls_max));
        let who = Who { api, life: node.life };
        self.schedule.after(0, What::Connect(who));
        self.schedule.after(0, What::ApiTick(who));
    }

    pub(super) fn at_api(&mut self, api: usize, what: What) -> Result<(), String> {
        if let Some(missed) = &mut self.apis[api].paused {
            missed.push(what);
            return Ok(());
        }
        let now_us = self.schedule.now_us();
        match what {
            What::ToApi { connection, bytes } if self.apis[api].connection == Some(connection) => {
                self.on_frames(api, connection, &bytes)?;
            }
            What::ApiLost { connection } => {
                self.connections.get_mut(&connection).expect("connections are kept").open_at_api = false;
                let node = &mut self.apis[api];
                if node.connection == Some(connection) {
                    node.connection = None;
                    let desk = node.desk.as_mut().expect("a connected api lives");
                    for (request, _) in desk.disconnect() {
                        node.asked.remove(&request);
                    }
                    let who = Who { api, life: node.life };
                    self.schedule.after(20_000, What::Connect(who));
                }
            }
            What::Connect(who) => self.connect(who),
            What::ApiTick(who) => {
                let node = &mut self.apis[api];
                let desk = node.desk.as_mut().expect("it lives");
                for (request, _) in desk.expire(now_us) {
                    node.asked.remove(&request);
                }
                for attempt in desk.sweep(now_us) {
                    node.begun_us.remove(&attempt);
                }
                desk.tell(&FromApi::Heartbeat);
                self.schedule.after(500_000, What::ApiTick(who));
            }
            What::Send(who, lease) => self.on_send(who, lease),
            What::Answer(_, lease, answered) => {
                if let Some(begun_us) = self.apis[api].begun_us.remove(&lease.attempt) {
                    let (outcome, status) = judge(&lease, &answered);
                    let desk = self.apis[api].desk.as_mut().expect("it lives");
                    desk.finish(&lease, outcome, status, now_us - begun_us);
                }
            }
            What::Healthy(_, processor, health) => {
                let desk = self.apis[api].desk.as_mut().expect("it lives");
                desk.tell(&FromApi::HealthReport { processor, health });
            }
            _ => (),
        }
        self.flush_api(api);
        Ok(())
    }

    pub(super) fn connect(&mut self, who: Who) {
        if self.apis[who.api].connection.is_some() {
            return;
        }
        if self.store.is_none() {
            self.schedule.after(20_000, What::Connect(who));
            return;
        }
        let number = self.connections.len() as u64;
        let now_us = self.schedule.now_us();
        let fresh =
            Connection { who, open_at_store: true, open_at_api: true, up_us: now_us, down_us: now_us };
        self.connections.insert(number, fresh);
        let node = &mut self.apis[who.api];
        node.connection = Some(number);
        node.desk.as_mut().expect("it lives").connect(now_us);
    }

    /// Moves what the desk says onto the link.
    pub(super) fn flush_api(&mut self, api: usize) {
        let node = &mut self.apis[api];
        let (Some(connection), Some(desk)) = (node.connection, &mut node.desk) else { return };
        let bytes = std::mem::take(desk.outbox());
        if !bytes.is_empty() {
            let known = self.connections.get_mut(&connection).expect("connections are kept");
            known.up_us = known.up_us.max(self.schedule.now_us() + self.chance.between(5, 300));
            self.schedule.at(known.up_us, What::ToStore { connection, bytes });
        }
    }

    pub(super) fn on_frames(&mut self, api: usize, connection: u64, bytes: &[u8]) -> Result<(), String> {
        let now_us = self.schedule.now_us();
        let who = Who { api, life: self.apis[api].life };
        let mut rest = bytes;
        while let Some((message, used)) = decode::<FromStore>(rest).map_err(|error| error.to_string())? {
            rest = &rest[used..];
            let node = &mut self.apis[api];
            match node.desk.as_mut().expect("it lives").take(message, now_us) {
                Taken::Nothing => (),
                Taken::Reply(request, reply) => {
                    let errand = node.asked.remove(&request);
                    self.on_reply(connection, request, errand, &reply)?;
                }
                Taken::Call(lease) => {
                    let delay_us = self.chance.between(1, 2_000);
                    self.schedule.after(delay_us, What::Send(who, lease));
                }
                Taken::Health(name) => self.ask_health(who, name),
            }
        }
        Ok(())
    }

    pub(super) fn ask_health(&mut self, who: Who, name: Name) {
        let processor = &self.processors[name];
        let (takes_us, health) = if processor.is_down {
            (1_000, Health::Unanswered)
        } else if processor.health_hangs {
            (12_000_000, Health::Unanswered)
        } else {
            let failing = processor.failing != processor.health_lies;
            let min_response_ms = u32::try_from(processor.delay_us / 1000).expect("small");
            (2_000, Health::Answered { failing, min_response_ms })
        };
        self.schedule.after(takes_us, What::Healthy(who, name, health));
    }

    pub(super) fn kill_api(&mut self, api: usize) {
        let node = &mut self.apis[api];
        if node.desk.take().is_none() {
            return;
        }
        node.paused = None;
        node.begun_us.clear();
        node.asked.clear();
        if let Some(connection) = node.connection.take() {
            self.connections.get_mut(&connection).expect("connections are kept").open_at_api = false;
            self.cut(connection);
        }
        let pause_us = self.chance.pick(&[1_000, 100_000, 4_000_000]);
        self.schedule.after(pause_us, What::ApiStart(api));
    }

    // Calls.

    pub(super) fn on_send(&mut self, who: Who, lease: Lease) {
        let now_us = self.schedule.now_us();
        self.apis[who.api].begun_us.insert(lease.attempt, now_us);
        if self.processors[lease.processor].is_down {
            let begun_us = self.apis[who.api].begun_us.remove(&lease.attempt).unwrap_or(now_us);
            let desk = self.apis[who.api].desk.as_mut().expect("it lives");
            desk.finish(&lease, Outcome::Unreachable, 0, now_us - begun_us);
            return;
        }
        let on_the_way_us = self.chance.between(20, 1_000);
        self.schedule.after(on_the_way_us, What::Arrive(who, lease));
    }

    pub(super) fn on_arrive(&mut self, who: Who, lease: Lease) {
        let delay_us = match lease.kind {
            wire::frame::CallKind::Post => self.processors[lease.processor].delay_us,
            wire::frame::CallKind::Get => 500,
        };
        match self.processors[lease.processor].arrive() {
            Some(answered) => self.answer(who, lease, answered),
            None => self.schedule.after(delay_us, What::Execute(who, lease)),
        }
    }

    pub(super) fn on_execute(&mut self, who: Who, lease: &Lease) -> Result<(), String> {
        let executed = self.processors[lease.processor].execute(lease, &mut self.chance);
        if let Some(late_us) = executed.late_insert_us {
            self.last_late_insert_us = self.last_late_insert_us.max(self.schedule.now_us() + late_us);
            self.schedule.after(late_us, What::LateInsert(*lease));
        }
        self.answer(who, *lease, executed.answered);
        self.ledgers.check_row(lease.id, &self.processors)
    }

    pub(super) fn answer(&mut self, who: Who, lease: Lease, answered: Answered) {
        let on_the_way_us = self.chance.between(20, 1_000);
        self.schedule.after(on_the_way_us, What::Answer(who, lease, answered));
    }
}

/// What the api makes of an answer: the code that is shipped.
fn judge(lease: &Lease, answered: &Answered) -> (Outcome, u16) {
    match answered {
        Answered::Reset => (Outcome::Lost, 0),
        Answered::With(status, announced, body) => {
            let content_length = announced.then_some(body.len() as u64);
            let answer = Answer { status: *status, content_length, body: Some(body.as_bytes()) };
            (evidence::outcome(lease.kind, lease.id, answer), *status)
        }
    }
}
