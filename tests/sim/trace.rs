//! What the hosts of a simulation say, with virtual time and the host's name: the last part of it
//! is kept, and shown when a seed fails.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::kernel::scene;

/// Lines that are kept.
const KEPT: usize = 4000;

/// The last lines; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Every line is printed at once, too.
    aloud: bool,
}

impl Trace {
    /// Nothing was said yet; `aloud`: what is said is printed at once, too.
    pub fn new(aloud: bool) -> Self {
        Self { aloud, ..Self::default() }
    }

    /// Adds a line of the simulation's own.
    pub fn say(&self, what: impl fmt::Display) {
        let line =
            scene(|scene| format!("{:>10.3} {:<8} {what}", scene.now.as_secs_f64(), scene.host));
        self.keep(line);
    }

    fn keep(&self, line: String) {
        if self.aloud {
            println!("{line}");
        }
        let mut lines = self.lines.lock().unwrap();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All that is kept.
    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What takes the product's own messages on this thread.
    pub fn subscriber(&self, level: LevelFilter) -> impl tracing::Subscriber + use<> {
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_timer(VirtualTime)
            .with_writer(self.clone())
            .finish()
    }
}

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        scene(|scene| write!(w, "{:>10.3} {:<8}", scene.now.as_secs_f64(), scene.host))
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { trace: self.clone(), bytes: Vec::new() }
    }
}

/// One message.
pub struct Line {
    trace: Trace,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        self.trace.keep(text.trim_end().to_owned());
    }
}
