//! The measurements themselves, whoever the source is.

use std::time::Instant;

use tokio::sync::watch;

use super::error::setup;
use super::side::{Applied, Sent, Side, read_alone};
use super::{Committed, MigrateError, Options, PATIENCE};
use crate::bench::figures::{Row, distribution, figure};
use crate::migrate::zookeeper::link::LiveSource;

/// Reads and copies in turn, then follows what `drive` has the source commit.
pub(super) async fn measure(
    options: &Options,
    source: &LiveSource,
    drive: impl AsyncFn() -> Result<Vec<Committed>, MigrateError>,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>, MigrateError> {
    let (mut alone, mut copied) = (Vec::new(), Vec::new());
    let mut sent = Sent::default();
    let mut latest: Option<Side> = None;
    for run in 1..=options.runs.max(1) {
        say(&format!("reading the stream, then copying, {run} of {}", options.runs.max(1)));
        if let Some(before) = latest.take() {
            before.stop().await;
        }
        sent = read_alone(source).await?;
        alone.push(sent.seconds);
        let side = Side::start(&options.dir).await?;
        let began = Instant::now();
        side.copy(source).await?;
        copied.push(began.elapsed().as_secs_f64());
        latest = Some(side);
    }
    let side = latest.ok_or_else(|| setup("nothing was copied"))?;
    say(&format!("following for {} s", options.run.as_secs_f64()));
    let (last, lasts) = watch::channel(i64::MAX);
    let watch = side.watch(lasts);
    let committed = drive().await?;
    last.send_replace(committed.last().map_or(0, |last| last.zxid));
    let applied = tokio::time::timeout(PATIENCE, watch).await;
    let applied = applied.map_err(|_| MigrateError::Slow("the last transactions"))???;
    let status = side.status().ok_or_else(|| setup("the import is gone"))?;
    side.stop().await;

    let (reading, copying) =
        (distribution("reading the stream alone", "s", alone), distribution(COPY, "s", copied));
    let ratio = copying.value / reading.value;
    let seconds = match (committed.first(), committed.last()) {
        (Some(first), Some(last)) => last.at.saturating_duration_since(first.at).as_secs_f64(),
        _ => 0.0,
    };
    Ok(vec![
        figure("nodes in the stream", "", sent.rows as f64),
        figure("bytes of the stream", "MiB", sent.bytes as f64 / f64::from(1 << 20)),
        reading,
        copying,
        figure("copying by reading", "", ratio),
        figure("transactions followed", "", committed.len() as f64),
        figure("transactions followed in a second", "1/s", committed.len() as f64 / seconds),
        distribution("lag behind the source", "ms", lags(&committed, &applied)),
        figure("transactions proven by their digests", "", status.proven as f64),
        figure("digests that were others", "", status.mismatches as f64),
    ])
}

const COPY: &str = "copying, until it is durable";

/// How long after the source each transaction was here, in milliseconds. Both in their order.
fn lags(committed: &[Committed], applied: &[Applied]) -> Vec<f64> {
    let mut applied = applied.iter().peekable();
    let lag = |committed: &Committed| {
        while applied.next_if(|applied| applied.zxid < committed.zxid).is_some() {}
        let here = applied.peek()?.at;
        Some(here.saturating_duration_since(committed.at).as_secs_f64() * 1000.0)
    };
    committed.iter().filter_map(lag).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lag_is_the_time_until_a_view_has_it() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let committed = [(1, 0), (2, 10), (3, 40), (4, 50)];
        let committed = committed.map(|(zxid, millis)| Committed { zxid, at: at(millis) });
        let applied = [(0, 0), (2, 15), (3, 30)];
        let applied = applied.map(|(zxid, millis)| Applied { zxid, at: at(millis) });
        // The third was here before its writer was told; the fourth never came.
        assert_eq!(lags(&committed, &applied), [15.0, 5.0, 0.0]);
    }
}
