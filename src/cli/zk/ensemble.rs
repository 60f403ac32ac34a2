//! An import from an ensemble that is named by its clients' ports: as one of its observers where its
//! quorum port lets one in, else as a client of it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::{Copy, Proof};
use super::observe;
use super::wait::{self, COMES_BACK, patiently};
use crate::api::view::zk::ZkStep;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::Row;
use crate::jute::{StatPersisted, path};
use crate::migrate::zookeeper::chunks::Chunks;
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::link::LiveSource;
use crate::migrate::zookeeper::servers;
use crate::migrate::zookeeper::walk::{WalkError, Walked, losses, walk};
use crate::zookeeper::client::{Client, Ensemble, Options};

/// Lots between who reads and who sends.
const LOTS: usize = 8;
/// How long it may take to find out whether an observer gets in.
const PROBE_MAX: Duration = Duration::from_secs(15);
/// The observer's number that only looks.
pub(super) const PROBE_ID: i64 = 248;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Who is asked for: `digest:USER:PASSWORD`.
pub(super) fn identity(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((scheme, proof)) if !scheme.is_empty() && !proof.is_empty() => {
            Ok((scheme.to_owned(), proof.to_owned()))
        }
        _ => Err("write SCHEME:PROOF, as digest:USER:PASSWORD".to_owned()),
    }
}

/// A session there, with these identities.
pub(super) async fn connect(
    ensemble: &Ensemble,
    auth: &[(String, String)],
) -> Result<Client, Failure> {
    let options = Options { give_up_refused: COMES_BACK, ..Options::default() };
    let most = options.give_up;
    let connecting = Client::connect(ensemble, options);
    let connected = patiently(&format!("a server of {ensemble}"), most, connecting).await;
    let (client, _events) = connected.map_err(failed)?;
    for (scheme, proof) in auth {
        client.auth(scheme, proof.as_bytes()).await.map_err(failed)?;
    }
    Ok(client)
}

/// How to copy what an ensemble has.
#[derive(Debug)]
pub(super) struct Ways<'w> {
    /// Who reads its nodes.
    pub(super) auth: &'w [(String, String)],
    /// Not as an observer, even if that can be.
    pub(super) as_client: bool,
    /// Where to begin: a node of the ensemble.
    pub(super) top: &'w str,
}

/// Copies it by the way that carries most.
pub(super) async fn copy(
    ensemble: &Ensemble,
    ways: Ways<'_>,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    // All of it has paths of its own, whatever part is asked for.
    let all = Ensemble { chroot: String::new(), ..ensemble.clone() };
    let client = connect(&all, ways.auth).await?;
    if !ways.as_client {
        let source = LiveSource { quorum: Vec::new(), clients: Some(all.clone()) };
        let why_not = match wait::probe(&source, PROBE_ID, PROBE_MAX).await {
            Ok(observer) => {
                note(&format!(
                    "as an observer, through the quorum port {}: with times to live, containers \
                     and sessions",
                    observer.address()
                ));
                drop(observer);
                let _ = client.close().await;
                return observe::copy(&source, &format!("{all} as an observer"), again, feed).await;
            }
            Err(why) => why,
        };
        note(&format!(
            "note: no observer gets in ({why_not}).\nnote: copying as a client instead, which does \
             not see times to live, containers and sessions; what is lost is listed at the end"
        ));
    }
    let expected = match all.servers.first() {
        Some(server) if ways.top == "/" => servers::ask(server).await.nodes.unwrap_or(0),
        _ => 0,
    };
    let label = format!("{all} as a client");
    let copy = as_client(&client, &label, ways.top, expected, again, feed).await?;
    let _ = client.close().await;
    Ok(copy)
}

/// Copies all that clients see at and below `top`.
async fn as_client(
    client: &Client,
    source: &str,
    top: &str,
    expected: u64,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    let step = ZkStep::Start { source: source.to_owned(), live: false, again };
    let before = feed.step(&step).await?;
    if before.phase == "copying" && before.next_chunk > 0 {
        note("an earlier command was interrupted; a copy as a client begins anew");
    }
    // What is read twice is not read alike, and what was read before may still be on its way.
    let generation = feed.anew(&before, "").await?.generation;
    let bar = progress(expected, "nodes");
    let (sender, lots) = mpsc::channel::<Bytes>(LOTS);
    let mut inventory = Inventory::default();
    let counted = bar.clone();
    let reading = async {
        let mut chunks = Chunks::default();
        // Nobody need be allowed to read what is above; it does not go further than the copy.
        for above in above(top) {
            let name = if above == "/" { "" } else { above };
            let (acl, stat) = (OPEN_ACL_KEY, StatPersisted::default());
            let row = NodeRow { path: name, data: None, acl, stat };
            chunks.add(&Row::Node(row)).map_err(|error| WalkError::NotTaken(error.to_string()))?;
        }
        let walked = walk(client, top, async |row: &Row<'_>| {
            inventory.add(row);
            counted.set_length(expected.max(inventory.nodes));
            counted.set_position(inventory.nodes);
            match chunks.add(row).map_err(|error| error.to_string())? {
                Some(lot) => sender.send(lot.into()).await.map_err(|error| error.to_string()),
                None => Ok(()),
            }
        });
        let walked = walked.await;
        if let (Ok(_), Some(lot)) = (&walked, chunks.finish()) {
            // Who takes rows says itself why it does not.
            let _ = sender.send(lot.into()).await;
        }
        drop(sender);
        walked
    };
    let (walked, sent) = tokio::join!(reading, feed.rows(generation, 0, lots));
    bar.finish_and_clear();
    sent?;
    let walked: Walked = walked.map_err(failed)?;
    let zxid = format!("{:#x}", walked.zxids.1);
    let row = feed.step(&ZkStep::Copied { generation, zxid, fuzzy: false }).await?;
    Ok(Copy { row, inventory, proof: Proof::Silent, losses: losses(&walked) })
}

/// The nodes above one, the root first.
fn above(path: &str) -> Vec<&str> {
    let mut above: Vec<&str> =
        std::iter::successors(path::split(path), |(above, _)| path::split(above))
            .map(|(above, _)| above)
            .collect();
    above.reverse();
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_comes_from_the_root_on() {
        assert_eq!(above("/a/b/c"), ["/", "/a", "/a/b"]);
        assert_eq!(above("/a"), ["/"]);
        assert!(above("/").is_empty());
    }
}
