//! A leader that a majority can no longer reach does not know that it was replaced. It would keep
//! agents that the new leader waits for; so it makes sure again and again that it still leads, and
//! until it is sure again, nobody leads as far as this room is concerned.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Consistency, Leadership};

/// The time without a majority after which a server no longer leads is a quarter of the node
/// timeout, within these bounds.
const DOUBT_MIN: Duration = Duration::from_secs(1);
const DOUBT_MAX: Duration = Duration::from_secs(3);

/// How long a leader may be without word from a majority.
pub(super) fn doubt_after(node_timeout: Duration) -> Duration {
    (node_timeout / 4).clamp(DOUBT_MIN, DOUBT_MAX)
}

/// Passes on who leads, without leaders in doubt, until `stop`.
pub(super) async fn follow(
    consensus: Consensus,
    doubt_after: Duration,
    leadership: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let mut raft = consensus.leadership();
    loop {
        let now = raft.borrow_and_update().clone();
        let leads = now.ready;
        publish(&leadership, now.clone());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = raft.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = make_sure(&consensus, &now, doubt_after, &leadership), if leads => {}
        }
    }
}

/// Asks the majority on and on.
async fn make_sure(
    consensus: &Consensus,
    now: &Leadership,
    doubt_after: Duration,
    leadership: &watch::Sender<Leadership>,
) {
    loop {
        // A read is answered only after a majority has said that it still follows.
        let deadline = Instant::now() + doubt_after;
        let sure = timeout_at(deadline, consensus.read(Consistency::Linearizable)).await;
        if matches!(sure, Ok(Ok(_))) {
            publish(leadership, now.clone());
        } else {
            let doubt = Leadership { leader: None, ready: false, term: now.term };
            if publish(leadership, doubt) {
                tracing::warn!("no word from a majority of the servers: agents must look for them");
            }
        }
        sleep(doubt_after / 4).await;
    }
}

fn publish(leadership: &watch::Sender<Leadership>, now: Leadership) -> bool {
    leadership.send_if_modified(|known| {
        let news = *known != now;
        *known = now;
        news
    })
}
