//! The port where clients come.

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel completes before they are accepted: a burst of clients that all come at once.
const BACKLOG: i32 = 4_096;

/// How long a connection on which nothing has come is the kernel's alone, in seconds.
const SILENT_S: i32 = 1;

/// What the kernel keeps of a client's requests that is not taken, in bytes. By itself it lets this grow to some megabytes
/// for each connection, and a client decides how fast. Far less would not do: a request that is only looked at stays in a
/// packet of up to 64 KiB, all of which counts for as long as a byte of it is there, and beside it the rest must have room.
const RECEIVE_BUFFER_BYTES: usize = 128 << 10;

/// What the kernel keeps of answers that a client does not read, in bytes: more than the longest answer.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// `TCP_DEFER_ACCEPT`, tcp(7).
#[derive(Clone)]
struct DeferAccept;

nix::setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32, SetStruct<i32>);

/// Binds the clients' port. The kernel keeps at most [`RECEIVE_BUFFER_BYTES`] and [`SEND_BUFFER_BYTES`] for each client,
/// and as much again for its own bookkeeping (socket(7)); in a control group of version 2 that is memory of the group. The
/// listener is non-blocking; what else is set here, accepted sockets inherit.
///
/// A connection is there to be accepted once something has come on it, or after [`SILENT_S`]. Nearly every client that connects
/// asks at once, so the balancer is woken once for both, and the api finds the request when it gets the client.
///
/// When more than [`BACKLOG`] are in their silent second, the kernel remembers nothing of those that come then (SYN cookies).
/// They are accepted at once, but for as long as their cookie is good, a late acknowledgement of one that has gone can
/// make a connection without a peer. The idle timeout ends it.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    // Before it listens: the receive buffer decides on the window that is offered to clients.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    setsockopt(&socket, DeferAccept, &SILENT_S)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    /// Lets one client come in silence and then one that asks; tells whether that one is there to be accepted first.
    fn clients_with_a_request_come_first() -> bool {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let mut asking = TcpStream::connect(address).unwrap();
        asking.write_all(b"?").unwrap();
        let mut accepted = [(); 2].map(|()| listener.accept().unwrap().0);
        let peers = accepted.each_ref().map(|client| client.peer_addr().unwrap());
        let is_first = peers[0] == asking.local_addr().unwrap();
        let mut byte = [0];
        accepted[usize::from(!is_first)].read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"?");
        assert!(peers.contains(&silent.local_addr().unwrap()));
        is_first
    }

    #[test]
    fn the_kernel_holds_little_of_a_client_that_does_not_read() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"?").unwrap();
        let accepted = SockRef::from(&listener.accept().unwrap().0).try_clone().unwrap();
        // The kernel sets twice as much, for its own bookkeeping.
        assert_eq!(accepted.recv_buffer_size().unwrap(), 2 * RECEIVE_BUFFER_BYTES);
        assert_eq!(accepted.send_buffer_size().unwrap(), 2 * SEND_BUFFER_BYTES);
    }

    #[test]
    fn deferred_accept_prefers_clients_that_have_sent_a_request() {
        // To a machine that stands still for a second both come in turn.
        assert!((0..5).any(|_| clients_with_a_request_come_first()));
    }
}
