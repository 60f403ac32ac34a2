//! An import through the clients' port of an ensemble.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::Copy;
use crate::api::view::zk::ZkStep;
use crate::cli::failure::Failure;
use crate::jute::rows::Row;
use crate::migrate::zookeeper::chunks::Chunks;
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::servers;
use crate::migrate::zookeeper::walk::{Walked, losses, walk};
use crate::zookeeper::client::{Client, Ensemble, Options};

/// Lots between who reads and who sends.
const LOTS: usize = 8;

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
    let (client, _events) = Client::connect(ensemble, Options::default()).await.map_err(failed)?;
    for (scheme, proof) in auth {
        client.auth(scheme, proof.as_bytes()).await.map_err(failed)?;
    }
    Ok(client)
}

/// Copies all that clients see.
pub(super) async fn copy(
    ensemble: &Ensemble,
    auth: &[(String, String)],
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    let client = connect(ensemble, auth).await?;
    let source = ensemble.to_string();
    feed.start_stream(&source, again).await?;
    let expected = match ensemble.servers.first() {
        Some(server) => servers::ask(server).await.nodes.unwrap_or(0),
        None => 0,
    };
    let bar = progress(expected, "nodes");
    let (sender, lots) = mpsc::channel::<Bytes>(LOTS);
    let mut inventory = Inventory::default();
    let counted = bar.clone();
    let reading = async {
        let mut chunks = Chunks::default();
        let walked = walk(&client, async |row: &Row<'_>| {
            inventory.add(row);
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
    let (walked, sent) = tokio::join!(reading, feed.rows(0, lots));
    bar.finish_and_clear();
    sent?;
    let walked: Walked = walked.map_err(failed)?;
    let _ = client.close().await;
    let zxid = format!("{:#x}", walked.zxids.1);
    let row = feed.step(&ZkStep::Copied { zxid, fuzzy: false }).await?;
    Ok(Copy { row, inventory, source_digest: None, losses: losses(&walked) })
}
