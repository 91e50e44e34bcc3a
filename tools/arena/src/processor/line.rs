//! The connection of one caller, as it is or broken on purpose.
//!
//! What breaks between two bytes cannot be said by a library that writes whole answers. So every connection of a
//! processor goes through a [`Line`], which passes everything on until a [`Break`] is set for its next answer, or until
//! a request is to end before it was read whole. A reset is a close without lingering: the kernel sends RST.

use super::misbehaviour::{Conduct, Ending};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a request for a payment begins with; nothing else is ever cut.
const PAYMENT: &[u8] = b"POST /payments ";

/// What floods are made of, so many bytes at a time.
const FILLER: &[u8] = &[b'x'; 16 * 1024];

/// What happens to the next answer.
#[derive(Debug)]
pub(super) enum Break {
    /// It ends after `left` bytes.
    Cut { left: usize, ending: Ending },
    /// These bytes come in its place, then so many more that mean nothing, then the end.
    Replace { bytes: Bytes, filler: u64 },
}

/// The break of one connection, set by the call that answers on it.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    is_set: AtomicBool,
    next: Mutex<Option<Break>>,
}

impl Breaker {
    pub(super) fn set(&self, next: Option<Break>) {
        self.is_set.store(next.is_some(), Ordering::Relaxed);
        *self.next.lock().expect("no holder panics") = next;
    }

    /// The ending of an answer that was cut right at its end.
    fn ending_due(&self) -> Option<Ending> {
        if !self.is_set.load(Ordering::Relaxed) {
            return None;
        }
        match *self.next.lock().expect("no holder panics") {
            Some(Break::Cut { left: 0, ending }) => Some(ending),
            _ => None,
        }
    }
}

/// A connection that can be broken.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    breaker: Arc<Breaker>,
    conduct: Arc<Conduct>,
    is_over: bool,
}

impl Line {
    pub(super) fn new(stream: TcpStream, breaker: Arc<Breaker>, conduct: Arc<Conduct>) -> Self {
        Self { stream, breaker, conduct, is_over: false }
    }

    /// The connection ends when its owner, told by the error, drops it.
    fn end(&mut self, ending: Ending) -> io::Error {
        self.is_over = true;
        if ending == Ending::Reset {
            // Fails on a connection that is gone already.
            let _ = self.stream.set_zero_linger();
        }
        io::ErrorKind::ConnectionAborted.into()
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<usize>> {
        let breaker = Arc::clone(&self.breaker);
        let mut next = breaker.next.lock().expect("no holder panics");
        match next.as_mut() {
            None => Pin::new(&mut self.stream).poll_write(cx, answer),
            Some(Break::Cut { left: 0, ending }) => Poll::Ready(Err(self.end(*ending))),
            Some(Break::Cut { left, .. }) => {
                let part = &answer[..answer.len().min(*left)];
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, part))?;
                *left -= written;
                Poll::Ready(Ok(written))
            }
            Some(Break::Replace { bytes, filler }) => loop {
                if bytes.is_empty() {
                    if *filler == 0 {
                        return Poll::Ready(Err(self.end(Ending::Close)));
                    }
                    let len = usize::try_from(*filler).unwrap_or(usize::MAX).min(FILLER.len());
                    *filler -= len as u64;
                    *bytes = Bytes::from_static(&FILLER[..len]);
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                bytes.advance(written);
            },
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if line.is_over {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut line.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        // A caller writes a payment at once, and it is shorter than the buffer, so this is all of it.
        if read.starts_with(PAYMENT)
            && let Some((len, ending)) = line.conduct.in_request(read.len())
        {
            buf.set_filled(before + len);
            let error = line.end(ending);
            if len == 0 {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let line = self.get_mut();
        if line.is_over {
            // No server answers a request whose end it has not read.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if line.breaker.is_set.load(Ordering::Relaxed) {
            return line.poll_broken(cx, buf);
        }
        Pin::new(&mut line.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if let Some(ending) = line.breaker.ending_due() {
            return Poll::Ready(Err(line.end(ending)));
        }
        Pin::new(&mut line.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
