//! Waiting for conditions.

use std::time::{Duration, Instant};

/// For what takes a moment: an election, a start, a report.
pub const SHORT: Duration = Duration::from_secs(30);
/// For what takes timeouts of the product, or many steps.
pub const LONG: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(50);

/// Tries until `probe` is content and returns what it found. When the deadline passes, the test
/// fails with what was awaited and what `probe` said last.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(reason) if began.elapsed() > deadline => {
                panic!("waited {:?} for: {what}\n  last: {reason}", began.elapsed())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
