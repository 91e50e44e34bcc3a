//! The endpoints: `(method, path, body) -> reply` (docs/http.md). No HTTP library decides here.

use crate::config::Purge;
use crate::desk::Ask;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::payment::{Payment, PaymentError};
use crate::window;
use edge::SendError;
use edge::{Reply, Request};
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use std::rc::Rc;
use wire::PerProcessor;
use wire::Processor;
use wire::frame::{Accepted, FromStore, Totals};
use wire::secret::Secret;
use wire::{media, metrics};

/// Everything that an endpoint needs.
pub struct Routes {
    link: Rc<Link>,
    metrics: Rc<Metrics>,
    purge: Purge,
    purge_token: Option<Secret>,
}

impl Routes {
    /// The endpoints over this link.
    #[must_use]
    pub fn new(link: Rc<Link>, metrics: Rc<Metrics>, purge: Purge, purge_token: Option<Secret>) -> Self {
        Self { link, metrics, purge, purge_token }
    }

    /// Answers one request.
    pub async fn handle(self: Rc<Self>, request: Request) -> Reply {
        let reply = self.route(&request).await;
        self.metrics.count(reply.status.as_u16());
        reply
    }

    async fn route(&self, request: &Request) -> Reply {
        let (path, query) = (request.target.path(), request.target.query());
        match (path, &request.method) {
            ("/payments", &Method::POST) => self.pay(request).await,
            ("/payments-summary", &Method::GET | &Method::HEAD) => self.summarize(query).await,
            ("/purge-payments", &Method::POST) if self.purge != Purge::Off => self.purge(request).await,
            ("/health" | "/healthz", &Method::GET | &Method::HEAD) => self.health(),
            ("/metrics", &Method::GET | &Method::HEAD) => self.metrics(request).await,
            _ => self.misrouted(path, &request.method),
        }
    }

    async fn pay(&self, request: &Request) -> Reply {
        if let Some(reply) = unsupported(request) {
            return reply;
        }
        let payment = match Payment::parse(&request.body) {
            Ok(payment) => payment,
            Err(error) => return refuse(error),
        };
        match self.link.ask(Ask::Accept(payment.id, payment.cents)).await {
            Ok(FromStore::Accepted { accepted, .. }) => match accepted {
                Accepted::Recorded => Reply::empty(StatusCode::ACCEPTED),
                Accepted::Duplicate => Reply::empty(StatusCode::OK),
                Accepted::Mismatch => Reply::error(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "id_in_use",
                    "this correlationId was accepted with another amount; use a new one",
                ),
                Accepted::Full => Reply::unavailable("full", "nothing was recorded; retry later"),
            },
            other => no_answer(other),
        }
    }

    async fn summarize(&self, query: Option<&str>) -> Reply {
        let Some(bounds) = window::parse(query) else {
            return Reply::error(
                StatusCode::BAD_REQUEST,
                "bad_bound",
                "give from and to at most once each, as 2020-07-10T12:34:56.000Z",
            );
        };
        match self.link.ask(Ask::Summary(bounds)).await {
            Ok(FromStore::Summary { totals, .. }) => Reply::json(StatusCode::OK, summary(&totals)),
            // Reading changes nothing: whether the question arrived makes no difference.
            _ => no_answer(Err(SendError::NeverSent)),
        }
    }

