//! Marathon's tree where it is: in an ensemble of ZooKeeper (orch's own endpoint is one too), or in
//! the data directory of one of its servers.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;

use super::error::SourceError;
use super::nodes::{Answer, NodeSource};
use super::storage::Storage;
use super::tree::from_nodes;
use crate::jute::ErrorCode;
use crate::migrate::zookeeper::files::Files;
use crate::state::znodes::{Tree, ZkImport};
use crate::zookeeper::client::{Client, ClientError, Ensemble, Options};

/// The path that Marathon keeps its state below, unless it was told another.
pub const ROOT: &str = "/marathon";
const SCHEME: &str = "zk://";
/// How long servers are tried.
const GIVE_UP: Duration = Duration::from_secs(15);

/// What a Marathon keeps in an ensemble: `zk://[USER:PASSWORD@]HOST:2181,…[/PATH]`, as Marathon
/// itself is told by `--zk`. Only read from.
///
/// # Errors
/// If it can't be reached or read, or there is nothing of Marathon's.
pub async fn from_ensemble(address: &str) -> Result<Storage, SourceError> {
    let rest = address.strip_prefix(SCHEME).unwrap_or(address);
    let (identity, rest) = match rest.split_once('@') {
        Some((identity, rest)) => (Some(identity), rest),
        None => (None, rest),
    };
    let mut ensemble: Ensemble =
        rest.parse().map_err(|error| SourceError::Unreachable(format!("{error}")))?;
    // Places in messages are told as the ensemble has them.
    let root = std::mem::take(&mut ensemble.chroot);
    let root = if root.is_empty() { ROOT } else { &root };
    let options = Options { give_up: GIVE_UP, ..Options::default() };
    let (client, _events) = Client::connect(&ensemble, options).await.map_err(problem)?;
    if let Some(identity) = identity {
        client.auth("digest", identity.as_bytes()).await.map_err(problem)?;
    }
    let read = async {
        // A server may be behind its leader.
        client.sync("/").await.map_err(problem)?;
        from_nodes(&client, root).await
    };
    let read = read.await;
    // The session goes by itself too.
    let _ = client.close().await;
    read
}

fn problem(error: ClientError) -> SourceError {
    let text = error.to_string();
    match error {
        ClientError::Refused(ErrorCode::NoAuth) | ClientError::AuthFailed => {
            SourceError::Refused(format!(
                "{text}; name who asks in the address, as zk://USER:PASSWORD@HOST:2181/marathon"
            ))
        }
        _ => SourceError::Unreachable(text),
    }
}

/// Nothing, where there is no such node.
fn if_there<T>(answer: Result<T, ClientError>, path: &str) -> Result<Option<T>, SourceError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Refused(ErrorCode::NoNode)) => Ok(None),
        Err(error) => match problem(error) {
            SourceError::Refused(text) => Err(SourceError::Refused(format!("{path}: {text}"))),
            other => Err(other),
        },
    }
}

impl NodeSource for Client {
    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Vec<String>>> {
        async move {
            let answer = self.get_children(path, false).await.map(|(names, _)| names);
            if_there(answer, path)
        }
        .boxed()
    }

    fn data<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>> {
        async move {
            let answer = self.get_data(path, false).await;
            if_there(answer.map(|(data, _)| Bytes::from(data.unwrap_or_default())), path)
        }
        .boxed()
    }
}

/// What a Marathon with the path `root` kept in the ensemble whose server had this data directory:
/// the newest snapshot with the transactions behind it.
///
/// # Errors
/// If there is no such data, it can't be read, or there is nothing of Marathon's.
pub async fn from_directory(directory: &Path, root: &str) -> Result<Storage, SourceError> {
    let path = directory.to_owned();
    let copy = tokio::task::spawn_blocking(move || copy(&path)).await;
    let copy = copy.map_err(|error| SourceError::Unreachable(error.to_string()))??;
    let mut storage = from_nodes(&copy.tree, root).await?;
    storage.origin = format!("data directory, {}", storage.origin);
    Ok(storage)
}

fn copy(directory: &Path) -> Result<ZkImport, SourceError> {
    let place = directory.display().to_string();
    let wrong = |error: &dyn std::fmt::Display| SourceError::malformed(place.as_str(), error);
    let files = Files::open(directory, None).map_err(|error| wrong(&error))?;
    let mut copy = ZkImport::beside();
    // What the copy can't take, if anything.
    let mut fault = None;
    let mut keep = |added: Result<(), String>| {
        fault = added.err();
        fault.is_none()
    };
    let read = files.read_snapshot(|lot| keep(copy.add_rows(&lot)));
    let mut copied = match (fault.take(), read) {
        (Some(fault), _) => return Err(wrong(&fault)),
        (None, read) => read.map_err(|error| wrong(&error))?,
    };
    copy.copied(copied.zxid);
    let mut keep = |added: Result<(), String>| {
        fault = added.err();
        fault.is_none()
    };
    let read =
        files.read_transactions(&mut copied, 0, |lot| keep(copy.add_transactions(&lot.bytes)));
    match (fault, read) {
        (Some(fault), _) => Err(wrong(&fault)),
        (None, read) => read.map(|()| copy).map_err(|error| wrong(&error)),
    }
}

impl NodeSource for Tree {
    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Vec<String>>> {
        let names = self.get(path).map(|_| {
            let children = Tree::children(self, path);
            children.map(|(name, ..)| name.to_owned()).collect()
        });
        async move { Ok(names) }.boxed()
    }

    fn data<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>> {
        let data =
            self.get(path).map(|node| Bytes::copy_from_slice(node.data().unwrap_or_default()));
        async move { Ok(data) }.boxed()
    }
}
