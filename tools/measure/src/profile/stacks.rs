//! What `perf script` prints, folded into one line for each distinct stack, and what the lines add up to.
//!
//! ```text
//!   lb;main;tokio::runtime::...;lb::forward::Forward::handle;entry_SYSCALL_64_after_hwframe_[k];tcp_sendmsg_[k] 17
//!   '--- outermost first, kernel functions marked ---'                                                     samples
//! ```
//!
//! A function's own samples are those in which it is the innermost; its total are those in which it occurs at all, once
//! for a stack however often it recurs there.

use anyhow::Context;
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Options as GraphOptions, from_reader};
use std::collections::{HashMap, HashSet};

/// Frames narrower than this share of the picture, in percent, are left out of it: they could be neither seen nor hit,
/// and take most of the file.
const FRAME_PERCENT_MIN: f64 = 0.15;

/// How wide a picture is, in pixels, where it is not stretched.
const PICTURE_WIDTH: usize = 1_400;

/// How inferno marks functions of the kernel.
const KERNEL_MARK: &str = "_[k]";

/// One process's samples, as folded lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    folded: String,
}

/// A function, and in how many samples it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// How it is called, with `_[k]` at its end in the kernel.
    pub name: String,
    /// Samples in which it was the innermost.
    pub own: u64,
    /// Samples in which it occurs.
    pub total: u64,
}

impl Stacks {
    /// Folds what `perf script` printed.
    ///
    /// # Errors
    /// When it is no such text.
    pub fn fold(script: &[u8]) -> anyhow::Result<Self> {
        let mut options = FoldOptions::default();
        options.annotate_kernel = true;
        let mut folded = Vec::new();
        Folder::from(options).collapse(script, &mut folded).context("the output of perf script")?;
        let folded = String::from_utf8_lossy(&folded);
        Ok(Self { folded: folded.lines().map(|line| renamed(line) + "\n").collect() })
    }

    /// The folded lines, as `inferno-flamegraph` and others read them.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.lines().map(|(_, samples)| samples).sum()
    }

    /// Samples that were taken inside the kernel.
    #[must_use]
    pub fn in_kernel(&self) -> u64 {
        let inside = self.lines().filter(|(stack, _)| stack.ends_with(KERNEL_MARK));
        inside.map(|(_, samples)| samples).sum()
    }

    /// Every function, the one with the most samples of its own first.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        let mut counts: HashMap<&str, (u64, u64)> = HashMap::new();
        for (stack, samples) in self.lines() {
            // The first frame is the thread.
            let frames: Vec<&str> = stack.split(';').skip(1).collect();
            if let Some(innermost) = frames.last() {
                counts.entry(innermost).or_default().0 += samples;
            }
            for frame in frames.into_iter().collect::<HashSet<_>>() {
                counts.entry(frame).or_default().1 += samples;
            }
        }
        let function = |(name, (own, total)): (&str, _)| Function { name: name.to_owned(), own, total };
        let mut functions: Vec<Function> = counts.into_iter().map(function).collect();
        functions.sort_by(|a, b| (b.own, b.total, &a.name).cmp(&(a.own, a.total, &b.name)));
        functions
    }

    /// The flame graph, as SVG; none without samples, of which a balancer that hands off may have none.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn flame_graph(&self, title: &str, subtitle: &str) -> anyhow::Result<Option<Vec<u8>>> {
        if self.folded.is_empty() {
            return Ok(None);
        }
        let mut options = GraphOptions::default();
        options.title = title.to_owned();
        options.subtitle = Some(subtitle.to_owned());
        options.colors = Palette::Multi(MultiPalette::Java);
        options.image_width = Some(PICTURE_WIDTH);
        options.min_width = FRAME_PERCENT_MIN;
        options.deterministic = true;
        let mut picture = Vec::new();
        from_reader(&mut options, self.folded.as_bytes(), &mut picture).context("the flame graph")?;
        Ok(Some(picture))
    }

    fn lines(&self) -> impl Iterator<Item = (&str, u64)> {
        self.folded.lines().filter_map(|line| {
            let (stack, samples) = line.rsplit_once(' ')?;
            Some((stack, samples.parse().ok()?))
        })
    }
}

/// What is in the names of functions that the kernel maps into every process, so that they run outside of it; inferno
/// marks them.
const VDSO: &str = "vdso";

/// A folded line with the names that people know: without the hash that the compiler puts at the end of every path, `::h`
/// and 16 hexadecimal digits, and without the kernel's mark where it is wrong.
fn renamed(line: &str) -> String {
    let is_hash = |part: &str| {
        part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let clean = |frame: &str| match frame.rsplit_once("::") {
        Some((path, last)) if is_hash(last) => path.to_owned(),
        _ if frame.contains(VDSO) => frame.trim_end_matches(KERNEL_MARK).to_owned(),
        _ => frame.to_owned(),
    };
    let Some((stack, samples)) = line.rsplit_once(' ') else { return line.to_owned() };
    format!("{} {samples}", stack.split(';').map(clean).collect::<Vec<_>>().join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &[u8] = b"\
lb 7310  5471.593640: cpu-clock: 
\tffffffff816bb43b vfs_write+0x7b ([kernel.kallsyms])
\tffffffff81000130 entry_SYSCALL_64_after_hwframe+0x76 ([kernel.kallsyms])
\t           f8350 __write+0x10 (/lb)
\t           f8350 lb::forward::handle::h0123456789abcdef+0x10 (/lb)

lb 7310  5471.594640: cpu-clock: 
\t    7ffd44d5ca0b __vdso_clock_gettime+0x10 ([vdso])
\t           f8350 lb::forward::handle::h0123456789abcdef+0x10 (/lb)
\t           f8350 lb::forward::handle::h0123456789abcdef+0x10 (/lb)

";

    #[test]
    fn a_script_is_folded_and_added_up() {
        let stacks = Stacks::fold(SCRIPT).unwrap();
        let whole = "lb;lb::forward::handle;__write;entry_SYSCALL_64_after_hwframe_[k];vfs_write_[k] 1\n";
        let clock = "lb;lb::forward::handle;lb::forward::handle;__vdso_clock_gettime 1\n";
        assert_eq!(stacks.folded(), format!("{whole}{clock}"));
        assert_eq!((stacks.samples(), stacks.in_kernel()), (2, 1));
        let functions = stacks.functions();
        let function = |name: &str, own, total| Function { name: name.to_owned(), own, total };
        assert_eq!(functions[0], function("__vdso_clock_gettime", 1, 1));
        assert_eq!(functions[1], function("vfs_write_[k]", 1, 1));
        assert_eq!(functions[2], function("lb::forward::handle", 0, 2));
        assert_eq!(functions.len(), 5);
    }

    #[test]
    fn the_picture_is_the_same_each_time() {
        let stacks = Stacks::fold(SCRIPT).unwrap();
        let picture = stacks.flame_graph("lb", "2 samples").unwrap().unwrap();
        assert!(String::from_utf8_lossy(&picture).contains("lb::forward::handle"));
        assert_eq!(Some(picture), stacks.flame_graph("lb", "2 samples").unwrap());
    }

    #[test]
    fn a_process_that_was_never_on_a_core_is_no_failure() {
        let stacks = Stacks::fold(b"").unwrap();
        assert_eq!((stacks.samples(), stacks.functions()), (0, Vec::new()));
        assert_eq!(stacks.flame_graph("lb", "0 samples").unwrap(), None);
    }
}
