//! The judge, the check and the report against simulated processors and an entry small enough to be read at once.
//!
//! The entry settles each payment before it answers, always at the default processor and never anywhere else, and it
//! can be told to cheat in one way. What the report then says has to be that. A fight is four seconds of real time,
//! because processors and entry are real servers on loopback; nothing waits for anything but the judge.

use arena::client::{Client, request};
use arena::endpoint::Endpoint;
use arena::judge::{Judge, Sides};
use arena::processor::{self, ProcessorConfig};
use arena::reckoning::Reckoning;
use arena::report::{FaultLists, Report};
use contest::plan::{Condition, Plan, Stage};
use std::cell::{Cell, RefCell};
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use wire::{Bounds, PerProcessor, Processor, Timestamp};

/// How long sums that agree may take to be read, so that a hang ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The same for an entry that cheats: its sums never agree, and the entry settles before it answers.
const CHEAT_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// What the entry does wrong, with every tenth payment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cheat {
    Nothing,
    Lose,
    Double,
    Invent,
    Alter,
    Refuse,
    Forget,
}

/// The entry: its processors, its book of settled payments, and its cheat.
struct Entry {
    theirs: PerProcessor<SocketAddr>,
    settled: RefCell<Vec<Timestamp>>,
    cheat: Cheat,
    payments: Cell<u32>,
}

