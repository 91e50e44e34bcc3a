//! Kept connections to one callee, and what is certain about a request that got no answer.
//!
//! Never sent is only a request for which no connection could be made, or that hyper hands back because not a byte of it
//! was written; everything else that ends without an answer may have arrived. A kept connection that the callee has closed
//! is not taken: hyper knows of the end as soon as the runtime does. What the runtime has not heard of yet shows when
//! the request comes back unwritten, and it goes on the next connection, or no process reads it; so a request that
//! must not be sent twice goes on a connection of its own ([`Pool::send_alone`]).
//!
//! The connection used last is taken first: it is the likeliest to be alive, and the others grow old and are closed.

use bytes::Bytes;
use edge::SendError;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest head of an answer, and what hyper buffers of one: without it a callee that sends a head without end costs 418 KB
/// for each call. A processor's own has 200 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A connection with the head of an answer on it; the body follows.
#[derive(Debug)]
pub struct Answering {
    /// Head and body of the answer.
    pub response: Response<Incoming>,
    sender: SendRequest<Full<Bytes>>,
}

/// The connections to one callee that are not in use.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    idle_max: usize,
}

impl Pool {
    /// A pool that keeps at most so many.
    #[must_use]
    pub fn new(idle_max: usize) -> Self {
        Self { idle: RefCell::default(), idle_max }
    }

    /// Sends a request, on a kept connection or on one that `connect` makes, and returns with the head of its answer.
    /// Must run inside a [`tokio::runtime::LocalRuntime`].
    ///
    /// # Errors
    /// [`SendError`] tells what may be tried again.
    pub async fn send<S>(
        &self,
        mut request: Request<Full<Bytes>>,
        connect: impl AsyncFn() -> io::Result<S>,
    ) -> Result<Answering, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answering { response, sender }),
                Err(mut error) => request = error.take_message().ok_or(SendError::Unknown)?,
            }
        }
        self.send_alone(request, connect).await
    }

    /// The same on a fresh connection.
    ///
    /// # Errors
    /// As [`Pool::send`].
    pub async fn send_alone<S>(
        &self,
        request: Request<Full<Bytes>>,
        connect: impl AsyncFn() -> io::Result<S>,
    ) -> Result<Answering, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let stream = connect().await.map_err(|_| SendError::NeverSent)?;
        let handshake =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| SendError::NeverSent)?;
        // Its errors come back through the sender.
        tokio::task::spawn_local(async move { connection.await.ok() });
        match sender.try_send_request(request).await {
            Ok(response) => Ok(Answering { response, sender }),
            // A new connection that takes nothing: the callee is on its way out.
            Err(mut error) => Err(match error.take_message() {
                Some(_) => SendError::NeverSent,
                None => SendError::Unknown,
            }),
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

    /// Gives a connection back whose answer has been read to its end. False when it is of no more use.
    pub async fn put_back(&self, answering: Answering) -> bool {
        let Answering { response, mut sender } = answering;
        drop(response);
        let is_usable = sender.ready().await.is_ok() && self.idle.borrow().len() < self.idle_max;
        if is_usable {
            self.idle.borrow_mut().push(sender);
        }
        is_usable
    }
}
