//! Where the Unix sockets are and how a process comes to own one.
//!
//! ```text
//!   SOCKET_DIR         lb.sock, lb.control, NAME.sock and NAME.control of each api    lb, apis
//!   STORE_SOCKET_DIR   store.sock                                                     apis, store
//!   LOG_DIR            operator.sock                                                  store, operators inside it
//! ```
//!
//! lb faces the internet, so its folder holds no socket of the store where `STORE_SOCKET_DIR` is another folder; it is
//! the same by default. The socket of the store that serves apis takes no operator's decision, and the other one nothing
//! else. Both, and the control sockets, are for their owner only, and their other end is asked for its user
//! ([`is_ours`]): the mode of a file does not hold against a descriptor that was passed on.
//!
//! A socket file outlives the process that made it, so binding means: take the lock beside it, which the kernel releases
//! at any death, and only then remove the file and bind. Two stores on one folder are thereby impossible.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Owner and group may connect to a socket that speaks HTTP.
const HTTP_MODE: u32 = 0o660;

/// Only the owner may connect to what is between our own processes, and to the operator's socket.
const PRIVATE_MODE: u32 = 0o600;

/// The longest path that the kernel takes for a socket (`sun_path`, unix(7)), without its end.
const PATH_BYTES_MAX: usize = 107;

/// The longest name of an api, in bytes: it fits into a message between two balancers.
pub const NAME_BYTES_MAX: usize = 44;

/// The name of an api, if it can be one.
///
/// # Errors
/// What a name has to be.
pub fn api_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Their sockets may lie in the same folder.
    let is_taken = ["lb", "store", "operator"].contains(&text);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || is_taken || !text.chars().all(is_plain) {
        return Err(format!(
            "give 1 to {NAME_BYTES_MAX} letters, digits, - and _, but not lb, store or operator"
        ));
    }
    Ok(text.to_owned())
}

/// The store's socket for apis in `dir`.
#[must_use]
pub fn store_path(dir: &Path) -> PathBuf {
    dir.join("store.sock")
}

/// The store's socket for operators, in the folder of its log.
#[must_use]
pub fn operator_path(log_dir: &Path) -> PathBuf {
    log_dir.join("operator.sock")
}

/// The socket of the api called `name` in `dir`.
#[must_use]
pub fn backend_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

/// What makes a socket ours while it lives.
pub type Lock = Flock<File>;

/// Binds `path` for HTTP, after a dead predecessor if need be. The listener is non-blocking.
///
/// # Errors
/// `AddrInUse` when a live process holds the lock; otherwise what the system says, with the path.
pub fn bind(path: &Path) -> io::Result<(UnixListener, Lock)> {
    bind_as(path, HTTP_MODE)
}

/// The same for a socket that only its owner may connect to.
///
/// # Errors
/// As [`bind`].
pub fn bind_private(path: &Path) -> io::Result<(UnixListener, Lock)> {
    bind_as(path, PRIVATE_MODE)
}

fn bind_as(path: &Path, mode: u32) -> io::Result<(UnixListener, Lock)> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(explain)?;
    }
    let lock = lock(&path.with_extension("lock"))?;
    let listener = bind_after(path, mode, || at_short(path, |path| UnixListener::bind(path)))?;
    listener.set_nonblocking(true)?;
    Ok((listener, lock))
}

/// Connects to the socket at `path`, which may be longer than the kernel takes.
///
/// # Errors
/// What the system says.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    at_short(path, |path| UnixStream::connect(path))
}

/// Uses a socket by a name that the kernel takes: a path that is too long by way of its open folder.
fn at_short<T>(path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if path.as_os_str().len() > PATH_BYTES_MAX => {
            let dir = File::open(dir)?;
            work(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
        }
        _ => work(path),
    }
}

/// True when the process at the other end of a connected Unix socket runs as our user, or as root.
#[must_use]
pub fn is_ours(socket: &impl AsFd) -> bool {
    let peer = getsockopt(socket, PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

/// Binds the socket of a control connection, for its owner only: `bind` makes the listener at `path`.
///
/// # Errors
/// What the system says, or `AddrInUse` when a live process serves there.
pub fn bind_control_after<L>(path: &Path, bind: impl FnOnce() -> io::Result<L>) -> io::Result<L> {
    bind_after(path, PRIVATE_MODE, bind)
}

/// Binds `path` in the place of what a dead process has left there, and sets its mode.
fn bind_after<L>(path: &Path, mode: u32, bind: impl FnOnce() -> io::Result<L>) -> io::Result<L> {
    let bound = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let listener = bind()?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(listener)
    };
    bound().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Takes the lock file `path`, made if need be, for as long as the value lives.
///
/// # Errors
/// `AddrInUse` when another process holds it.
pub fn lock(path: &Path) -> io::Result<Lock> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let text = format!("{} is held by another process ({error}); stop that one first", path.display());
        io::Error::new(io::ErrorKind::AddrInUse, text)
    })
}

/// Raises the soft limit of open files to the hard one and tells it: containers often start with 1,024.
pub fn raise_descriptor_limit() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => {
            if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
                hard
            } else {
                soft
            }
        }
        Err(_) => 1_024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short_and_not_that_of_another_process() {
        assert_eq!(api_name("api-2_b").unwrap(), "api-2_b");
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        assert!(api_name(&long[1..]).is_ok());
        for text in ["", "lb", "store", "operator", "a/b", "api.control", "api 1", &long] {
            assert!(api_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_with_a_long_path_is_bound_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = operator_path(&dir.path().join("l".repeat(200)));
        let (listener, _lock) = bind_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_MODE);
        let stream = connect(&path).unwrap();
        assert!(is_ours(&stream));
        assert!(is_ours(&listener.accept().unwrap().0));
    }

    #[test]
    fn a_socket_for_http_is_for_the_group_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = backend_path(dir.path(), "api1");
        let (_listener, _lock) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, HTTP_MODE);
    }
}
