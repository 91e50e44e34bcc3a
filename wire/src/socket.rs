//! Where the Unix sockets are and how a process comes to own one.
//!
//! All of them lie in one folder (`SOCKET_DIR`): `store.sock`, and `NAME.sock` for each api. A socket file outlives the
//! process that made it, so binding means: take the lock beside it, which the kernel releases at any death, and only
//! then remove the file and bind. Two stores on one folder are thereby impossible.

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Owner and group may connect; the group is the one uid that all services share.
const SOCKET_MODE: u32 = 0o660;

/// The longest name of an api, in bytes: it fits into a message between two balancers.
pub const NAME_BYTES_MAX: usize = 44;

/// The name of an api, if it can be one.
///
/// # Errors
/// What a name has to be.
pub fn api_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // The sockets of the other two lie in the same directory.
    let is_taken = ["lb", "store"].contains(&text);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || is_taken || !text.chars().all(is_plain) {
        return Err(format!("give 1 to {NAME_BYTES_MAX} letters, digits, - and _, and neither lb nor store"));
    }
    Ok(text.to_owned())
}

/// The store's socket in `dir`.
#[must_use]
pub fn store_path(dir: &Path) -> PathBuf {
    dir.join("store.sock")
}

/// The socket of the api called `name` in `dir`.
#[must_use]
pub fn backend_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

/// What makes a socket ours while it lives.
pub type Lock = Flock<File>;

/// Binds `path`, after a dead predecessor if need be. The listener is non-blocking.
///
/// # Errors
/// `AddrInUse` when a live process holds the lock; otherwise what the system says, with the path.
pub fn bind(path: &Path) -> io::Result<(UnixListener, Lock)> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(explain)?;
    }
    let lock = lock(&path.with_extension("lock"))?;
    let listener = bind_after(path, || UnixListener::bind(path))?;
    listener.set_nonblocking(true)?;
    Ok((listener, lock))
}

/// Binds `path` in the place of what a dead process has left there, and lets the group in.
pub(crate) fn bind_after<L>(path: &Path, bind: impl FnOnce() -> io::Result<L>) -> io::Result<L> {
    let bound = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let listener = bind()?;
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
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
        for text in ["", "lb", "store", "a/b", "api.control", "api 1", &long] {
            assert!(api_name(text).is_err(), "{text}");
        }
    }
}
