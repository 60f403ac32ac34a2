//! What a command says while nobody answers it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::cli::output::note;
use crate::migrate::zookeeper::link::{LinkError, LiveSource};
use crate::zookeeper::observer::{FindError, Observer};

/// Silence that nobody need know of.
const QUIET: Duration = Duration::from_secs(2);
/// A server that is refused or a leader that is being elected may be back within so long.
pub(super) const COMES_BACK: Duration = Duration::from_secs(3);
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Waits for `future`; if that takes long, says for what, and how long at most.
pub(super) async fn patiently<F: Future>(what: &str, most: Duration, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    tokio::select! {
        biased;
        output = &mut future => return output,
        () = sleep(QUIET) => {}
    }
    note(&format!("waiting for {what}, {} s at most", most.as_secs()));
    future.await
}

/// Joins an ensemble; who is refused tries again for a little while.
pub(super) async fn join(
    source: &LiveSource,
    server_id: i64,
    last_zxid: i64,
) -> Result<Observer, LinkError> {
    let what = format!("the leader of {source} to let an observer in");
    patiently(&what, source.patience(), tries(source, server_id, last_zxid)).await
}

/// The same for no longer than `most`, to see whether it can be done.
pub(super) async fn probe(
    source: &LiveSource,
    server_id: i64,
    most: Duration,
) -> Result<Observer, String> {
    let what = format!("a quorum port of {source}");
    let joining = timeout(most, tries(source, server_id, 0));
    match patiently(&what, most, joining).await {
        Ok(joined) => joined.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nobody let an observer in within {} s", most.as_secs())),
    }
}

async fn tries(source: &LiveSource, server_id: i64, last_zxid: i64) -> Result<Observer, LinkError> {
    let began = Instant::now();
    loop {
        match source.join(server_id, last_zxid).await {
            // It will not lead an ensemble a moment later.
            Err(alone @ LinkError::Find(FindError::Alone(_))) => return Err(alone),
            Err(_) if began.elapsed() < COMES_BACK => sleep(AGAIN_AFTER).await,
            outcome => return outcome,
        }
    }
}
