//! The nodes that a benchmark works on, below one of its own, and their removal.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Target, ZkError};
use crate::jute::{Acl, ErrorCode};
use crate::zookeeper::client::{Client, ClientError, Mode, Options};

/// Nodes whose data are read and replaced.
const NODES: usize = 1000;
/// Nodes that are made or removed at the same time.
const AT_ONCE: usize = 256;
const GIVE_UP: Duration = Duration::from_secs(30);

/// What a connection needs to know of the nodes.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    top: Arc<str>,
    connection: usize,
    /// The node that this connection begins with.
    pub(super) first: usize,
}

impl Paths {
    /// One of the nodes that are there.
    pub(super) fn node(&self, number: usize) -> String {
        format!("{}/n{}", self.top, number % NODES)
    }

    /// One that this connection makes.
    pub(super) fn new_node(&self, number: usize) -> String {
        format!("{}/c{}/{number:010}", self.top, self.connection)
    }
}

/// The nodes at one target.
pub(super) struct Tree {
    pub(super) target: Target,
    client: Client,
    top: Arc<str>,
    /// How many nodes each connection has made since the last [`Self::tidy`].
    made: Vec<usize>,
}

impl Tree {
    /// Makes them.
    pub(super) async fn make(
        target: &Target,
        connections: usize,
        value_bytes: usize,
    ) -> Result<Self, ZkError> {
        let failed = |error| ZkError::Client { label: target.label.clone(), error };
        let options = Options { give_up: GIVE_UP, ..Options::default() };
        let (client, _) = Client::connect(&target.ensemble, options).await.map_err(failed)?;
        let chroot = &target.ensemble.chroot;
        let name = format!("/orch-bench-{:016x}", crate::clock::random());
        let open = || vec![Acl::open()];
        client.create(&name, b"", open(), Mode::Persistent).await.map_err(failed)?;
        let top = Arc::from(format!("{chroot}{name}"));
        let tree = Self { target: target.clone(), client, top, made: vec![0; connections] };
        let value = vec![0x5a; value_bytes];
        let nodes = (0..NODES).map(|number| format!("{name}/n{number}"));
        let parents = (0..connections).map(|number| format!("{name}/c{number}"));
        let made = stream::iter(nodes.chain(parents)).map(|path| {
            let (client, value) = (&tree.client, &value);
            async move { client.create(&path, value, open(), Mode::Persistent).await }
        });
        match made.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await {
            Ok(()) => Ok(tree),
            Err(error) => {
                let error = failed(error);
                // The first error is the one to tell of.
                let _ = tree.remove().await;
                Err(error)
            }
        }
    }

    /// For a connection.
    pub(super) fn paths(&self, connection: usize) -> Paths {
        let first = connection * NODES / self.made.len().max(1);
        Paths { top: self.top.clone(), connection, first }
    }

    /// A connection has asked for so many nodes.
    pub(super) fn made(&mut self, connection: usize, nodes: usize) {
        self.made[connection] += nodes;
    }

    /// Removes the nodes that connections have made, so that the next run finds what this one
    /// found.
    pub(super) async fn tidy(&mut self) -> Result<(), ZkError> {
        let made = self.made.iter_mut().map(std::mem::take).enumerate().collect::<Vec<_>>();
        let paths = made.into_iter().flat_map(|(connection, nodes)| {
            let paths = self.paths(connection);
            (0..nodes).map(move |number| paths.new_node(number))
        });
        self.delete(paths).await
    }

    /// Removes all of it.
    pub(super) async fn remove(mut self) -> Result<(), ZkError> {
        self.tidy().await?;
        let top = self.top.clone();
        self.delete((0..NODES).map(|number| format!("{top}/n{number}"))).await?;
        self.delete((0..self.made.len()).map(|number| format!("{top}/c{number}"))).await?;
        self.delete(std::iter::once(top.to_string())).await?;
        let failed = |error| ZkError::Client { label: self.target.label.clone(), error };
        self.client.clone().close().await.map_err(failed)
    }

    async fn delete(&self, paths: impl Iterator<Item = String>) -> Result<(), ZkError> {
        let chroot = self.target.ensemble.chroot.len();
        let deleted = stream::iter(paths).map(|path| async move {
            match self.client.delete(&path[chroot..], -1).await {
                // Asked for, but the run broke off before.
                Err(ClientError::Refused(ErrorCode::NoNode)) => Ok(()),
                deleted => deleted,
            }
        });
        let label = &self.target.label;
        deleted
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
            .map_err(|error| ZkError::Client { label: label.clone(), error })
    }
}
