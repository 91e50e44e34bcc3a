//! One api behind the balancer: its socket, and a pool of keep-alive connections to it.
//!
//! hyper's client hands a request back when it is certain that not a byte was written (the backend closed an idle
//! connection); that request goes on the next connection. A connection is returned to the pool once its answer is
//! whole, and the one used last is taken first.

use crate::balance::Load;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// Idle connections kept to one backend: as many requests as one may have in flight at a time under a fight's load.
const IDLE_MAX: usize = 256;

/// Why a request has no answer.
#[derive(Debug)]
pub enum SendError {
    /// The backend took no connection, or closed it unread: nothing was sent.
    Unreachable,
    /// It may have got the request.
    Unanswered,
}

/// A connection that is answering.
pub struct Answering {
    /// Head and body of the answer.
    pub response: Response<Incoming>,
    sender: SendRequest<Full<Bytes>>,
}

/// One api.
pub struct Backend {
    /// Its name, for logs and metrics.
    pub name: String,
    path: PathBuf,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    load: Cell<Load>,
    answered: Cell<u64>,
    failed: Cell<u64>,
}

impl Backend {
    /// A backend that nobody has spoken to yet.
    #[must_use]
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            path,
            idle: RefCell::default(),
            load: Cell::default(),
            answered: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    /// What balancing looks at.
    #[must_use]
    pub fn load(&self) -> Load {
        self.load.get()
    }

    /// Requests that it has answered, and that it failed to.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.answered.get(), self.failed.get())
    }

    /// Counts a request in until the returned value is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight<'_> {
        let load = self.load.get();
        self.load.set(Load { in_flight: load.in_flight + 1, ..load });
        InFlight(self)
    }

    /// Passes this backend over until then.
    pub fn mark_down(&self, until_ms: u64) {
        self.load.set(Load { down_until_ms: until_ms, ..self.load.get() });
    }

    /// True when it takes a connection now.
    pub async fn is_reachable(&self) -> bool {
        UnixStream::connect(&self.path).await.is_ok()
    }

    /// Sends a request and returns with the head of its answer.
    ///
    /// # Errors
    /// [`SendError`] tells what may be tried again.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answering, SendError> {
        loop {
            let idle = self.take_idle();
            let is_new = idle.is_none();
            let mut sender = match idle {
                Some(sender) => sender,
                None => match self.connect().await {
                    Ok(sender) => sender,
                    Err(_) => {
                        self.failed.set(self.failed.get() + 1);
                        return Err(SendError::Unreachable);
                    }
                },
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.answered.set(self.answered.get() + 1);
                    return Ok(Answering { response, sender });
                }
                Err(mut error) => match error.take_message() {
                    // A new connection that takes nothing: the backend is on its way out.
                    Some(_) if is_new => return Err(SendError::Unreachable),
                    Some(unsent) => request = unsent,
                    None => {
                        self.failed.set(self.failed.get() + 1);
                        return Err(SendError::Unanswered);
                    }
                },
            }
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = UnixStream::connect(&self.path).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors come back through the sender.
        tokio::task::spawn_local(async move { connection.await.ok() });
        Ok(sender)
    }

    /// Gives a connection back whose answer has been read to its end.
    pub async fn put_back(&self, answering: Answering) {
        let Answering { mut sender, response } = answering;
        drop(response);
        if sender.ready().await.is_ok() && self.idle.borrow().len() < IDLE_MAX {
            self.idle.borrow_mut().push(sender);
        }
    }
}

/// A request that a backend has not answered yet.
pub struct InFlight<'a>(&'a Backend);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let load = self.0.load.get();
        self.0.load.set(Load { in_flight: load.in_flight - 1, ..load });
    }
}
