//! Where arena tells people what happens: lines on standard error, above the progress bar while there is one.
//!
//! Standard output is left to results (the table of a fight, the table of `arena up`), so that it can be piped. Whether
//! a person watches is asked once, of standard error: a bar that is drawn into a file is of no use, and lines that
//! are printed above a bar that is not drawn would be lost.

use indicatif::{MultiProgress, ProgressBar};
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Writes a result to standard output. A reader that has gone wants no more of it.
pub fn print(text: impl fmt::Display) {
    let _ = write!(io::stdout(), "{text}");
}

/// Standard error, shared by all who have something to say. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Terminal {
    bars: MultiProgress,
    is_interactive: bool,
    is_silent: bool,
}

impl Default for Terminal {
    fn default() -> Self {
        let is_interactive = std::io::stderr().is_terminal();
        Self { bars: MultiProgress::new(), is_interactive, is_silent: false }
    }
}

impl Terminal {
    /// One that says nothing: for children that are killed a thousand times.
    #[must_use]
    pub fn silent() -> Self {
        Self { is_silent: true, ..Self::default() }
    }

    /// True when a person watches, and a line can be drawn again.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        self.is_interactive
    }

    /// Writes whole lines.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.is_silent {
            return;
        }
        // A bar that is not drawn swallows what is printed above it. Standard error may be gone.
        if self.is_interactive {
            let _ = self.bars.println(text);
        } else {
            wire::stderr::say(text.as_ref());
        }
    }

    /// Keeps a bar at the bottom.
    #[must_use]
    pub fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }
}
