//! A Unix stream socket that is not woken when the other side reads.
//!
//! Whenever one side of a Unix socket reads, the kernel wakes a process that watches the other side for room to write
//! (`unix_write_space`), and tokio's own stream watches for that all the time: a message then costs its sender a wake-up
//! when it is read, in the middle of what its receiver does with it. TCP does so only after a write that found no room.
//! Here too: what comes is watched always, room only from such a write until there is some.

use socket2::SockRef;
use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::UnixListener;

/// A connected Unix socket inside a tokio runtime.
#[derive(Debug)]
pub struct UnixStream {
    socket: AsyncFd<Socket>,
    /// A second descriptor that is watched for room, while there is none.
    room: RefCell<Option<Box<AsyncFd<OwnedFd>>>>,
}

impl UnixStream {
    /// Takes a connected socket, which does not block, into the runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn from_std(socket: Socket) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE)?, room: RefCell::default() })
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when too many wait there to be accepted.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        // tokio's connects without blocking, and no task reads before that is done.
        Self::from_std(tokio::net::UnixStream::connect(path).await?.into_std()?)
    }

    /// The next connection that comes to `listener`.
    ///
    /// # Errors
    /// What the system says; another connection may be accepted all the same.
    pub async fn accept(listener: &UnixListener) -> io::Result<Self> {
        let (stream, _) = listener.accept().await?;
        Self::from_std(stream.into_std()?)
    }

    /// The socket, out of the runtime.
    #[must_use]
    pub fn into_std(self) -> Socket {
        self.socket.into_inner()
    }

    /// Waits until there is something to read, the end of the stream included, and tells which.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn readable(&self) -> io::Result<Ready> {
        Ok(self.socket.readable().await?.ready())
    }

    /// [`Self::readable`] as a poll.
    ///
    /// # Errors
    /// As [`Self::readable`].
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.socket.poll_read_ready(cx).map_ok(|ready| ready.ready())
    }

    /// Reads what has come with `read`, which is given a block of `block_len` bytes and tells how many it has filled; 0 is
    /// the end. A read that does not fill the block has emptied the socket, as tokio's own reads assume: readiness is
    /// cleared without another read that would only say so.
    ///
    /// # Errors
    /// Those of `read`; `WouldBlock` also when there is nothing.
    pub fn try_read_with(
        &self,
        block_len: usize,
        read: impl FnOnce(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut filled = None;
        let outcome = self.socket.try_io(Interest::READABLE, |socket| {
            let len = read(socket)?;
            filled = Some(len);
            if 0 < len && len < block_len { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
        });
        filled.map_or(outcome, Ok)
    }

    /// Reads what has come into `block`; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    pub fn try_read(&self, block: &mut [u8]) -> io::Result<usize> {
        self.try_read_with(block.len(), |mut socket| socket.read(block))
    }

    /// Reads what has come into the room that `held` has left, behind what is in it; 0 is the end, or that there is no room.
    ///
    /// # Errors
    /// As [`Self::try_read`].
    pub fn try_read_buf(&self, held: &mut Vec<u8>) -> io::Result<usize> {
        let room = held.spare_capacity_mut();
        let len = self.try_read_with(room.len(), |socket| SockRef::from(socket).recv(room))?;
        // SAFETY: the kernel has written so many bytes into the room.
        unsafe { held.set_len(held.len() + len) };
        Ok(len)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; [`Self::poll_room`] tells when that is over.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.note_room(self.socket.get_ref().write(bytes))
    }

    /// [`Self::try_write`] of several pieces.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    pub fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.note_room(self.socket.get_ref().write_vectored(parts))
    }

    /// A write has succeeded, so there is room, and no task watches for it any more.
    fn note_room(&self, written: io::Result<usize>) -> io::Result<usize> {
        if written.is_ok() {
            self.room.borrow_mut().take();
        }
        written
    }

    /// Ready when there is room again. To be asked only after a write that found none.
    ///
    /// # Errors
    /// When there is no descriptor left to watch it with.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.room.borrow_mut();
        let watched = match room.take() {
            Some(watched) => watched,
            None => {
                let descriptor = self.as_fd().try_clone_to_owned()?;
                Box::new(watch(descriptor, Interest::WRITABLE)?)
            }
        };
        let is_ready = watched.poll_write_ready(cx).map_ok(drop);
        if is_ready.is_pending() {
            *room = Some(watched);
        }
        is_ready
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_room(cx))?,
                written => return Poll::Ready(written),
            }
        }
    }
}

fn watch<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: both kinds of `T` here own the one descriptor that they tell of, and keep it until they are dropped.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }
        .map_err(|error| io::Error::other(error.to_string()))
}

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl AsyncRead for UnixStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        block: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_readable(cx))?;
            match self.try_read(block.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Ok(len) => {
                    block.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for UnixStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, || self.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, || self.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::Handle;
    use tokio::time::sleep;

    /// Ours, inside the runtime, and theirs, which blocks.
    fn pair() -> (UnixStream, Socket) {
        let (ours, theirs) = Socket::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (UnixStream::from_std(ours).unwrap(), theirs)
    }

    #[tokio::test(flavor = "local")]
    async fn no_task_wakes_when_the_other_side_reads() {
        let (ours, mut theirs) = pair();
        let reader = thread::spawn(move || {
            for _ in 0..ROUNDS {
                // Our side has gone to sleep by then.
                thread::sleep(Duration::from_millis(1));
                theirs.read_exact(&mut [0]).unwrap();
            }
            theirs.write_all(b"x").unwrap();
            theirs
        });
        let quiet = rounds(&ours, || ()).await;
        let read = rounds(&ours, || assert_eq!(ours.try_write(b"x").unwrap(), 1)).await;
        assert!(read < quiet + ROUNDS / 2, "{read} wake-ups instead of {quiet}");
        let _theirs = reader.join().unwrap();
        ours.readable().await.unwrap();
    }

    const ROUNDS: u64 = 100;

    /// How often the runtime has slept and woken up in so many rounds of doing something and waiting a little.
    async fn rounds(ours: &UnixStream, act: impl Fn()) -> u64 {
        let count = || Handle::current().metrics().worker_park_unpark_count(0);
        let before = count();
        for _ in 0..ROUNDS {
            act();
            tokio::select! {
                biased;
                () = sleep(Duration::from_millis(5)) => (),
                ready = ours.readable() => assert!(ready.unwrap().is_readable()),
            }
        }
        count() - before
    }

    #[tokio::test(flavor = "local")]
    async fn bytes_without_room_are_written_once_there_is_some() {
        let (mut ours, mut theirs) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            received
        });
        ours.write_all(&sent).await.unwrap();
        assert!(ours.room.borrow().is_none(), "room is not watched any more");
        ours.shutdown().await.unwrap();
        assert!(reader.join().unwrap() == sent);
    }

    #[tokio::test(flavor = "local")]
    async fn everything_is_read_up_to_the_end_of_the_stream() {
        let (mut ours, mut theirs) = pair();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| u8::try_from(number % 241).unwrap()).collect();
        let expected = sent.clone();
        let writer =
            thread::spawn(move || sent.chunks(7_001).for_each(|piece| theirs.write_all(piece).unwrap()));
        let mut received = Vec::new();
        ours.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
        writer.join().unwrap();
    }

    #[tokio::test(flavor = "local")]
    async fn a_reader_that_is_gone_is_an_error_also_while_there_is_no_room() {
        let (mut ours, theirs) = pair();
        let leaver = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(theirs);
        });
        let error = ours.write_all(&vec![0; 4_000_000]).await.unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
            "{error}"
        );
        leaver.join().unwrap();
    }
}
