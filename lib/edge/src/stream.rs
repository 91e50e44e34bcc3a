//! The client's connection, whatever carries it: reading without taking, taking, writing, closing.

use crate::limits::READ_BYTES;
use crate::unix::UnixStream;
use nix::libc;
use nix::sys::socket::MsgFlags;
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The client's connection.
#[derive(Debug)]
pub enum Stream {
    /// From the listener on 9999, or handed off by lb.
    Tcp(TcpStream),
    /// From lb, or a process on this machine.
    Unix(UnixStream),
}

/// Calls the same method of whatever carries the connection.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    fn socket(&self) -> SockRef<'_> {
        either!(self, stream => SockRef::from(stream))
    }

    /// Waits until there is something to read, the end of the stream included.
    pub(crate) async fn readable(&self) {
        // An error is something to read, too.
        let _ = poll_fn(|cx| self.poll_readable(cx)).await;
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_readable(cx).map_ok(drop),
        }
    }

    /// Reads what has come, up to `block`, and leaves it in the socket if this is a look only. 0 is the end.
    ///
    /// A read that does not fill the block has emptied the socket, as tokio's own reads assume: readiness is cleared
    /// without another read that would only say so.
    pub(crate) fn read(&self, block: &mut [MaybeUninit<u8>], is_look: bool) -> io::Result<usize> {
        let flags = if is_look { MsgFlags::MSG_PEEK } else { MsgFlags::empty() };
        match self {
            Self::Tcp(stream) => {
                let mut read = None;
                let outcome = stream.try_io(Interest::READABLE, || {
                    let len = SockRef::from(stream).recv_with_flags(block, flags.bits())?;
                    read = Some(len);
                    if len < block.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                match (read, outcome) {
                    (Some(len), _) => Ok(len),
                    (None, outcome) => outcome.map(|()| 0),
                }
            }
            Self::Unix(stream) => stream.try_read_with(block.len(), |socket| {
                SockRef::from(socket).recv_with_flags(block, flags.bits())
            }),
        }
    }

    /// True when the client has said that nothing more will come, whatever is still in the socket.
    pub(crate) fn is_half_closed(&self, cx: &mut Context<'_>) -> bool {
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(Interest::READABLE)).as_mut().poll(cx),
            Self::Unix(stream) => stream.poll_readable(cx),
        };
        match ready {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// True when the client has ended its half of the connection, or all of it; asks the kernel.
    pub(crate) fn has_left(&self) -> bool {
        let left = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        let mut asked = libc::pollfd { fd: self.socket().as_raw_fd(), events: left, revents: 0 };
        // SAFETY: one entry of ours, and no time to wait. nix has no POLLRDHUP.
        let answered = unsafe { libc::poll(&raw mut asked, 1, 0) };
        answered > 0 && asked.revents & left != 0
    }

    /// Takes bytes out of the socket that a look has shown to be there.
    pub(crate) fn take(&self, len: usize) -> io::Result<()> {
        let mut block = [MaybeUninit::uninit(); READ_BYTES];
        let mut left = len;
        while left > 0 {
            let piece = left.min(READ_BYTES);
            // For TCP MSG_TRUNC means that nothing is copied.
            let taken = self.socket().recv_with_flags(&mut block[..piece], MsgFlags::MSG_TRUNC.bits())?;
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= taken;
        }
        Ok(())
    }

    /// Writes what there is room for, which may be nothing.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match either!(self, stream => stream.try_write(bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_room(cx),
        }
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                0 => poll_fn(|cx| self.poll_room(cx)).await?,
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Says that we write nothing more.
    pub(crate) fn end_writing(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// Reads and forgets, at most `max` bytes, until the client has closed.
    pub(crate) async fn drain(&self, max: usize) {
        let mut left = max;
        while left > 0 {
            self.readable().await;
            let mut block = [MaybeUninit::uninit(); READ_BYTES];
            match self.read(&mut block, false) {
                Ok(0) => return,
                Ok(len) => left = left.saturating_sub(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(_) => return,
            }
        }
    }

    /// The descriptor, out of our epoll, for another process.
    ///
    /// # Errors
    /// When the runtime does not let go of it.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Unix(stream) => stream.into_std().into(),
        })
    }

    /// Ends the connection, even if another process has a descriptor of it. It is taken out of our epoll first, because the
    /// registration would stay as long as any of those descriptors does.
    pub(crate) fn close(self) {
        // A connection that is broken already needs no end.
        let _ = self.into_fd().and_then(|fd| SockRef::from(&fd).shutdown(Shutdown::Both));
    }
}