    async fn purge(&self, request: &Request) -> Reply {
        if self.purge == Purge::Token && !is_token(request.token.as_ref(), self.purge_token.as_ref()) {
            return Reply::error(StatusCode::UNAUTHORIZED, "bad_token", "send the token in X-Rinha-Token");
        }
        match self.link.ask(Ask::Purge).await {
            Ok(FromStore::Purged { done: true, .. }) => {
                Reply::json(StatusCode::OK, r#"{"message":"all payments purged"}"#)
            }
            Ok(FromStore::Purged { done: false, .. }) => {
                Reply::unavailable("late", "nothing was purged: the purge came too late to the store; retry")
            }
            other => no_answer(other),
        }
    }

    fn health(&self) -> Reply {
        if self.link.is_welcomed() {
            Reply::json(StatusCode::OK, r#"{"status":"ok"}"#)
        } else {
            Reply::unavailable("no_store", "this api cannot reach the store; retry later")
        }
    }

    async fn metrics(&self, request: &Request) -> Reply {
        let ours = self.metrics.render();
        let text = match self.link.ask(Ask::Metrics).await {
            Ok(FromStore::Metrics { text, .. }) => metrics::join(&[&ours, &text]),
            // What can be told is told: a store that is away is itself worth a look.
            _ => ours,
        };
        Reply::metrics(text, request.accept.as_ref())
    }

    fn misrouted(&self, path: &str, method: &Method) -> Reply {
        let allow = match path {
            "/payments" => "POST, OPTIONS",
            "/purge-payments" if self.purge != Purge::Off => "POST, OPTIONS",
            "/payments-summary" | "/health" | "/healthz" | "/metrics" => "GET, HEAD, OPTIONS",
            "*" => "GET, HEAD, POST, OPTIONS",
            _ => {
                return Reply::error(
                    StatusCode::NOT_FOUND,
                    "unknown_path",
                    "POST /payments or GET /payments-summary",
                );
            }
        };
        let reply = if method == Method::OPTIONS {
            Reply::empty(StatusCode::NO_CONTENT)
        } else {
            Reply::error(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "use a method that Allow lists")
        };
        Reply { allow: Some(HeaderValue::from_static(allow)), ..reply }
    }
}

/// A body that says it is something else than plain JSON.
fn unsupported(request: &Request) -> Option<Reply> {
    let is_plain = request.content_encoding.is_none();
    let is_json = request.content_type.as_ref().is_none_or(|value| media::is_json(value.as_bytes()));
    (!is_plain || !is_json).then(|| {
        let message = "send plain JSON as application/json";
        Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message)
    })
}

fn is_token(given: Option<&HeaderValue>, expected: Option<&Secret>) -> bool {
    given.zip(expected).is_some_and(|(given, expected)| expected.is(given.as_bytes()))
}

fn refuse(error: PaymentError) -> Reply {
    match error {
        PaymentError::Malformed => Reply::error(
            StatusCode::BAD_REQUEST,
            "bad_payment",
            "send one JSON object with the string correlationId and the number amount, each once",
        ),
        PaymentError::BadId => {
            Reply::error(StatusCode::BAD_REQUEST, "bad_id", "send correlationId as a UUID with hyphens")
        }
        PaymentError::BadAmount(error) => {
            Reply::error(StatusCode::UNPROCESSABLE_ENTITY, "bad_amount", &error.to_string())
        }
    }
}

/// The store is away, or said something that answers another question.
fn no_answer(answer: Result<FromStore, SendError>) -> Reply {
    match answer {
        Err(SendError::NeverSent) => Reply::unavailable("no_store", "nothing was recorded; retry later"),
        Err(SendError::Unknown) | Ok(_) => Reply::unknown(),
    }
}

fn summary(totals: &PerProcessor<Totals>) -> String {
    let part = |processor: Processor| {
        let Totals { count, cents } = totals[processor];
        format!(r#""{processor}":{{"totalRequests":{count},"totalAmount":{cents}}}"#)
    };
    format!("{{{},{}}}", part(Processor::Default), part(Processor::Fallback))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Cents;

    #[test]
    fn a_summary_reads_as_the_contract_shows_it() {
        let default = Totals { count: 43_236, cents: Cents(41_554_234_598) };
        let totals = PerProcessor([default, Totals::default()]);
        let expected = r#"{"default":{"totalRequests":43236,"totalAmount":415542345.98},"fallback":{"totalRequests":0,"totalAmount":0.00}}"#;
        assert_eq!(summary(&totals), expected);
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let secret = |text| Secret::parse(text).unwrap();
        let given = HeaderValue::from_static("secret");
        assert!(is_token(Some(&given), Some(&secret("secret"))));
        assert!(!is_token(Some(&given), Some(&secret("secreT"))));
        assert!(!is_token(Some(&HeaderValue::from_static("")), Some(&secret("secret"))));
        assert!(!is_token(None, Some(&secret("secret"))));
        assert!(!is_token(Some(&given), None));
    }
}
