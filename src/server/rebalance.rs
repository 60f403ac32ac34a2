//! Asks for better placement now and then, where the operator has switched that on.

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Leadership};
use crate::limits::REBALANCE_MOVES_EACH_TIME;
use crate::model::allocation::StopReason;
use crate::model::time::Millis;
use crate::planner::rebalance::{Proposal, propose};
use crate::state::{Command, Request, State};

/// Proposes a few moves every so often while this server leads, until `stop`.
pub(super) async fn run(
    consensus: Consensus,
    mut leadership: watch::Receiver<Leadership>,
    every: Millis,
    stop: CancellationToken,
) {
    loop {
        let term = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            now = leadership.wait_for(|now| now.ready) => match now {
                Ok(now) => now.term,
                Err(_) => return,
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(every.as_duration()) => {}
        }
        let leads = leadership.borrow().ready && leadership.borrow().term == term;
        if leads {
            once(&consensus, term).await;
        }
    }
}

async fn once(consensus: &Consensus, term: u64) {
    let (state, now) = (consensus.views().borrow().state.clone(), consensus.state_time());
    if is_under_way(&state) {
        return;
    }
    // Looks at every job and node: kept away from the threads that serve.
    let work = move || propose(&state, now, REBALANCE_MOVES_EACH_TIME);
    let Ok(proposals) = consensus.ground().offload.run(work).await else {
        tracing::error!(
            "looking for better placement panicked; this is a defect, please report it"
        );
        return;
    };
    if proposals.is_empty() {
        return;
    }
    for Proposal { job, index, from, to, why, .. } in &proposals {
        tracing::info!(%job, index, %from, %to, why, "moves to where it is better off");
    }
    let moves = proposals.iter().map(Into::into).collect();
    let request = Request::from(Command::MoveAllocs { moves });
    if let Err(error) = consensus.propose_in_term(term, &[request]).await {
        tracing::warn!(%error, "better placement was not asked for; it is tried again later");
    }
}

/// Whether what was asked for before is still on its way.
fn is_under_way(state: &State) -> bool {
    state.allocs().any(|alloc| {
        let moving = alloc.moving.as_ref().filter(|moving| !moving.is_over(state.stamp().at));
        !alloc.ended() && moving.is_some_and(|moving| moving.reason == StopReason::Rebalanced)
    })
}
