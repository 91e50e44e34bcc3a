//! The signals that end arena in good order: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the terminal is gone).
//!
//! They are handled from the first child on. Without that the system would end arena at once, and the kernel its
//! children with it (see `child`): nothing would outlive arena, but nothing would be drained either, and the folder of
//! the run would stay behind.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The shell's exit status after Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Handlers of all three, from when they are made on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from the system's default, which would end arena at once.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn handle() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the first of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            _ = self.hang_up.recv() => (),
        }
    }
}
