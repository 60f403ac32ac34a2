//! What a command says while nobody answers it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::output::note;
use crate::migrate::zookeeper::link::{LinkError, LiveSource};
use crate::zookeeper::observer::Observer;

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
    let began = Instant::now();
    let tries = async {
        loop {
            match source.join(server_id, last_zxid).await {
                Err(_) if began.elapsed() < COMES_BACK => sleep(AGAIN_AFTER).await,
                outcome => return outcome,
            }
        }
    };
    let what = format!("the leader of {source} to let an observer in");
    patiently(&what, source.patience(), tries).await
}
