//! Rows and transactions on their way from here into an import.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::view::query::{ZkRowsQuery, ZkTransactionsQuery};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};

/// Lots between who reads and who sends.
const LOTS: usize = 8;
/// How often rows are sent again from where the import is.
const TRIES: u32 = 10;
const BYTES: &str = "application/octet-stream";

/// The way into an import.
#[derive(Debug)]
pub(super) struct Feed<'c> {
    name: String,
    pub(super) context: &'c Context,
}

impl<'c> Feed<'c> {
    pub(super) fn new(name: &str, context: &'c Context) -> Self {
        Self { name: name.to_owned(), context }
    }

    /// The import; none if there is none of that name.
    pub(super) async fn find(&self) -> Result<Option<ZkImportRow>, Failure> {
        let call = Call::get(["zk", "imports", self.name.as_str()]);
        match self.context.client.json(call).await {
            Ok(row) => Ok(Some(row)),
            Err(failure) if failure.exit == Exit::NOT_FOUND => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The import again, if it is still that copy.
    pub(super) async fn same(&self, generation: u64) -> Result<ZkImportRow, Failure> {
        match self.find().await? {
            Some(row) if row.generation == generation => Ok(row),
            found => {
                let what = if found.is_some() { "begun anew" } else { "removed" };
                let what = format!("the import {} was {what} meanwhile", self.name);
                Err(Failure::new(Exit::REFUSED, what)
                    .hint("perhaps by another command; see orch zk migrate status"))
            }
        }
    }

    /// Throws away what that copy has, and begins another one from the same source.
    pub(super) async fn anew(&self, row: &ZkImportRow, why: &str) -> Result<ZkImportRow, Failure> {
        self.step(&ZkStep::Anew { generation: row.generation, why: why.to_owned() }).await
    }

    /// Takes a step.
    pub(super) async fn step(&self, step: &ZkStep) -> Result<ZkImportRow, Failure> {
        let call = Call::new(Method::POST, ["zk", "imports", self.name.as_str(), "steps"])
            .json(step)?
            .unhurried();
        self.context.client.json(call).await
    }

    /// Sends lots of rows as they are read, the first with the number `from`; returns when all are
    /// durable, or where it broke off.
    pub(super) async fn rows(
        &self,
        generation: u64,
        from: u64,
        lots: mpsc::Receiver<Bytes>,
    ) -> Result<ZkImportRow, Failure> {
        let framed = ReceiverStream::new(lots).flat_map(|lot| {
            let mut head = BytesMut::with_capacity(4);
            head.put_u32(u32::try_from(lot.len()).unwrap_or(u32::MAX));
            futures::stream::iter([Ok::<_, std::io::Error>(head.freeze()), Ok(lot)])
        });
        let call = Call::new(Method::POST, ["zk", "imports", self.name.as_str(), "rows"])
            .query(&ZkRowsQuery { generation, from });
        let body = reqwest::Body::wrap_stream(framed);
        let response = self.context.client.upload(call, BYTES, body).await?;
        response
            .json()
            .await
            .map_err(|error| Failure::failed(format!("the server's answer: {error}")).passing())
    }

    /// Sends all lots of rows that `read` makes, on a thread of its own, each time from the first
    /// one that the import does not have: `read` is called again when the way broke off.
    pub(super) async fn all_rows<T, E>(
        &self,
        generation: u64,
        mut next: u64,
        read: impl Fn(&mut dyn FnMut(Vec<u8>) -> bool) -> Result<T, E> + Clone + Send + 'static,
    ) -> Result<(ZkImportRow, T), Failure>
    where
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let mut tries = 0;
        loop {
            let (sender, lots) = mpsc::channel::<Bytes>(LOTS);
            let (read, skip) = (read.clone(), next);
            let reader = tokio::task::spawn_blocking(move || {
                let mut number = 0;
                read(&mut |lot: Vec<u8>| {
                    number += 1;
                    number <= skip || sender.blocking_send(lot.into()).is_ok()
                })
            });
            let sent = self.rows(generation, next, lots).await;
            let read = reader.await.map_err(|error| Failure::failed(error.to_string()))?;
            match (sent, read) {
                (Ok(row), Ok(read)) => return Ok((row, read)),
                // It did not end because nobody took the rows: the source can't be read.
                (Ok(_), Err(error)) => return Err(Failure::failed(error.to_string())),
                (Err(failure), _) if failure.exit != Exit::FAILED => return Err(failure),
                (Err(failure), _) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Err(failure.hint("the same command goes on where this one ended"));
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            // Whichever server answers: it may be another one now.
            next = self.same(generation).await?.next_chunk;
        }
    }

    /// Sends transactions behind `after`.
    pub(super) async fn transactions(
        &self,
        generation: u64,
        after: i64,
        lot: Vec<u8>,
    ) -> Result<ZkImportRow, Failure> {
        let query = ZkTransactionsQuery { generation, after: format!("{after:#x}") };
        let path = ["zk", "imports", self.name.as_str(), "transactions"];
        let call = Call::new(Method::POST, path).query(&query).body(lot, BYTES).unhurried();
        self.context.client.json(call).await
    }
}

/// Rate and time left, on a terminal.
pub(super) fn progress(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {human_pos}/{human_len} {per_sec}, {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}