impl Entry {
    async fn start(theirs: PerProcessor<SocketAddr>, cheat: Cheat) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let entry = Rc::new(Self { theirs, settled: RefCell::default(), cheat, payments: Cell::new(0) });
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawn_local(Rc::clone(&entry).serve(stream));
            }
        });
        addr
    }

    async fn serve(self: Rc<Self>, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut processors = self.theirs.0.map(|addr| Client::new(addr.into(), Duration::from_secs(5)));
        // The judge writes a request at once, and it is shorter than this, so one read has all of it.
        let mut buffer = [0; 4_096];
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            let text = std::str::from_utf8(&buffer[..len]).unwrap().to_owned();
            let (status, body) = self.answer(&text, &mut processors).await;
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, text: &str, processors: &mut [Client; 2]) -> (u16, String) {
        if text.starts_with("POST /purge-payments") {
            self.settled.borrow_mut().clear();
            return (200, String::new());
        }
        let Some((_, body)) = text.split_once("\r\n\r\n").filter(|_| text.starts_with("POST /payments"))
        else {
            return (200, self.summary(text));
        };
        self.payments.set(self.payments.get() + 1);
        let is_turn = self.payments.get().is_multiple_of(10);
        let cheat = if is_turn { self.cheat } else { Cheat::Nothing };
        self.pay(body, cheat, processors).await
    }

    async fn pay(&self, body: &str, cheat: Cheat, [default, fallback]: &mut [Client; 2]) -> (u16, String) {
        let now = Timestamp::from_ms(Timestamp::now().as_ms());
        let body = body.strip_suffix('}').unwrap();
        let payment = format!(r#"{body},"requestedAt":"{now}"}}"#);
        let send = |payment: &str| request("POST", "/payments", "processor", None, payment);
        if cheat == Cheat::Lose {
            return (202, String::new());
        }
        let sent = if cheat == Cheat::Alter { payment.replace(":19.9,", ":19.8,") } else { payment.clone() };
        let status = default.exchange(&send(&sent)).await.unwrap().status;
        if status == 200 && cheat == Cheat::Double {
            fallback.exchange(&send(&payment)).await.unwrap();
        }
        if cheat == Cheat::Invent {
            let another = uuid::Uuid::new_v4();
            let other = format!(r#"{{"correlationId":"{another}","amount":19.9,"requestedAt":"{now}"}}"#);
            fallback.exchange(&send(&other)).await.unwrap();
        }
        if status == 200 && cheat != Cheat::Forget {
            self.settled.borrow_mut().push(now);
        }
        let status = if status == 200 { 202 } else { 503 };
        (if cheat == Cheat::Refuse { 503 } else { status }, String::new())
    }

    fn summary(&self, text: &str) -> String {
        let bound = |name: &str| {
            let (_, rest) = text.split_once(name)?;
            Timestamp::parse(rest.split(['&', ' ']).next()?)
        };
        let bounds = Bounds { from: bound("from="), to: bound("to=") };
        let count = self.settled.borrow().iter().filter(|time| bounds.contains(**time)).count();
        let amount = f64::from(u32::try_from(count).unwrap()) * 19.9;
        let sum = |count, amount| format!(r#"{{"totalRequests":{count},"totalAmount":{amount:.2}}}"#);
        format!(r#"{{"default":{},"fallback":{}}}"#, sum(count, amount), sum(0, 0.0))
    }
}

/// Three seconds of the preview, the default processor failing in the last.
fn short_plan() -> Plan {
    let mut plan = Plan::preview();
    let well = Condition::default();
    let stage = |from_ms, default| Stage {
        from: Duration::from_millis(from_ms),
        condition: PerProcessor([default, well]),
    };
    plan.stages = vec![
        stage(200, Condition { delay_ms: 5, failing: false }),
        stage(2_000, Condition { delay_ms: 0, failing: true }),
    ];
    (plan.duration, plan.users) = (Duration::from_secs(3), 40);
    // Everything is in one thread: no payment waits for as long as the margin between its row and the entry's book.
    (plan.audit.every_ms, plan.audit.margin_ms) = (500, 1_000);
    plan
}

async fn fight(cheat: Cheat) -> Report {
    let mut theirs = Vec::new();
    for name in Processor::BOTH {
        let listener = processor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        theirs.push(listener.local_addr().unwrap());
        tokio::spawn(processor::serve(listener, ProcessorConfig::new(name), pending()));
    }
    let theirs = PerProcessor([theirs[0], theirs[1]]);
    let ours = Entry::start(theirs, cheat).await;
    let sides =
        Sides { ours: ours.into(), theirs: PerProcessor(theirs.0.map(Endpoint::from)), token: "123".into() };
    let judge = Judge::prepare(short_plan(), sides.clone()).await.unwrap();
    let end = judge.play().await.unwrap();
    let posted = judge.tally.payments();
    let drain_timeout = if cheat == Cheat::Nothing { DRAIN_TIMEOUT } else { CHEAT_DRAIN_TIMEOUT };
    let reckoning = Reckoning::make(&sides, &posted, judge.plan.amount, drain_timeout).await.unwrap();
    Report::new(&judge, &end, &reckoning, Vec::new(), Vec::new())
}

fn counts(report: &Report) -> [usize; 5] {
    let FaultLists { lost, doubled, invented, altered, contradicted, .. } =
        report.check.faults.clone().unwrap();
    [lost.count, doubled.count, invented.count, altered.count, contradicted.count]
}

#[tokio::test(flavor = "local")]
async fn an_honest_entry_is_found_honest_and_never_beats_the_clairvoyant() {
    let report = fight(Cheat::Nothing).await;
    assert_eq!(counts(&report), [0; 5], "{report}");
    assert!(report.audits.len() >= 6 && report.audits.iter().all(|audit| audit.difference == 0), "{report}");
    assert_eq!((report.exit_status(), report.score.lag, report.score.fine), (0, 0, 0.0), "{report}");
    let refused = report.requests.failed.get("status 503").copied().unwrap_or(0);
    assert_eq!(report.requests.accepted + refused, report.requests.posted);
    assert!(refused > 0, "the last second fails: {report}");
    assert_eq!(report.settled.default.count, report.requests.accepted);
    assert_eq!(report.clairvoyant.late_conceded, 0);
    let share = report.clairvoyant.share_percent;
    assert!((99.99..=100.0).contains(&share), "all that was accepted went to the cheap processor: {share}");
    // Users begin all along the ramp and then post each second, on a slow machine less often.
    assert!((40..=90).contains(&report.requests.posted), "{report}");
    assert_eq!(u64::from(report.requests.users), report.requests.connections);
    assert_eq!(report.post.count, report.requests.accepted);
    assert!(report.judged.count > report.post.count, "audits, stages, purges and sums count too");
}

#[tokio::test(flavor = "local")]
async fn each_cheat_is_found_for_what_it_is() {
    let cheats =
        [(Cheat::Lose, 0), (Cheat::Double, 1), (Cheat::Invent, 2), (Cheat::Alter, 3), (Cheat::Refuse, 4)];
    let fights = cheats.map(|(cheat, at)| (cheat, at, spawn_local(fight(cheat))));
    for (cheat, at, report) in fights {
        let report = report.await.unwrap();
        let found = counts(&report);
        // Every tenth of at least forty.
        assert!(found[at] >= 1, "{cheat:?}: {report}");
        assert_eq!(found.iter().sum::<usize>(), found[at], "{cheat:?}: {report}");
        assert_eq!(report.exit_status(), 3, "{cheat:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_summary_that_forgets_is_fined() {
    let report = fight(Cheat::Forget).await;
    assert_eq!(counts(&report), [0; 5], "{report}");
    assert!(report.audits.iter().any(|audit| audit.difference > 0), "{report}");
    assert_eq!(report.score.fine, 0.35);
    assert_eq!(report.check.drained_ms, None, "the sums never agree");
    assert_eq!(report.exit_status(), 3);
}
